"""Drafts: a question that was read while it was typed is answered sooner, and what was given up is forgotten."""

import asyncio
import contextlib
import json
import pathlib
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from edge_agent import Agent
from edge_agent.core.errors import BadQuestion
from edge_agent.server.door.connection import ARRIVAL_S
from edge_agent.server.edge.drafting import MOST_BAD
from edge_agent.server.edge.drafts import MOST_DRAFTS, Drafts
from tests.support.serving import Serving, serving

# Long enough that most of the work of its answer is reading it.
STEM = "A farm has " + ", ".join(f"{n} hens in yard {n}" for n in range(2, 12)) + ". How many hens are in yard 7?"
OPTIONS = ["5", "6", "7"]
CANARY = "xyzzy canary plover"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("drafts")) as running:
        yield running


def n_cached(server: Serving, stem: str) -> tuple[int, int]:
    """How many tokens of a question's prompt had been read before it was asked, and how many it has."""
    with server.client() as client:
        timings = client.post("/edge/ask", json={"question": stem, "options": OPTIONS, "refresh": True}).json()["timings"]
    return timings["n_cached_tokens"], timings["n_prompt_tokens"]


def socket(server: Serving) -> contextlib.AbstractContextManager[ClientConnection]:
    return connect(f"ws://127.0.0.1:{server.port}/edge/draft", proxy=None)


@contextlib.contextmanager
def by_post(server: Serving, message: dict[str, Any]) -> Iterator[None]:
    with server.client() as client:
        assert client.post("/edge/draft", json=message).status_code == 200
        time.sleep(1)
        yield


@contextlib.contextmanager
def by_socket(server: Serving, message: dict[str, Any]) -> Iterator[None]:
    with socket(server) as connection:
        text = str(message["text"])
        for end in range(1, len(text), 40):
            connection.send(json.dumps({"text": text[:end]}))
        connection.send(json.dumps(message))
        time.sleep(1)
        yield


@pytest.mark.parametrize("send", [by_post, by_socket])
def test_question_that_was_typed_ahead_is_read_already(
    server: Serving, send: Callable[..., contextlib.AbstractContextManager[None]]
) -> None:
    stem = f"{send.__name__}. {STEM}"
    n_cold, _ = n_cached(server, stem)
    n_cached(server, "Something else: what is 2 + 2?")
    with send(server, {"text": stem, "options": OPTIONS, "complete": True}):
        n_warm, n_prompt = n_cached(server, stem)
    assert n_warm > n_cold + 50 and n_warm > 0.9 * n_prompt - 10


def test_draft_that_is_dropped_leaves_nothing_read(server: Serving) -> None:
    n_cold, _ = n_cached(server, f"Dropped. {STEM}")
    n_cached(server, "Something else: what is 2 + 3?")
    with server.client() as client:
        made = client.post("/edge/draft", json={"text": f"Dropped. {STEM}", "complete": True}).json()
        assert made["expires_in_s"] == 60
        time.sleep(1)
        assert client.delete(f"/edge/draft/{made['draft_id']}").status_code == 204
        time.sleep(0.5)
        assert client.delete(f"/edge/draft/{made['draft_id']}").status_code == 404
        again = client.post("/edge/draft", json={"text": "x", "draft_id": made["draft_id"]})
        assert again.status_code == 404 and "no such draft" in again.json()["error"]["message"]
    assert n_cached(server, f"Dropped. {STEM}")[0] <= n_cold + 5


def test_closed_connection_drops_its_draft(server: Serving) -> None:
    n_cold, _ = n_cached(server, f"Closed. {STEM}")
    n_cached(server, "Something else: what is 2 + 4?")
    with socket(server) as connection:
        connection.send(json.dumps({"text": f"Closed. {STEM}", "complete": True}))
        time.sleep(1)
    time.sleep(0.5)
    assert n_cached(server, f"Closed. {STEM}")[0] <= n_cold + 5


def test_connection_of_a_slow_typist_stays_open(server: Serving) -> None:
    """Longer than a request may take to arrive."""
    with socket(server) as connection:
        connection.send(json.dumps({"text": STEM[:20]}))
        with pytest.raises(TimeoutError):
            connection.recv(timeout=ARRIVAL_S + 1)
        connection.send(json.dumps({"text": STEM, "complete": True}))
        with pytest.raises(TimeoutError):
            connection.recv(timeout=0.5)


def test_draft_is_neither_stored_nor_logged(server: Serving) -> None:
    with server.client() as client, socket(server) as connection:
        client.post("/edge/draft", json={"text": CANARY})
        client.post("/edge/draft", json={"text": CANARY, "options": [CANARY, CANARY]})
        client.post("/edge/draft", json={"text": CANARY, "options": [CANARY]})  # refused
        connection.send(json.dumps({"text": CANARY}))
        time.sleep(0.5)
    for path in server.home.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"text": 5},
        {"text": "x", "complete": "yes"},
        {"text": "x", "options": "A"},
        {"text": "x", "options": [1]},
        {"text": "\ud800"},
        {"text": "x", "draft_id": 5},
    ],
)
def test_wrong_draft_is_refused(server: Serving, message: dict[str, Any]) -> None:
    with server.client() as client:
        content = json.dumps(message)
        reply = client.post("/edge/draft", content=content, headers={"Content-Type": "application/json"})
    assert reply.status_code == 400 and reply.json()["error"]["message"], reply.text


