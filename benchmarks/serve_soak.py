"""Mixed traffic against a real server for a long time: does anything grow, leak or get lost? The command is in serve.py.

Owns the traffic and what must hold afterwards. Clients ask new and known questions, send what is refused, listen to events for a while,
type drafts, wait for provisional answers, and go away in the middle; the cloud is away for a third of the time. What must hold:

- memory is flat: a straight line through the second half of the samples rises by less than 3 MiB of anonymous memory;
- so are file handles and threads: the same line rises by less than 2 handles and 4 threads, because the server starts the threads of
  its pools when they are first needed (all three: beyond twice the line's standard error);
- when nobody asks any more, there are no more handles than before, and no more threads than in the first half;
- no reply is a 5xx but 503, and no connection breaks that its client did not break;
- each decision that a client got is in the database with the same answer, and each provisional one has ended or waits.
"""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import random
import statistics
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from benchmarks.serve_http import Connection, Facts, Reply, facts, quantile, questions, request
from benchmarks.serve_load import as_chat, as_systemone, drive
from edge_agent.store.store import Store
from tests.support.cloud_server import LoopbackCloud
from tests.support.serving import serving

MOST_GROWTH = {"anonymous": 3 << 20, "n_files": 2, "n_threads": 4}
_CLOUD_S, _AWAY_S = 40.0, 20.0  # how long the cloud answers, and then does not
_PAUSE_S = 0.1  # of a client between two requests, on average
_TYPED = 0.03  # between two changes of a draft
_BAD: list[tuple[str, str, object]] = [
    ("POST", "/edge/ask", b"{"),
    ("POST", "/edge/ask", b'{"question": NaN}'),
    ("POST", "/edge/ask", {"question": "What is 2 + 2?", "options": ["4"]}),
    ("POST", "/edge/ask", {"question": "What is 2 + 2?", "options": ["4", "5"], "tau": 7}),
    ("POST", "/edge/ask", {"question": "word " * 5000, "options": ["4", "5"]}),
    ("POST", "/edge/ask", {"question": "x" * 70_000, "options": ["4", "5"]}),
    ("POST", "/edge/ask", b"[" * 5000),
    ("GET", "/edge/decisions/0f8fad5b-d9cb-469f-a165-70867728950e", None),
    ("GET", "/nowhere", None),
    ("GET", "/metrics", None),
    ("DELETE", "/edge/ask", None),
]  # fmt: skip


