"""A cloud on loopback that speaks the real protocol."""

import contextlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LoopbackCloud:
    """A server on loopback that answers chat completions; `reply` and `status` may be changed, `requests` are kept.

    `respond` makes the whole response from the body of a request: its status and its bytes.
    """

    def __init__(self) -> None:
        self.reply: Callable[[dict], str] = lambda body: "B"
        self.status, self.raw = 200, None
        self.headers: dict[str, str] = {}
        self.requests: list[dict] = []
        self.respond: Callable[[dict], tuple[int, bytes]] | None = None
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                cloud.requests.append({"path": self.path, "body": body, "headers": dict(self.headers)})
                if cloud.respond:
                    cloud.status, cloud.raw = cloud.respond(body)
                message = {"role": "assistant", "content": cloud.reply(body)}
                usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
                payload = {"id": "x", "object": "chat.completion", "choices": [{"index": 0, "message": message}], "usage": usage}
                data = json.dumps(payload).encode() if cloud.raw is None else cloud.raw
                self.send_response(cloud.status)
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
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
