"""What the tests share: the demo model, a home of their own, a cloud that speaks the real protocol on loopback."""

import json
import os
import pathlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import settings

from edge_agent.engine import LocalModel
from edge_agent.question import Question
from tests.hub_server import LoopbackHub
from tests.pulls import MODEL, NAME, Pulls

settings.register_profile("edge-agent", deadline=None, derandomize=True, max_examples=60)  # the same on every machine
settings.load_profile("edge-agent")

ROOT = pathlib.Path(__file__).parent.parent
DEMO = ROOT / "models" / "demo" / "FogGen-demo-Q8_0.gguf"
SHARED = pathlib.Path(os.environ.get("EDGE_AGENT_TEST_DATA", ROOT.parent / "shared" / "data"))  # real evaluation sets, if they are here


@pytest.fixture(autouse=True)
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Every test has an EDGE_AGENT_HOME of its own and no settings from outside."""
    for name in ("MODEL", "ADAPTER", "TAU", "POLICY", "CLOUD_URL", "CLOUD_MODEL", "CLOUD_KEY", "CLOUD_KEY_FILE", "KEEP_DAYS"):
        monkeypatch.delenv(f"EDGE_AGENT_{name}", raising=False)
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    monkeypatch.setenv("EDGE_AGENT_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def demo_model() -> Iterator[LocalModel]:
    with LocalModel(DEMO) as model:
        yield model


@pytest.fixture
def question() -> Question:
    return Question("What is 12 + 7?", ("18", "19", "24"))


class LoopbackCloud:
    """A server on loopback that answers chat completions; `reply` and `status` may be changed, `requests` are kept."""

    def __init__(self) -> None:
        self.reply: Callable[[dict], str] = lambda body: "B"
        self.status, self.raw = 200, None
        self.headers: dict[str, str] = {}
        self.requests: list[dict] = []
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                cloud.requests.append({"path": self.path, "body": body, "headers": dict(self.headers)})
                message = {"role": "assistant", "content": cloud.reply(body)}
                usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
                payload = {"id": "x", "object": "chat.completion", "choices": [{"index": 0, "message": message}], "usage": usage}
                data = json.dumps(payload).encode() if cloud.raw is None else cloud.raw
                self.send_response(cloud.status)
                for name, value in {"Content-Type": "application/json", **cloud.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
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


@pytest.fixture
def cloud() -> Iterator[LoopbackCloud]:
    server = LoopbackCloud()
    yield server
    server.stop()


@pytest.fixture
def server() -> Iterator[LoopbackHub]:
    """A Hugging Face Hub on loopback."""
    hub = LoopbackHub()
    yield hub
    hub.stop()


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """The folder of the models, not there yet."""
    return tmp_path / "models"


@pytest.fixture
def pulls(server: LoopbackHub, folder: pathlib.Path) -> Iterator[Pulls]:
    """A puller whose Hub has one model."""
    server.publish("a/b", {NAME: MODEL, "README.md": b"# b"})
    made = Pulls(server, folder)
    yield made
    made.downloader.__exit__()
