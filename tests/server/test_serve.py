"""The server as a process: it starts, answers, and ends with what it answered stored."""

import json
import logging
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from edge_agent.server.door.connection import FILES, MOST, MOST_REFUSED, accepted, room
from edge_agent.server.door.log import Seldom
from edge_agent.store.store import Store
from tests.support.paths import ROOT
from tests.support.serving import Serving, serving

ASKED = {"question": "What is 12 + 7?", "options": ["18", "19", "24"]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("serve")) as running:
        yield running


def test_question_is_answered_and_its_decision_can_be_read_again(server: Serving) -> None:
    with server.client() as client:
        reply = client.post("/edge/ask", json={**ASKED, "id": "mine"})
        decision = reply.json()
        assert (reply.status_code, decision["answer"], decision["id"]) == (200, "B", "mine")
        assert reply.headers["X-Edge-Route"] == decision["route"]
        found = client.get(f"/edge/decisions/{decision['decision_id']}").json()
    assert (found["answer"], found["waits"]) == ("B", False)


def test_unknown_decision_is_not_found(server: Serving) -> None:
    with server.client() as client:
        assert client.get("/edge/decisions/0f8fad5b-d9cb-469f-a165-70867728950e").status_code == 404


def test_bad_question_is_refused_in_a_sentence(server: Serving) -> None:
    with server.client() as client:
        reply = client.post("/edge/ask", json={"question": "What is 2 + 2?", "options": ["4"]})
    assert reply.status_code == 400 and "2 to 26" in reply.json()["error"]["message"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signal_ends_the_server_with_everything_stored(tmp_path: pathlib.Path, number: int, code: int) -> None:
    server = Serving(tmp_path / "home")
    with server.client() as client:
        decision = client.post("/edge/ask", json=ASKED).json()
    assert server.stop(number) == code
    with Store(server.home / "edge-agent.db") as store:
        assert store.ending(decision["decision_id"]).answer == decision["answer"]


def test_missing_model_ends_with_its_exit_code(tmp_path: pathlib.Path) -> None:
    with pytest.raises(AssertionError, match="no model"):
        Serving(tmp_path / "home", "--model", "nothing")


def test_start_says_with_what_it_is_ready(tmp_path: pathlib.Path) -> None:
    with serving(tmp_path / "home", "--cloud-url", "http://127.0.0.1:9/v1") as server:
        ends = time.monotonic() + 10
        while "ready" not in server.said() and time.monotonic() < ends:
            time.sleep(0.02)
        first, second = server.said().splitlines()
    assert first == f"edge-agent: listening on {server.url}"
    assert second == "edge-agent: ready with the model FogGen-demo-Q8_0 and the cloud at 127.0.0.1; no token is needed"


def test_start_says_to_programs_when_it_is_ready(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "edge_agent", "serve", "--port", "0", "--json"]
    environment = {**os.environ, "EDGE_AGENT_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        reply = httpx.post(f"{facts['url']}/edge/ask", json=ASKED, trust_env=False, timeout=60)
        process.terminate()
    assert reply.status_code == 200 and process.returncode == 0
    assert {**facts, "url": ""} == {
        "url": "", "model": "FogGen-demo-Q8_0", "policy": "prefer_local", "cloud": None, "token": False, "operator_token": False
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--policy", "only_cloud"], "The policy only_cloud needs a cloud, and none is set up"),
        (["--policy", "prefer_cloud"], "this device answers alone"),
        ([], None),
        (["--policy", "only_cloud", "--cloud-url", "http://127.0.0.1:9/v1"], None),
    ],
)
def test_policy_that_lacks_a_cloud_is_a_warning_at_the_start(tmp_path: pathlib.Path, flags: list[str], words: str | None) -> None:
    with serving(tmp_path / "home", *flags) as server:
        said = server.complaints()
    assert (words is None and not said) or (words is not None and len(said) == 1 and words in said[0]), said


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--host", "192.0.2.9"], "This device has no address 192.0.2.9; give --host (serve_host)"),
        (["--host", "nothing.invalid"], "The name 'nothing.invalid' cannot be found"),
        (["--port", "99999"], "Invalid value for '--port'"),
    ],
)
def test_address_that_cannot_be_served_is_named_with_its_flag(tmp_path: pathlib.Path, flags: list[str], words: str) -> None:
    token = tmp_path / "token"
    token.write_text("a-clients-token-for-tests")
    token.chmod(0o600)
    with pytest.raises(AssertionError) as raised:
        Serving(tmp_path / "home", "--token-file", str(token), *flags)
    assert words in str(raised.value)


def test_process_that_may_open_few_files_holds_fewer_connections(tmp_path: pathlib.Path) -> None:
    server, held = Serving(tmp_path / "home", n_files=160), []
    try:
        server.wait_ready()
        for _ in range(300):
            held.append(socket.create_connection(("127.0.0.1", server.port), timeout=20))
        with server.client() as client:
            assert client.post("/edge/ask", json=ASKED).json()["persisted"]
    finally:
        for connection in held:
            connection.close()
        assert server.stop() == 0
    assert "out of system resource" not in server.said()


def test_limit_of_files_is_raised_where_it_may_be(server: Serving) -> None:
    assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[0] >= min(FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def test_room_for_connections() -> None:
    for n_files in (0, 64, 160, 256, 1024, 1 << 20):
        most, refused = room(n_files)
        assert 0 < most <= MOST and 0 < refused <= MOST_REFUSED
        assert most + refused + 4 * accepted(n_files) <= n_files - 48 or (most, refused) == (12, 4)
    assert room(FILES) == (MOST, MOST_REFUSED)


def test_message_that_comes_again_and_again_is_written_once() -> None:
    seldom = Seldom("out of system resource")
    records = [logging.makeLogRecord({"msg": text}) for text in ("socket.accept() out of system resource", "other") * 3]
    assert [record.getMessage() for record in records if seldom.filter(record)].count("other") == 3
    assert not seldom.filter(records[0])
