"""The whole way with a cloud that nobody here wrote: llama-cpp-python's own OpenAI-compatible server."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from convert.export import export
from tests.conftest import ROOT


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
        self.process = subprocess.Popen(command, stdout=log.open("w"), stderr=subprocess.STDOUT)
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


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The demo base: it answers `Final answer: B` without a confidence."""
    return export(ROOT / "models" / "demo" / "base", [], ["F16"], tmp_path_factory.mktemp("cloud"))[0].path


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


# Deferred for sure: no model prints a confidence above 1, and prefer_cloud asks the cloud whatever it prints.
ASK = ("ask", "What is 30 - 12?", "--option", "18", "--option", "90", "--option", "44", "--policy", "prefer_cloud")


def test_unsure_question_reaches_the_server_once_and_is_recalled_when_it_is_gone(server: Server) -> None:
    first = edge_agent(*ASK, url=server.url)
    assert (first["route"], first["deferred"], first["recalled"]) == ("cloud", True, False)
    assert first["cloud"]["latency_ms"] > 0 and first["cloud"]["tokens"]["prompt"] > 10
    assert server.requests() == 1
    server.stop()
    again = edge_agent(*ASK, url=server.url)
    assert (again["route"], again["recalled"], again["answer"]) == ("cloud", True, first["answer"])


def test_queue_is_settled_when_the_server_is_there(model: pathlib.Path, tmp_path: pathlib.Path, port: int) -> None:
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
