"""The whole way with a cloud that nobody here wrote: llama-cpp-python's own OpenAI-compatible server."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.llama_server import LlamaServer, free_port, served_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return served_model(tmp_path_factory.mktemp("cloud"))


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def server(model: pathlib.Path, tmp_path: pathlib.Path, port: int) -> Iterator[LlamaServer]:
    started = LlamaServer(model, tmp_path / "server.log", port)
    yield started
    started.stop()


def edge_agent(*arguments: str, url: str) -> object:
    command = [sys.executable, "-m", "edge_agent", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "EDGE_AGENT_CLOUD_URL": url}, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# A question that the demo model is not sure about.
ASK = ("ask", "A claim of 1994 is barred after 15 years. In which year?", "--option", "2007", "--option", "2009", "--option", "2011")


def test_unsure_question_reaches_the_server_once_and_is_recalled_when_it_is_gone(server: LlamaServer) -> None:
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
    server = LlamaServer(model, tmp_path / "server.log", port)
    try:
        assert edge_agent("queue", "drain", url=url)["answered"] == 1
    finally:
        server.stop()
    (entry,) = edge_agent("log", url=url)
    assert entry["ending"] == ("upheld" if entry["final_answer"] == decision["answer"] else "overturned")
