"""Thousands of replies, mutated from those of real servers: whatever a stranger sends, no question is lost or blocks the others.

Choose the number with EDGE_AGENT_TEST_REPLIES and the first one with EDGE_AGENT_TEST_SEED. A failure prints the reply after all
mutations that are not needed for it were taken away.
"""

import gzip
import json
import os
import pathlib
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import pytest

from edge_agent.agent.agent import Agent
from edge_agent.cloud.drain import Drained
from edge_agent.cloud.gate import TEST_QUESTION
from edge_agent.cloud.wire.client import CloudModel
from edge_agent.cloud.wire.reply import read_reply
from edge_agent.cloud.wire.secret import Secrets
from edge_agent.core.config.limits import BudgetLimits
from edge_agent.core.config.settings import DEFAULT_LIMITS
from edge_agent.core.question import Question
from edge_agent.core.routing import PolicyName
from edge_agent.measure.replay import replay
from edge_agent.model.catalog import ModelFiles
from edge_agent.store.store import Store
from tests.support.paths import DEMO
from tests.support.raw_server import RawServer
from tests.support.reply_shapes import SHAPES, Shape
from tests.support.spoken_model import UNSURE, SpokenModel

REPLIES = int(os.environ.get("EDGE_AGENT_TEST_REPLIES", "2000"))
SEED = int(os.environ.get("EDGE_AGENT_TEST_SEED", "0"))
A_HOME = 100  # replies that one database sees, one after the other
KEY = "sk-canary-key-8f2c11d09b7a"
MEMORY = "/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None
OPEN_QUESTION = Question("Which city is the capital?", (), "open")
MONEY_PER_DAY = 0.05

STATUSES = (
    *(200,) * 8, 201, 202, 203, 204, 205, 206, 207, 226, 300, 301, 302, 303, 304, 307, 308, *range(400, 419), *range(421, 432), 440, 444,
    449, 451, 460, 498, 499, *range(500, 512), *range(520, 531), 529, 598, 599, 600, 999,
)  # fmt: skip
TYPES = (
    "application/json",
    "text/html",
    "text/plain",
    "application/problem+json",
    "text/event-stream",
    "",
    "application/json; charset=utf-16",
)
ENCODINGS = ("gzip", "br", "deflate", "zstd", "gzip, gzip", "identity", "GZIP", "x")
RETRIES = (
    "0", "1", "20", "-5", "1.5", "1e9", "9" * 400, "NaN", "inf", "soon", " 7 ", "²", "٣", "Wed, 21 Oct 2026 07:28:00 GMT", "1 Jan 0000",
    "Fri, 31 Dec 9999 23:59:59 GMT", "Wed, 21 Oct 2026 07:28:00 -9999", "120, 60", "PT30S", "\t",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, 10**30, 2**70, -(2**63) - 1, float("nan"), float("inf"), -float("inf"), "", " ", "B", "b", "C", "Z",
    "\ud83d", "B \udc00", "\x00", "B\x1b[31m\u202e", "x" * 30_000, KEY, f"Bearer {KEY}", f"{KEY[:8]}***{KEY[-4:]}", [], {}, [[]], ["B"],
    [{"type": "text", "text": "B"}], {"content": "B"}, "<think>A</think>B", "insufficient_quota", "model_not_found", "content_filter",
    "Question 1 of this case: which one is it?", "length", "stop", "error", 403, "429", "5e2", {"message": {"message": {"message": 7}}},
)  # fmt: skip

Mutation = Callable[[Shape, random.Random], Shape]


