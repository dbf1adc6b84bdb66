"""A queue with a cloud whose reply the test chooses by the question, and what such a cloud can reply."""

import json
import pathlib
from collections.abc import Callable

import httpx

from edge_agent.cloud.drain import Drained, Drainer
from edge_agent.cloud.gate import Gate
from edge_agent.cloud.wire.client import CloudModel
from tests.support.queue_world import LIMITS, World
from tests.support.reply_shapes import Shape

Reply = Callable[[str], httpx.Response]


def answer(letter: str = "B") -> httpx.Response:
    return httpx.Response(200, stream=httpx.ByteStream(json.dumps({"choices": [{"message": {"content": letter}}]}).encode()))


def status(code: int, **headers: str) -> httpx.Response:
    return httpx.Response(code, headers=headers, stream=httpx.ByteStream(b"{}"))


def page() -> httpx.Response:
    return httpx.Response(200, stream=httpx.ByteStream(b"<html>Welcome"))


def offline(stem: str) -> httpx.Response:
    raise httpx.ConnectError("no network")


def json_reply(status_code: int, payload: object) -> httpx.Response:
    return httpx.Response(status_code, stream=httpx.ByteStream(json.dumps(payload).encode()))


def shaped(shape: Shape) -> httpx.Response:
    return httpx.Response(shape.status, headers=shape.headers, stream=httpx.ByteStream(shape.body))


class Kiosk(World):
    """A world with a cloud whose reply the test chooses by the question's stem."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__(path)
        self.reply: Reply = lambda stem: answer()
        self.sent: list[str] = []
        self.slept: list[float] = []
        self.box = self.outbox()
        self.cloud = CloudModel("https://cloud.test/v1", "big", "key", transport=httpx.MockTransport(self._handle))
        self.gate = Gate(self.store, self.cloud)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        stem = json.loads(request.read())["messages"][0]["content"].split("\n")[0]
        self.sent.append(stem)
        return self.reply(stem)

    def drainer(self, kind: type[Drainer] = Drainer, sleep: Callable[[float], None] | None = None) -> Drainer:
        return kind(self.box, self.gate, deadline_s=20, sleep=sleep or self.sleep, chance=lambda: 1.0)

    def fill(self, n_rows: int) -> None:
        """Queue this many questions, each with a decision that waits."""
        self.box = self.outbox(limits=LIMITS._replace(max_rows=100, max_bytes=1 << 20))
        for n in range(n_rows):
            self.put(self.box, f"Question {n}")

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.wait(seconds)

    def drain(self, kind: type[Drainer] = Drainer) -> Drained:
        *_, done = self.drainer(kind).once()
        assert isinstance(done, Drained)
        return done

    def states(self) -> list[str]:
        return [row.state for row in self.box.list()]