WRONG = ["", "no JSON", "[]", "1", b"\xff\xfe", '{"text": 5}', "[" * 1000, '{"text": NaN}', '{"text": "x", "options": ["y"]}']


@pytest.mark.parametrize("message", WRONG)
def test_wrong_message_gets_an_error_and_its_connection_goes_on(server: Serving, message: str | bytes) -> None:
    stem = f"After {message!r:.20}. {STEM}"
    n_cached(server, "Something else: what is 2 + 5?")
    with socket(server) as connection:
        connection.send(message)
        error = json.loads(connection.recv(timeout=10))["error"]
        assert error["message"] and error["code"]
        connection.send(json.dumps({"text": stem, "options": OPTIONS, "complete": True}))
        time.sleep(1)
        n_warm, n_prompt = n_cached(server, stem)
    assert n_warm > 0.9 * n_prompt - 10


def test_connection_that_only_sends_wrong_messages_ends(server: Serving) -> None:
    with socket(server) as connection:
        for _ in range(MOST_BAD):
            connection.send("no JSON")
            assert json.loads(connection.recv(timeout=10))["error"]["code"] == "not_json"
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=10)


def test_message_that_is_too_large_ends_its_connection_and_nothing_else(server: Serving) -> None:
    with socket(server) as connection:
        with contextlib.suppress(ConnectionClosed):
            connection.send("x" * 70_000)
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=10)
    assert n_cached(server, "What is 3 + 4?")[1] > 0


def test_number_of_drafts_is_bounded(tmp_path: pathlib.Path) -> None:
    with serving(tmp_path / "home") as running, running.client() as client:
        ids = [client.post("/edge/draft", json={"text": "What"}).json()["draft_id"] for _ in range(MOST_DRAFTS)]
        refused = client.post("/edge/draft", json={"text": "What"})
        assert refused.status_code == 503 and refused.headers["Retry-After"]
        with socket(running) as connection, pytest.raises(ConnectionClosed):
            connection.recv(timeout=10)
        assert client.delete(f"/edge/draft/{ids[0]}").status_code == 204
        assert client.post("/edge/draft", json={"text": "What"}).status_code == 200


class NoModel:
    """In place of an agent: it reads nothing ahead, so that only the keeping of drafts is at work."""

    def draft(self) -> "NoModel":
        return self

    def update(self, text: str, complete: bool = False) -> None:
        """Take a text."""

    def wait(self, timeout_s: float | None = None) -> bool:
        return True


def test_messages_leave_no_timer_each_and_every_draft_is_forgotten_in_time() -> None:
    async def type_fast() -> tuple[int, list[bool]]:
        drafts = Drafts(NoModel(), idle_s=0.5)  # type: ignore[arg-type]
        drafts.open()
        first = drafts.add()
        await asyncio.sleep(0.2)
        second = drafts.add()
        loop = asyncio.get_running_loop()
        before = len(loop._scheduled)  # type: ignore[attr-defined]
        for _ in range(1000):
            drafts.update(second, "x", complete=False)
        n_timers = len(loop._scheduled) - before  # type: ignore[attr-defined]
        await asyncio.sleep(0.45)  # 0.65 s after the first was changed
        kept = [second in drafts._ends, first in drafts._ends]
        await asyncio.sleep(0.3)
        return n_timers, [*kept, bool(drafts._ends)]

    assert asyncio.run(type_fast()) == (0, [True, False, False])


class Typed(str):
    """A text whose last reference can be seen to go."""

    __slots__ = ("__weakref__",)


@pytest.mark.parametrize("is_asked", [False, True])
def test_draft_that_nobody_changes_is_forgotten_with_its_text(is_asked: bool) -> None:
    with Agent.open(model="demo") as agent:
        drafts = Drafts(agent, idle_s=0.5)
        drafts.open()

        async def type_and_leave() -> tuple[str, weakref.ref[Typed]]:
            draft_id, text = drafts.add(), Typed(STEM)
            drafts.update(draft_id, text, complete=True)
            held = weakref.ref(text)
            del text
            if is_asked:
                await asyncio.to_thread(agent.ask, "What is 2 + 2?\nA. 3\nB. 4")
                drafts.decided()
            await asyncio.sleep(1.5)
            return draft_id, held

        draft_id, held = asyncio.run(type_and_leave())
        assert held() is None

        async def again() -> None:
            with pytest.raises(BadQuestion, match="no such draft"):
                drafts.update(draft_id, "more", complete=False)

        asyncio.run(again())
        drafts.close()
