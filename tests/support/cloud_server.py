"""A cloud on loopback that speaks the real protocol."""

import contextlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support import refusals


def reply(**choice: object) -> bytes:
    """A chat completion with one choice."""
    return json.dumps({"choices": [choice]}).encode()


def completion(content: str | None, finish_reason: str = "stop") -> tuple[int, bytes]:
    """The status and the bytes of a chat completion."""
    return 200, reply(message={"role": "assistant", "content": content}, finish_reason=finish_reason)


def gpt_5(asked: dict) -> tuple[int, bytes]:
    """A model as they are today: another name for the limit, no temperature, and 700 tokens of thinking before it answers."""
    if "max_tokens" in asked:
        return 400, json.dumps(refusals.WANT_OTHER_NAME[0][2]).encode()
    if "temperature" in asked:
        return 400, json.dumps(refusals.WANT_NO_TEMPERATURE[0][2]).encode()
    return completion("B") if asked["max_completion_tokens"] > 700 else completion("", "length")


class LoopbackCloud:
    """A server on loopback that answers chat completions; `reply` and `status` may be changed, `requests` are kept.

    It has no other API: what is asked at another address gets 404, and only the address is kept, in `probes`.
    `respond` makes the whole response from the body of a request: its status and its bytes.
    """

    def __init__(self) -> None:
        self.reply: Callable[[dict], str] = lambda body: "B"
        self.status, self.raw = 200, None
        self.headers: dict[str, str] = {}
        self.requests: list[dict] = []
        self.probes: list[str] = []
        self.respond: Callable[[dict], tuple[int, bytes | None]] | None = None
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not self.path.endswith("/chat/completions"):
                    cloud.probes.append(self.path)
                    return self.send_error(404)
                cloud.requests.append({"path": self.path, "body": body, "headers": dict(self.headers)})
                message = {"role": "assistant", "content": cloud.reply(body)}  # which may set the status
                status, raw = cloud.respond(body) if cloud.respond else (cloud.status, cloud.raw)
                usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
                payload = {"id": "x", "object": "chat.completion", "choices": [{"index": 0, "message": message}], "usage": usage}
                data = json.dumps(payload).encode() if raw is None else raw
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **cloud.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                with contextlib.suppress(ConnectionError):  # the client no longer waits
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.listen()

    def listen(self) -> None:
        """Answer in a thread, until `stop`."""
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