def with_headers(shape: Shape, **headers: str) -> Shape:
    return shape._replace(headers={**shape.headers, **{name.replace("_", "-"): value for name, value in headers.items()}})


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all members and elements of a JSON value."""
    for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield (*path, key)
        yield from places(node[key], (*path, key))


def in_json(change: Callable[[Any, Any, random.Random], None]) -> Mutation:
    """A mutation that changes one member of the JSON in a body, if there is any."""

    def mutate(shape: Shape, chance: random.Random) -> Shape:
        try:
            payload = json.loads(shape.body)
            found = list(places(payload))
        except (ValueError, RecursionError):
            return shape
        if not found:
            return shape
        *path, last = chance.choice(found)
        node = payload
        for key in path:
            node = node[key]
        change(node, last, chance)
        return shape._replace(body=json.dumps(payload).encode())

    return mutate


def put_value(node: Any, key: Any, chance: random.Random) -> None:
    node[key] = chance.choice(VALUES)


def remove(node: Any, key: Any, chance: random.Random) -> None:
    del node[key]


def wrap(node: Any, key: Any, chance: random.Random) -> None:
    node[key] = chance.choice(([node[key]], {"error": node[key]}, [node[key]] * 3, json.dumps(node[key])))


def say(shape: Shape, chance: random.Random) -> Shape:
    """An answer in the usual place, with strange words around it and strange numbers beside it."""
    words = chance.choice((f"B. Your key is {KEY}.", "B \ud83d", "B\x00", "B. \x1b]0;x\x07", "B\n" + "x" * 30_000, "\u0412", " B ", "A B"))
    count = chance.choice([value for value in VALUES if isinstance(value, (int, float))])
    usage = {"prompt_tokens": count, "completion_tokens": chance.choice((2, count))}
    return shape._replace(body=json.dumps({"choices": [{"message": {"content": words}}], "usage": usage}).encode())


def complain(shape: Shape, chance: random.Random) -> Shape:
    """An error in the usual place, with strange words in it."""
    words = chance.choice(
        (f"Wrong key {KEY}!", f"Wrong key {KEY[:8]}***{KEY[-4:]}", "\x1b[2J\u202ex", "\ud83d", "x" * 9_000, "Question 0 of case 7")
    )
    error = {"message": words, "code": chance.choice(VALUES), "type": chance.choice(VALUES), "metadata": {"raw": chance.choice(VALUES)}}
    return shape._replace(status=chance.choice(STATUSES), body=json.dumps({"error": error}).encode())


def double_a_key(shape: Shape, chance: random.Random) -> Shape:
    extra = chance.choice(
        (b'"choices": [], ', b'"error": {"code": 401}, ', b'"choices": [{"message": {"content": "A"}}], ', b'"choices": 7, ')
    )
    return shape._replace(body=shape.body.replace(b"{", b"{" + extra, 1))


def cut(shape: Shape, chance: random.Random) -> Shape:
    return shape._replace(body=shape.body[: chance.randint(0, len(shape.body))])


def flip(shape: Shape, chance: random.Random) -> Shape:
    body = bytearray(shape.body)
    for _ in range(chance.randint(1, 8)):
        if body:
            body[chance.randrange(len(body))] = chance.randrange(256)
    return shape._replace(body=bytes(body))


def insert(shape: Shape, chance: random.Random) -> Shape:
    at = chance.randint(0, len(shape.body))
    junk = chance.choice(
        (b"\xef\xbb\xbf", b"\x00", b"\xff\xfe", b"\r\n\r\n", b"NaN", b"1e999", b"[" * 50_000, b'{"a":' * 3_000, b"9" * 6_000)
    )
    return shape._replace(body=shape.body[:at] + junk + shape.body[at:])


def pack(shape: Shape, chance: random.Random) -> Shape:
    body = gzip.compress(shape.body, mtime=0)
    body = chance.choice((body, body[: len(body) // 2], gzip.compress(body, mtime=0), body + b"tail", body + body))
    return with_headers(shape._replace(body=body), Content_Encoding="gzip")


def swell(shape: Shape, chance: random.Random) -> Shape:
    return shape._replace(body=shape.body + chance.choice((b" ", b"\x00", b"<p>")) * (1 << 20))


MUTATIONS: dict[str, Mutation] = {
    "status": lambda shape, chance: shape._replace(status=chance.choice(STATUSES)),
    "type": lambda shape, chance: with_headers(shape, Content_Type=chance.choice(TYPES)),
    "encoding": lambda shape, chance: with_headers(shape, Content_Encoding=chance.choice(ENCODINGS)),
    "retry": lambda shape, chance: with_headers(shape._replace(status=chance.choice((429, 503, 200))), Retry_After=chance.choice(RETRIES)),
    "date": lambda shape, chance: with_headers(shape, Date=chance.choice(RETRIES), Retry_After=chance.choice(RETRIES)),
    "location": lambda shape, chance: with_headers(
        shape, Location=chance.choice(("/", f"https://x.test/?k={KEY}", "http://[", "//x", "\x7f"))
    ),
    "echo": lambda shape, chance: with_headers(shape, X_Echo=KEY, WWW_Authenticate=f"Bearer {KEY}"),
    "value": in_json(put_value),
    "value again": in_json(put_value),
    "removed": in_json(remove),
    "wrapped": in_json(wrap),
    "words": say,
    "complaint": complain,
    "doubled key": double_a_key,
    "cut": cut,
    "flipped": flip,
    "inserted": insert,
    "other body": lambda shape, chance: shape._replace(body=chance.choice(SHAPES).body),
    "utf-16": lambda shape, chance: shape._replace(body=shape.body.decode("utf-8", "replace").encode("utf-16")),
    "swollen": swell,
    "packed": pack,
}


class Case(NamedTuple):
    """One reply and how it is sent: `which` questions get it (one, two or all), over real sockets or not."""

    number: int
    shape: Shape
    mutations: tuple[str, ...]
    which: str
    on_wire: bool

    @classmethod
    def of(cls, number: int) -> "Case":
        chance = random.Random(f"{number}")
        names = chance.sample(sorted(MUTATIONS), chance.choice((0, 1, 1, 1, 2, 2, 3)))
        if "swollen" in names and chance.random() < 0.8:
            names.remove("swollen")  # slow, and the same each time
        order = list(MUTATIONS)
        return cls(
            number, SHAPES[number % len(SHAPES)], tuple(sorted(names, key=order.index)), chance.choice(("one", "one", "two", "all")),
            chance.random() < 0.1,
        )  # fmt: skip

    @property
    def reply(self) -> Shape:
        shape = self.shape
        for name in self.mutations:
            shape = MUTATIONS[name](shape, random.Random(f"{self.number}/{name}"))
        return shape

    def __str__(self) -> str:
        reply = self.reply
        return (
            f"number {self.number} (EDGE_AGENT_TEST_SEED={self.number} EDGE_AGENT_TEST_REPLIES=1), from {self.shape.name!r} by "
            f"{self.mutations or 'nothing'}, sent to {self.which}, {'over a socket' if self.on_wire else 'in the process'}:\n"
            f"{reply.status} {reply.headers}\n{reply.body[:600]!r} ({len(reply.body)} bytes)"
        )


class Device:
    """An agent that is unsure of everything, and its cloud, which the case controls."""

    def __init__(self, home: pathlib.Path, url: str | None = None) -> None:
        self.case: Case | None = None
        self.reply: Shape | None = None
        self.strange: set[str] = set()
        self.offline = False
        self.sent: list[str] = []
        transport = None if url else httpx.MockTransport(self._handle)
        self.cloud = CloudModel(url or "https://cloud.test/v1", "big", KEY, deadline_s=20, transport=transport)
        self.budget = BudgetLimits(calls_per_day=A_HOME * 20, money_per_day=MONEY_PER_DAY * A_HOME, prompt_price=1.0, completion_price=2.0)
        limits = DEFAULT_LIMITS._replace(budget=self.budget)
        store = Store(home / "edge-agent.db")
        self.agent = Agent(ModelFiles(DEMO), store, PolicyName.PREFER_LOCAL, 0.5, self.cloud, None, limits, SpokenModel(UNSURE).open)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        shape = self.answer_to(json.loads(request.read())["messages"][0]["content"])
        headers = [(name, value.encode("utf-8", "replace")) for name, value in shape.headers.items()]
        return httpx.Response(shape.status, headers=headers, stream=httpx.ByteStream(shape.body))

    def answer_to(self, prompt: str) -> Shape:
        """The reply to a question: the strange one, or a sound one."""
        if self.offline:
            raise httpx.ConnectError("no network")
        stem = prompt.partition("\n")[0]
        self.sent.append(stem)
        assert self.reply is not None
        return self.reply if stem in self.strange or "all" in self.strange else SHAPES[0]

    def run(self, case: Case) -> None:
        """Ask one question and drain two more, all with the strange reply in the way, and check what must hold."""
        self.reply, self.sent = case.reply, []
        stems = [f"Question {n} of case {case.number}: which one is it?" for n in range(3)]
        self.strange = {"one": {stems[0]}, "two": set(stems[:2]), "all": {"all"}}[case.which]
        questions = [Question(stem, ("18", "19", "24")) for stem in stems]
        decision = self.agent.ask(questions[0])
        assert decision.persisted and decision.answer in "ABC", decision
        self.offline = True
        for question in questions[1:]:
            assert self.agent.ask(question).provisional
        self.offline = False
        self._calm()
        for _ in range(2 if case.which == "one" else 1):
            *_, done = self.agent.drain()
            assert isinstance(done, Drained)
        self._check(case, stems, done)
        self._clear()

    def _calm(self) -> None:
        """Let the breaker forget what the direct question showed, so that a rate limit does not end every case."""
        with self.agent.store.transaction() as db:
            db.execute("DELETE FROM clouds")

    def _check(self, case: Case, stems: list[str], done: Drained) -> None:
        store = self.agent.store
        rows = {store.question(row.fingerprint).stem: row for row in self.agent.outbox.list() if row.state != "cancelled"}
        states = {stem: row.state for stem, row in rows.items() if stem in stems}
        assert set(states.values()) <= {"ready", "done", "dead"}, states
        assert all(row.attempts <= 8 for row in rows.values())
        sound = [stem for stem in stems[1:] if stem not in self.strange] if case.which != "all" else []
        reached = all(states[stem] == "done" for stem in sound)
        assert reached or (done.stopped and "ready" in states.values()), (states, done)
        if case.which == "all":
            assert "dead" not in states.values(), states
        else:
            assert all(states[stem] == "ready" or stem in self.sent for stem in sound)
        for stem in {*stems} - {*sound} if not done.stopped else ():
            row = rows.get(stem)  # none if it was answered at once
            assert row is None or row.state == "done" or row.attempts or self._suspicions(row.queue_id), row
        ended = {row["queue_id"]: row["ending"] for row in store.log(3)}
        for row in rows.values():
            if row.queue_id in ended:
                expected = {"ready": (None,), "done": ("upheld", "overturned"), "dead": ("abandoned",)}[row.state]
                assert ended[row.queue_id] in expected, (row, ended)
        spent = store.database.rows("SELECT count(*) AS n, min(micros) AS least, sum(micros) AS micros FROM spending")[0]
        assert spent["n"] == 0 or (spent["least"] >= 0 and spent["n"] <= A_HOME * 20)
        assert (spent["micros"] or 0) <= MONEY_PER_DAY * A_HOME * 1e6 + 2 * (1 << 31) * 3
        assert TEST_QUESTION.stem not in stems and not store.database.rows("SELECT 1 FROM questions WHERE stem = ?", (TEST_QUESTION.stem,))
        for question in (*(Question(stem, ("18", "19", "24")) for stem in stems), OPEN_QUESTION):
            assert self.reply is not None
            outcome = read_reply(self.reply.status, httpx.Headers(), self.reply.body[: 1 << 20], question, "big", 1.0, KEY)
            outcome = Secrets(KEY, {}, None).removed(outcome)  # as the client does
            assert (outcome.answer is None) == bool(outcome.error), outcome
            if outcome.answer:
                counts = outcome.answer.n_prompt_tokens or 0, outcome.answer.n_completion_tokens or 0
                outcome.answer.answer.encode(), outcome.answer.reply.encode()  # raises if SQLite could not hold it
                assert all(0 <= count < 1 << 40 for count in counts), counts
            assert (outcome.error or "").isprintable(), outcome.error
            assert KEY not in str(outcome) and KEY[:8] not in (outcome.error or ""), outcome

    def _suspicions(self, queue_id: int) -> int:
        return int(self.agent.store.database.rows("SELECT suspicions FROM outbox WHERE id = ?", (queue_id,))[0]["suspicions"])

    def _clear(self) -> None:
        """Make room for the next case: what waits is dropped, what was spent is forgotten."""
        for row in self.agent.outbox.list("ready", "dead"):
            self.agent.outbox.drop(row.queue_id)
        with self.agent.store.transaction() as db:
            db.execute("DELETE FROM clouds")
            db.execute("DELETE FROM spending")

    def close(self) -> None:
        """Check the whole database, and close it."""
        store = self.agent.store
        for row in store.decisions():
            assert replay(row).differences == (), (row, replay(row))
        tables = [row["name"] for row in store.database.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        assert all(KEY not in str(store.database.rows(f"SELECT * FROM {table}")) for table in tables)
        assert store.database.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
        path = store.path
        self.agent.close()
        assert all(KEY.encode() not in file.read_bytes() for file in path.parent.iterdir() if file.is_file())


@contextmanager
def device(on_wire: bool) -> Iterator[Device]:
    """A device in a new home; its cloud is a server on a real socket, or answers in the process."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as home:
        if not on_wire:
            made = Device(pathlib.Path(home))
            yield made
            made.close()
            return
        with RawServer(lambda request: wire(made.answer_to(json.loads(request)["messages"][0]["content"]))) as server:
            made = Device(pathlib.Path(home), server.url)
            yield made
            made.close()


