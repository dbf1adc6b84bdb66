"""The whole way with a cloud that nobody here wrote: llama-cpp-python's own OpenAI-compatible server."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from convert.export import Conversion, export
from edge_agent.model.profile import SYSTEM_MESSAGE
from tests.support.paths import ROOT


class Server:
    """The server as a process; `requests` counts the completions that its log shows."""

    def __init__(self, model: pathlib.Path, log: pathlib.Path, port: int) -> None:
        self.url, self.log = f"http://127.0.0.1:{port}/v1", log
        command = [
            sys.executable,
            "-m",
            "llama_cpp.server",
            "--model",
            str(model),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--n_ctx",
            "1024",
        ]
        with log.open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        for _ in range(600):
            try:
                httpx.get(f"{self.url}/models", timeout=1)
                return
            except httpx.TransportError:
                assert self.process.poll() is None, log.read_text()
                time.sleep(0.1)
        raise AssertionError(log.read_text())

    def requests(self) -> int:
        return self.log.read_text().count("POST /v1/chat/completions")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)


# The template of the model that is served. The demo base has no knowledge of any other prompt than FogGen's, so its
# template gives it that one, with the question alone, and it answers `Final answer: B`.
TEMPLATE = """\
{{ '<|im_start|>system\\n' + %s + '<|im_end|>\\n<|im_start|>user\\n' }}
{{- messages[0].content.split('\\n\\nAnswer')[0] }}
{{- '<|im_end|>\\n<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' -}}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("cloud")
    shutil.copytree(ROOT / "models" / "demo" / "base", folder / "base")
    (folder / "base" / "chat_template.jinja").write_text(TEMPLATE % json.dumps(SYSTEM_MESSAGE))
    return export(Conversion(folder / "base", [], ["F16"]), folder)[0].path


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def server(model: pathlib.Path, tmp_path: pathlib.Path, port: int) -> Iterator[Server]:
    started = Server(model, tmp_path / "server.log", port)
    yield started
    started.stop()


def edge_agent(*arguments: str, url: str) -> object:
    command = [sys.executable, "-m", "edge_agent", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "EDGE_AGENT_CLOUD_URL": url}, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# A question that the demo model is not sure about.
ASK = ("ask", "A claim of 1994 is barred after 15 years. In which year?", "--option", "2007", "--option", "2009", "--option", "2011")


def test_unsure_question_reaches_the_server_once_and_is_recalled_when_it_is_gone(server: Server) -> None:
    first = edge_agent(*ASK, url=server.url)
    assert (first["route"], first["reason"], first["deferred"], first["recalled"]) == ("cloud", "unsure", True, False)
    assert first["cloud"]["latency_ms"] > 0 and first["cloud"]["tokens"]["prompt"] > 10
    assert server.requests() == 1
    server.stop()
    again = edge_agent(*ASK, url=server.url)
    assert (again["route"], again["recalled"], again["answer"]) == ("cloud", True, first["answer"])


def test_queue_is_settled_when_the_server_is_reachable(model: pathlib.Path, tmp_path: pathlib.Path, port: int) -> None:
    url = f"http://127.0.0.1:{port}/v1"
    decision = edge_agent(*ASK, url=url)
    assert decision["provisional"] and decision["reason"] == "offline"
    assert [row["state"] for row in edge_agent("queue", "list", url=url)] == ["ready"]
    server = Server(model, tmp_path / "server.log", port)
    try:
        assert edge_agent("queue", "drain", url=url)["answered"] == 1
    finally:
        server.stop()
    (entry,) = edge_agent("log", url=url)
    assert entry["ending"] == ("upheld" if entry["final_answer"] == decision["answer"] else "overturned")