@dataclass
class Seen:
    """What the clients saw; threads share it, and each operation on it is one step of the interpreter."""

    times_ms: dict[str, list[float]] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)  # by decision, as its client got it
    provisional: deque[str] = field(default_factory=lambda: deque(maxlen=200))
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Client:
    """One client: it does one thing after another until it is told to stop."""

    def __init__(self, port: int, seed: int, seen: Seen, fresh: Callable[[], dict[str, object]], known: list[dict[str, object]]) -> None:
        self.port, self.seen, self.fresh, self.known = port, seen, fresh, known
        self.random, self.connection = random.Random(seed), Connection(port)

    def run(self, kinds: list[str], stop: threading.Event) -> None:
        weights = [KINDS[name][0] for name in kinds]
        while not stop.wait(self.random.uniform(0, 2 * _PAUSE_S)):
            name = self.random.choices(kinds, weights)[0]
            began = time.perf_counter()
            try:
                KINDS[name][1](self)
            except OSError as error:
                self.seen.wrong.append(f"{name}: {type(error).__name__}: {error}")
                self.connection = Connection(self.port)
            self.seen.times_ms.setdefault(name, []).append((time.perf_counter() - began) * 1000)
        self.connection.close()

    def send(self, path: str, body: object = None, method: str | None = None) -> Reply:
        reply = self.connection.ask(request(self.port, path, body, method))
        with self.seen.lock:
            self.seen.statuses[reply.status] += 1
        if b"\r\nconnection: close" in reply.head.lower():
            self.connection.close()
            self.connection = Connection(self.port)
        if reply.status >= 500 and reply.status != 503:
            self.seen.wrong.append(f"{method or ''} {path}: {reply.status} {reply.body[:200]!r}")
        return reply

    def ask(self, asked: dict[str, object]) -> None:
        reply = self.send("/edge/ask", asked)
        if reply.status == 503:
            time.sleep(min(1.0, reply.retry_after_s))
        elif reply.status != 200 or not (decision := reply.json())["persisted"]:
            self.seen.wrong.append(f"a good question: {reply.status} {reply.body[:200]!r}")
        else:
            self.seen.answers[decision["decision_id"]] = decision["answer"]
            if decision["provisional"]:
                self.seen.provisional.append(decision["decision_id"])

    def ask_fresh(self) -> None:
        self.ask(self.fresh())

    def ask_cloud(self) -> None:
        """Asks the cloud; while it is away, the answer is provisional."""
        self.ask({**self.fresh(), "policy": "prefer_cloud"})

    def ask_known(self) -> None:
        self.ask(self.random.choice(self.known))

    def chat(self) -> None:
        self.must_be(200, self.send("/v1/chat/completions", as_chat(self.random.choice(self.known))))

    def typed(self) -> None:
        self.must_be(200, self.send("/v1/systemone", as_systemone(self.random.choice(self.known))))

    def bad(self) -> None:
        method, path, body = self.random.choice(_BAD)
        reply = self.send(path, body, method)
        if not 400 <= reply.status < 500 and reply.status != 503:
            self.seen.wrong.append(f"a bad request was answered: {method} {path} {reply.status}")

    def wait(self) -> None:
        if self.seen.provisional:
            self.must_be(200, self.send(f"/edge/decisions/{self.random.choice(list(self.seen.provisional))}?wait=0.5"))

    def events(self) -> None:
        """Listen for up to a second, then go away in the middle of the stream."""
        ids = ",".join(itertools.islice(self.seen.provisional, 8))
        listening = Connection(self.port, timeout_s=self.random.uniform(0.05, 1.0))
        listening.socket.sendall(request(self.port, f"/edge/events?ids={ids}"))
        data = b""
        with contextlib.suppress(TimeoutError):
            while got := listening.socket.recv(1 << 14):
                data += got
        if data and int(data[9:12]) not in (200, 503):
            self.seen.wrong.append(f"events: {data[:80]!r}")
        listening.close()

    def draft(self) -> None:
        """Type a question, then ask it, drop it, or forget it."""
        asked = self.fresh()
        text, draft_id = str(asked["question"]), None
        for end in range(4, len(text) + 1, 5):
            reply = self.send("/edge/draft", {"text": text[:end], **({"draft_id": draft_id} if draft_id else {})})
            if reply.status != 200:
                return self.must_be(200, reply)
            draft_id = reply.json()["draft_id"]
            time.sleep(_TYPED)
        if (what := self.random.random()) < 0.5:
            self.ask(asked)
        if what > 0.2:
            self.must_be(204, self.send(f"/edge/draft/{draft_id}", method="DELETE"))
        return None

    def leave(self) -> None:
        """Go away in the middle of a request, or of its answer."""
        leaving = Connection(self.port)
        sent = request(self.port, "/edge/ask", self.fresh())
        leaving.socket.sendall(sent[: self.random.choice((5, 60, len(sent) - 5, len(sent), len(sent)))])
        time.sleep(self.random.uniform(0, 0.02))
        leaving.close()

    def must_be(self, status: int, reply: Reply) -> None:
        if reply.status not in (status, 503):
            self.seen.wrong.append(f"{reply.status} instead of {status}: {reply.body[:200]!r}")


KINDS: dict[str, tuple[int, Callable[[_Client], None]]] = {  # how often, and what
    "fresh": (25, _Client.ask_fresh),
    "cloud": (15, _Client.ask_cloud),
    "known": (30, _Client.ask_known),
    "chat": (8, _Client.chat),
    "typed": (8, _Client.typed),
    "bad": (10, _Client.bad),
    "wait": (5, _Client.wait),
    "events": (5, _Client.events),
    "draft": (4, _Client.draft),
    "leave": (8, _Client.leave),
}


def run(model: pathlib.Path, minutes: float, n_clients: int, kinds: list[str]) -> list[str]:
    """Run the traffic and print a table; returns what did not hold, a sentence each."""
    seen, cloud, over = Seen(), LoopbackCloud(), threading.Event()
    threading.Thread(target=_come_and_go, args=(cloud, over), daemon=True).start()
    drawn, drawing = questions(), threading.Lock()

    def fresh() -> dict[str, object]:
        with drawing:
            return next(drawn)

    flags = ("--model", str(model), "--cloud-url", cloud.url, "--cloud-model", "loopback")
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder)
        with serving(home, *flags) as server:
            pid, known = server.process.pid, [fresh() for _ in range(100)]
            clients = [_Client(server.port, seed, seen, fresh, known) for seed in range(n_clients)]
            drive(server.port, itertools.cycle([request(server.port, "/edge/ask", one) for one in known]), 32, 2)  # every thread starts
            _traffic(clients, kinds, min(20.0, minutes * 10), [], pid)
            time.sleep(2)
            before, samples = facts(pid), list[tuple[float, Facts]]()
            clients = [_Client(server.port, seed, seen, fresh, known) for seed in range(n_clients, 2 * n_clients)]
            print(f"{'minute':>7}{'actions':>9}{'anonymous':>11}{'resident':>10}{'files':>7}{'threads':>9}")
            _traffic(clients, kinds, minutes * 60, samples, pid, seen)
            over.set()
            cloud.status, cloud.raw = 200, None
            after = _idle(pid, before)
        lost = _lost(home, seen.answers)
    cloud.stop()
    print(f"\n{'kind':8}{'actions':>9}{'p50, ms':>10}{'p95, ms':>10}")
    for name, times in sorted(seen.times_ms.items()):
        print(f"{name:8}{len(times):9}{quantile(times, 0.5):10.1f}{quantile(times, 0.95):10.1f}")
    print("replies", dict(sorted(seen.statuses.items())), f"  decisions acknowledged: {len(seen.answers)}")
    return [*grown(samples, before, after), *lost, *(f"Unexpected: {one}" for one in seen.wrong[:20])]


