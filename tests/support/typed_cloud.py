"""A cloud on loopback that serves typed decisions in both forms, and chat; what it serves and how it fails are chosen by the test."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edge_agent.cloud.gate import Gate
from edge_agent.cloud.wire.client import CloudModel
from edge_agent.core.config.limits import BudgetLimits
from edge_agent.core.config.settings import DEFAULT_LIMITS
from tests.support.queue_world import World

Fault = Callable[[str, dict], tuple[int, bytes] | None]
SERVED = ("systemone", "decisions", "chat")


def text_of(probabilities: dict[str, float]) -> dict[str, Any]:
    """A choice in the form that both APIs share, but for the form of its probabilities."""
    best = max(probabilities, key=lambda name: probabilities[name])
    n, p = len(probabilities), probabilities[best]
    return {"type": "choice", "choice": best, "confidence": round((n * p - 1) / (n - 1), 6)}


def systemone(probabilities: dict[str, float], **more: object) -> dict[str, Any]:
    """A reply of /v1/systemone to our one question."""
    answer = {**text_of(probabilities), "probabilities": probabilities, **more}
    return {"model": "big", "answers": {"answer": answer}, "usage": {"input_tokens": 41, "output_tokens": 1}}


def decisions(probabilities: dict[str, float], **more: object) -> dict[str, Any]:
    """A reply of /v1/decisions to our one question."""
    listed = [{"value": name, "probability": p} for name, p in probabilities.items()]
    answer = {**text_of(probabilities), "name": "answer", "probabilities": listed, **more}
    usage = {"input_tokens": 41, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}, "output_tokens": 1,
             "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 42}  # fmt: skip
    return {"model": "big", "answers": [answer], "usage": usage}


def refused() -> dict[str, Any]:
    """A reply of /v1/decisions that refuses the question."""
    return decisions({"a": 0.5, "b": 0.5}) | {"answers": [{"type": "refusal", "name": "answer"}]}


class TypedCloud:
    """The server: `serves` names its APIs, `probabilities` makes the distribution over the names of the options.

    `fault` may answer in place of the model: it gets the API and the body. `requests` are kept as (API, body, headers).
    """

    def __init__(self, *serves: str) -> None:
        self.serves: set[str] = set(serves or SERVED)
        self.probabilities: Callable[[list[str]], list[float]] = lambda names: [0.49, 0.51, *[0.0] * (len(names) - 2)]
        self.letter = "A"
        self.fault: Fault = lambda api, body: None
        self.requests: list[tuple[str, dict, dict[str, str]]] = []
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api = {"/v1/systemone": "systemone", "/v1/decisions": "decisions", "/v1/chat/completions": "chat"}.get(self.path, self.path)
                cloud.requests.append((api, body, dict(self.headers)))
                status, data = cloud.reply(api, body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                with contextlib.suppress(ConnectionError):
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def reply(self, api: str, body: dict) -> tuple[int, bytes]:
        if found := self.fault(api, body):
            return found
        if api not in self.serves:
            return 404, b'{"detail":"Not Found"}'
        if api == "chat":
            return 200, json.dumps({"choices": [{"message": {"content": self.letter}}]}).encode()
        if api == "systemone":
            (asked,) = body["questions"].values()
            names, made = list(asked["criteria"]), systemone
        else:
            (asked,) = body["questions"]
            names, made = [choice["value"] for choice in asked["choices"]], decisions
        return 200, json.dumps(made(dict(zip(names, self.probabilities(names), strict=True)))).encode()

    @property
    def asked(self) -> list[str]:
        """The APIs that were called, in order."""
        return [api for api, _, _ in self.requests]

    @property
    def stems(self) -> list[str]:
        """The questions that were asked."""
        return [body.get("state") or body.get("input") or body["messages"][0]["content"].split("\n")[0] for _, body, _ in self.requests]

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextlib.contextmanager
def typed_cloud(*serves: str) -> Iterator[TypedCloud]:
    """A running server that serves these APIs, or all."""
    cloud = TypedCloud(*serves)
    try:
        yield cloud
    finally:
        cloud.stop()


def gate(world: World, cloud: TypedCloud, api: str = "auto", limits: BudgetLimits = DEFAULT_LIMITS.budget) -> Gate:
    """A gate to this cloud, of a process that has just started."""
    return Gate(world.store, CloudModel(cloud.url, "big", api=api, deadline_s=5), limits)