def wire(shape: Shape) -> bytes:
    """A reply as bytes on a socket. Every tenth has an interim reply before it, a wrong length, or no length."""
    chance = random.Random(shape.body[:200] + str(shape.status).encode())
    lines = [f"HTTP/1.1 {shape.status} Something", *(f"{name}: {value}" for name, value in shape.headers.items())]
    how = chance.choice(("length",) * 6 + ("none", "short", "long", "chunked", "interim", "garbage"))
    length = {"short": max(0, len(shape.body) - 7), "long": len(shape.body) + 7}.get(how, len(shape.body))
    body = shape.body
    if how == "chunked":
        lines.append("Transfer-Encoding: chunked")
        body = f"{len(body):x}\r\n".encode() + body + chance.choice((b"\r\n0\r\n\r\n", b"\r\n", b"\r\nzz\r\n"))
    elif how != "none":
        lines.append(f"Content-Length: {length}")
    head = "\r\n".join([*lines, "", ""]).encode("utf-8", "replace")
    before = {"interim": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", "garbage": b"\x00\xff\r\n"}.get(how, b"")
    return before + head + body


def fails(case: Case) -> BaseException | None:
    """What goes wrong with a case in a new home, if anything does."""
    try:
        with device(case.on_wire) as made:
            made.run(case)
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return error
    return None


def smaller(case: Case) -> Case:
    """The case without the mutations that it fails without, too."""
    for name in case.mutations:
        tried = case._replace(mutations=tuple(other for other in case.mutations if other != name))
        if fails(tried):
            case = tried
    for tried in (case._replace(on_wire=False), case._replace(which="one")):
        case = tried if tried != case and fails(tried) else case
    return case


def test_no_reply_loses_a_question_or_blocks_the_others() -> None:
    cases = [Case.of(SEED + n) for n in range(REPLIES)]
    for on_wire in (False, True):
        chosen = [case for case in cases if case.on_wire is on_wire]
        for start in range(0, len(chosen), A_HOME):
            case = None
            try:
                with device(on_wire) as made:
                    for case in chosen[start : start + A_HOME]:
                        made.run(case)
            except Exception as error:
                if case is not None and fails(case):
                    case = smaller(case)
                    raise AssertionError(f"{fails(case)!r} with {case}") from error
                raise AssertionError(f"one of the replies {[one.number for one in chosen[start : start + A_HOME]]} leaves this") from error


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_reply_as_it_was_seen(shape: Shape) -> None:
    for which in ("one", "all"):
        case = Case(0, shape, (), which, on_wire=which == "one")
        assert (error := fails(case)) is None, f"{error!r} with {case}"