def _traffic(
    clients: list[_Client], kinds: list[str], seconds: float, samples: list[tuple[float, Facts]], pid: int, seen: Seen | None = None
) -> None:
    """Let the clients work for some seconds; with `seen`, print ten lines meanwhile."""
    stop, began, printed = threading.Event(), time.monotonic(), 0
    threads = [threading.Thread(target=client.run, args=(kinds, stop)) for client in clients]
    for thread in threads:
        thread.start()
    while (passed := time.monotonic() - began) < seconds:
        time.sleep(min(1.0, seconds / 60))
        samples.append((passed, now := facts(pid)))
        if seen is not None and passed >= printed * seconds / 10:
            printed += 1
            n = sum(len(times) for times in list(seen.times_ms.values()))
            print(
                f"{passed / 60:7.1f}{n:9}{now.anonymous / 1e6:8.1f} MB{now.resident / 1e6:7.1f} MB{now.n_files:7}{now.n_threads:9}",
                flush=True,
            )
    stop.set()
    for thread in threads:
        thread.join(60)


def _come_and_go(cloud: LoopbackCloud, over: threading.Event) -> None:
    """A cloud that is away for a third of the time."""
    while not over.wait(_CLOUD_S):
        cloud.status = 503
        over.wait(_AWAY_S)
        cloud.status = 200
        cloud.requests.clear()


def _idle(pid: int, before: Facts) -> Facts:
    """The process once nobody asks any more and what waited is sent, or after half a minute."""
    ends = time.monotonic() + 30
    while True:
        time.sleep(1)
        now = facts(pid)
        if (now.n_files <= before.n_files and now.n_threads <= before.n_threads) or time.monotonic() > ends:
            return now


def grown(samples: list[tuple[float, Facts]], before: Facts, after: Facts) -> list[str]:
    """What grew over the second half, or did not come back."""
    second = samples[len(samples) // 2 :]
    first_threads = max(one.n_threads for _, one in samples[: len(samples) // 2])
    wrong = []
    print()
    for (name, most), unit in zip(MOST_GROWTH.items(), ("bytes", "file handles", "threads"), strict=True):
        values = [getattr(one, name) for _, one in second]
        (slope, _), covariance = np.polyfit([at for at, _ in second], values, 1, cov=True)
        seconds = second[-1][0] - second[0][0]
        growth, error = float(slope) * seconds, float(covariance[0][0]) ** 0.5 * seconds
        print(
            f"{unit:14}{statistics.mean(values):14,.1f} on average in the second half, {growth:+12,.1f} ± {error:,.1f} by the fitted line"
        )
        if growth - 2 * error >= most:
            wrong.append(f"The {unit} grew by {growth:,.1f} in the second half; {most:,} or more is a leak.")
    idle = [f"{one.n_files} file handles and {one.n_threads} threads" for one in (before, after)]
    print(f"when nobody asks: {idle[0]} before, {idle[1]} after")
    if after.n_files > before.n_files:
        wrong.append(f"{after.n_files} file handles are open when nobody asks; before there were {before.n_files}.")
    if after.n_threads > max(before.n_threads, first_threads):
        wrong.append(f"{after.n_threads} threads run when nobody asks; before there were at most {first_threads}.")
    return wrong


def _lost(home: pathlib.Path, answers: dict[str, str]) -> list[str]:
    """The acknowledged decisions that the database does not have, or has with another answer, or that neither ended nor wait."""
    wrong, n_ended, n_waiting = [], 0, 0
    with Store(home / "edge-agent.db") as store:
        for decision_id, answer in answers.items():
            try:
                found = store.ending(decision_id)
            except Exception as error:  # whatever it is, the decision cannot be read
                wrong.append(f"The decision {decision_id} was acknowledged and is not stored: {error}")
                continue
            if found.answer != answer:
                wrong.append(f"The decision {decision_id} was answered {answer} and is stored as {found.answer}.")
            n_ended, n_waiting = n_ended + (found.ending is not None), n_waiting + found.waits
            if found.provisional and not found.waits and found.ending is None:
                wrong.append(f"The provisional decision {decision_id} neither ended nor waits.")
    print(f"\nof the provisional answers {n_ended} have ended, {n_waiting} wait")
    return wrong[:20]
