"""A real server as the cloud of an agent, with a cloud of its own that is down at first: the last word comes from there."""

import json
import pathlib
import time

import pytest

from edge_agent.agent.agent import Agent
from edge_agent.cloud.drain import Drained
from edge_agent.core.question import Question
from edge_agent.server.service import Told
from tests.support.serving import serving
from tests.support.typed_cloud import typed_cloud

QUESTION = Question("Which of these is it?", ("x", "y", "z"))


def drained(one: Agent) -> Drained:
    *_, done = one.drain()
    assert isinstance(done, Drained)
    return done


@pytest.mark.parametrize("api", ["auto", "systemone", "decisions", "chat"])
@pytest.mark.parametrize("last", ["systemone", "chat"])
def test_answer_is_final_when_the_other_edges_own_cloud_has_answered(tmp_path: pathlib.Path, api: str, last: str) -> None:
    """It was upheld by the other edge's own guess."""
    with typed_cloud(last) as cloud:
        cloud.letter = "B"
        cloud.fault = lambda asked, body: (503, b"{}")
        flags = ("--policy", "prefer_cloud", "--cloud-url", cloud.url, "--cloud-model", "big")
        with serving(tmp_path / "above", *flags) as above:
            above.wait_ready()
            settings = {"cloud_url": f"{above.url}/v1", "cloud_model": "edge-auto", "cloud_api": api, "policy": "prefer_cloud"}
            with Agent.open("demo", **settings) as one:
                decision = one.ask(QUESTION)
                assert decision.provisional and decision.route == "local" and "another edge" in str(decision.cloud_error)
                assert drained(one) == Drained(0, 1, 1, None) and one.ending(decision.decision_id).waits
                cloud.fault = lambda asked, body: None
                ends = time.monotonic() + 60
                while not drained(one).answered:
                    assert time.monotonic() < ends, (above.said(), one.outbox.list())
                    time.sleep(0.5)
                assert one.ending(decision.decision_id).final_answer == "B"
                again = one.ask(QUESTION)
                assert again.recalled and (again.cloud_confidence is None) is (last == "chat" or api == "chat")


def test_server_says_once_why_nothing_can_be_sent(tmp_path: pathlib.Path) -> None:
    flags = ("--policy", "prefer_cloud", "--cloud-url", "http://127.0.0.1:9/v1", "--cloud-model", "big")
    with serving(tmp_path / "home", *flags) as server, server.client() as client:
        server.wait_ready()
        for n in range(3):
            asked = {"question": f"Secret number {n}?", "options": ["1", "2", "3"]}
            assert client.post("/edge/ask", json=asked).json()["provisional"]
        time.sleep(6)
        said = [line for line in server.said().splitlines() if "the cloud" in line and " ready " not in line]
    assert len(said) == 1 and "wait for the cloud: no connection to the cloud" in said[0] and "Secret" not in json.dumps(said)


def test_log_says_each_change_once(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    for stopped, answered in (
        (None, 3),
        ("no connection", 0),
        ("no connection; it will not be called for 30 s", 0),
        ("no connection; it will not be called for 5 minutes", 0),
        (None, 0),
        ("the budget is used up", 1),
        (None, 1),
        (None, 1),
        ("no connection", 0),
    ):
        told.hear(Drained(answered, 0, 4, stopped))
    assert [record.getMessage() for record in caplog.records] == [
        "edge-agent: 4 questions wait for the cloud: no connection",
        "edge-agent: 4 questions wait for the cloud: the budget is used up",
        "edge-agent: the cloud answers again",
        "edge-agent: 4 questions wait for the cloud: no connection",
    ]
