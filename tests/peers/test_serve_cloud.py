"""A real server with a real cloud behind it, of each kind, both killed and started again while questions wait."""

import pathlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest

from edge_agent.store.store import Store
from tests.support.event_stream import Event, stream
from tests.support.llama_server import LlamaServer, free_port, served_model
from tests.support.serving import Serving, serving

OPTIONS = ["2007", "2009", "2011"]


class Cloud(Protocol):
    """A cloud that can die and come back under the same address; `config` makes an edge use it."""

    config: str

    def kill(self) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


class LlamaCloud:
    """llama-cpp-python's server, which speaks chat completions."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._model, self._log, self._port = served_model(folder), folder / "server.log", free_port()
        self.config = f'cloud_url = "http://127.0.0.1:{self._port}/v1"\ncloud_model = "demo"\n'
        self.start()

    def start(self) -> None:
        self._server = LlamaServer(self._model, self._log, self._port)

    def kill(self) -> None:
        self._server.process.kill()
        self._server.process.wait()

    def stop(self) -> None:
        self._server.stop()


class EdgeCloud:
    """A second edge as the cloud of the first. It keeps every question: its own cloud is nowhere."""

    def __init__(self, folder: pathlib.Path, api: str) -> None:
        self._server = Serving(folder / "cloud", port=free_port())
        self.config = f'cloud_url = "{self._server.url}/v1"\ncloud_model = "edge-local"\ncloud_api = "{api}"\n'
        self._server.wait_ready()

    def start(self) -> None:
        self._server.start()
        self._server.wait_ready()

    def kill(self) -> None:
        self._server.stop(signal.SIGKILL)

    def stop(self) -> None:
        self._server.stop()


KINDS: dict[str, Callable[[pathlib.Path], Cloud]] = {
    "llama_cpp.server": LlamaCloud,
    "edge by chat": lambda folder: EdgeCloud(folder, "chat"),
    "edge by systemone": lambda folder: EdgeCloud(folder, "systemone"),
    "edge by decisions": lambda folder: EdgeCloud(folder, "decisions"),
}


@pytest.fixture(params=KINDS)
def cloud(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Cloud]:
    made = KINDS[request.param](tmp_path)
    yield made
    made.stop()


def ask(server: Serving, number: int) -> dict[str, Any]:
    body = {
        "question": f"A claim of {1990 + number} is barred after 15 years. In which year?",
        "options": OPTIONS,
        "policy": "prefer_cloud",
    }
    with server.client() as client:
        reply = client.post("/edge/ask", json=body)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def test_nothing_is_lost_when_cloud_and_edge_die_while_questions_wait(cloud: Cloud, tmp_path: pathlib.Path) -> None:
    (tmp_path / "edge").mkdir()
    (tmp_path / "edge" / "config.toml").write_text(cloud.config)
    with serving(tmp_path / "edge") as edge:
        answered = ask(edge, 0)
        assert (answered["route"], answered["provisional"]) == ("cloud", False), answered
        cloud.kill()
        waiting = [ask(edge, number) for number in range(1, 5)]
        assert all(decision["provisional"] for decision in waiting)
        ids = ",".join(decision["decision_id"] for decision in waiting)
        heard: list[Event] = []
        with stream(edge, ids) as events:
            last = events.next("state").id
            edge.stop(signal.SIGKILL)
        edge.start()
        edge.wait_ready()
        cloud.start()
        ends = time.monotonic() + 90
        while len(heard) < len(waiting):  # one event, then the client drops and comes back with its id
            with stream(edge, ids, last) as events:
                heard.append(events.next("ending"))
                last = heard[-1].id
            assert time.monotonic() < ends
        with edge.client() as client:
            for decision in waiting:
                found = client.get(f"/edge/decisions/{decision['decision_id']}").json()
                assert found["ending"] in ("upheld", "overturned") and found["final_answer"] in "ABC"
        recalled = ask(edge, 1)
        assert recalled["recalled"] and recalled["route"] == "cloud"
    assert {event.data["decision_id"] for event in heard} == set(ids.split(","))
    numbers = [event.id for event in heard if event.id is not None]
    assert len(heard) == len(numbers) == len(set(numbers)) == len(waiting) and numbers == sorted(numbers)
    with Store(edge.home / "edge-agent.db") as store:
        assert [ending.number for ending in store.endings(0)] == numbers
