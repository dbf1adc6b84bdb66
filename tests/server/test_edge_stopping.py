"""The end of the server: what is under way is finished, what is new is refused, and another process may drain meanwhile."""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from edge_agent.store.store import Store
from tests.support.cloud_server import LoopbackCloud
from tests.support.paths import ROOT
from tests.support.serving import Serving, serving

OPTIONS = ["18", "19", "24"]


@pytest.fixture
def cloud() -> Iterator[LoopbackCloud]:
    running = LoopbackCloud()
    yield running
    running.stop()


def environment(cloud: LoopbackCloud) -> dict[str, str]:
    return {"EDGE_AGENT_CLOUD_URL": cloud.url, "EDGE_AGENT_CLOUD_MODEL": "big"}


def until(holds: Callable[[], bool], within_s: float = 30) -> None:
    ends = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_question_under_way_is_answered_and_a_new_one_is_refused(tmp_path: pathlib.Path, cloud: LoopbackCloud) -> None:
    may_reply = threading.Event()
    cloud.reply = lambda body: "B" if may_reply.wait(20) else ""
    server = Serving(tmp_path / "home", environment=environment(cloud))
    server.wait_ready()
    with server.client() as client, concurrent.futures.ThreadPoolExecutor() as pool:
        asked = pool.submit(client.post, "/edge/ask", json={"question": "What is 1 + 1?", "options": OPTIONS, "policy": "prefer_cloud"})
        until(lambda: bool(cloud.requests))
        ended = pool.submit(server.stop)
        until(lambda: client.get("/health").status_code == 503)
        assert client.get("/health").json() == {"status": "stopping"}
        refused = client.post("/edge/ask", json={"question": "What is 2 + 2?", "options": OPTIONS})
        stream = client.get("/edge/events")
        draft = client.post("/edge/draft", json={"text": "What"})
        may_reply.set()
        reply = asked.result()
        assert ended.result() == 0
    for new in (refused, stream, draft):
        assert new.status_code == 503 and new.headers["Retry-After"] and new.headers["Connection"] == "close"
        assert new.json()["error"]["code"] == "server_stopping"
    assert reply.status_code == 200 and reply.json()["route"] == "cloud"
    with Store(server.home / "edge-agent.db") as store:
        assert store.ending(reply.json()["decision_id"]).answer == reply.json()["answer"]
        assert store.count_decisions() == 1


def test_call_of_the_drainer_does_not_hold_up_the_end_and_is_made_again(tmp_path: pathlib.Path, cloud: LoopbackCloud) -> None:
    may_reply = threading.Event()
    cloud.status, cloud.raw = 503, b"{}"
    server = Serving(tmp_path / "home", environment=environment(cloud))
    server.wait_ready()
    with server.client() as client:
        asked = client.post("/edge/ask", json={"question": "What is 5 + 1?", "options": OPTIONS, "policy": "prefer_cloud"}).json()
    assert asked["provisional"]
    seen = len(cloud.requests)
    cloud.reply = lambda body: "B" if may_reply.wait(60) else ""
    cloud.status, cloud.raw = 200, None
    until(lambda: len(cloud.requests) > seen)
    began = time.monotonic()
    assert server.stop() == 0 and time.monotonic() - began < 15
    may_reply.set()
    with serving(tmp_path / "home", environment=environment(cloud)) as again, again.client() as client:
        found = client.get(f"/edge/decisions/{asked['decision_id']}?wait=60").json()
    assert found["ending"] in ("upheld", "overturned") and found["final_answer"] == "B"


def test_second_drainer_beside_the_server_is_harmless_and_the_server_takes_over(tmp_path: pathlib.Path, cloud: LoopbackCloud) -> None:
    home = tmp_path / "home"
    home.mkdir()
    watcher: subprocess.Popen[bytes] | None = None
    command = [sys.executable, "-m", "edge_agent", "queue", "drain", "--watch"]
    own = {**os.environ, **environment(cloud), "EDGE_AGENT_HOME": str(home), "PYTHONPATH": str(ROOT)}
    cloud.status = 503
    cloud.raw = b"{}"
    try:
        watcher = subprocess.Popen(command, env=own, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        until((home / "edge-agent.db.drain-lock").exists)
        with serving(home, environment=environment(cloud)) as server, server.client() as client:
            beside = subprocess.run(command, env=own, capture_output=True, text=True, timeout=60, check=False)
            assert beside.returncode == 74 and "Another process is draining" in beside.stderr  # the first has the lock, or the server
            waiting = client.post("/edge/ask", json={"question": "What is 3 + 3?", "options": OPTIONS, "policy": "prefer_cloud"}).json()
            assert waiting["provisional"]
            watcher.kill()
            watcher.wait()
            cloud.status, cloud.raw = 200, None
            found = client.get(f"/edge/decisions/{waiting['decision_id']}?wait=60").json()
            assert found["ending"] in ("upheld", "overturned") and found["final_answer"] == "B"
            assert "queue cannot be sent for now" in server.said()  # it tried, and said why not
    finally:
        if watcher is not None and watcher.poll() is None:
            watcher.kill()
            watcher.wait()
    assert len({json.dumps(request["body"]) for request in cloud.requests if "3 + 3" in json.dumps(request["body"])}) == 1
