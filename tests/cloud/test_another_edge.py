"""A cloud that is another edge: its provisional answer is not the last word, and is asked for again."""

import json
import pathlib
from typing import Any

import httpx
import pytest

from edge_agent.cloud.drain import Drained, Drainer
from edge_agent.cloud.gate import Gate
from edge_agent.cloud.retry import LONGEST_WAIT_S
from edge_agent.cloud.wire.client import CloudModel
from edge_agent.core.config.limits import DAY_S
from edge_agent.core.errors import CloudUnavailable
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question
from tests.support import typed_cloud
from tests.support.queue_world import World
from tests.support.spoken_model import UNSURE, SpokenModel, agent

QUESTION = Question("Which?", ("a", "b"))
APIS = ("chat", "systemone", "decisions")
WAITS = {"provisional": True, "route": "local", "reason": "offline"}


def reply(api: str, edge: object) -> bytes:
    """A reply with the letter B and with what another edge says about it."""
    if api == "chat":
        made: dict[str, Any] = {"choices": [{"message": {"content": "B"}}], "edge_agent": edge}
    else:
        form = typed_cloud.systemone if api == "systemone" else typed_cloud.decisions
        made = form({"a": 0.2, "b": 0.8}, x_edge_agent=edge)
    return json.dumps(made).encode()


def ask(api: str, edge: object, headers: dict[str, str] | None = None) -> CloudOutcome:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers=headers, stream=httpx.ByteStream(reply(api, edge)))

    return CloudModel("http://edge.test/v1", "edge-auto", transport=httpx.MockTransport(handle), api=api).ask(QUESTION)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(("edge", "headers"), [(WAITS, {}), ({}, {"X-Edge-Provisional": "true"}), (None, {"x-edge-provisional": "True"})])
def test_provisional_answer_of_another_edge_is_not_an_answer(api: str, edge: object, headers: dict[str, str]) -> None:
    outcome = ask(api, edge, headers)
    assert outcome.kind is CloudKind.PROVISIONAL and outcome.answer is None and outcome.was_sent and outcome.has_answered
    assert "another edge" in str(outcome.error)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("edge", [None, True, "provisional", [], {}, {"provisional": 1}, {"provisional": "true"}, {"provisional": False}])
def test_field_of_a_stranger_is_ignored(api: str, edge: object) -> None:
    assert ask(api, edge, {"X-Edge-Provisional": "false"}).kind is CloudKind.ANSWERED


@pytest.mark.parametrize("api", ["systemone", "decisions"])
def test_letter_of_the_other_edges_own_cloud_is_final_and_gets_no_probability(api: str) -> None:
    """Its typed answer stays its own, because a chat cloud brings no distribution."""
    edge = {"provisional": True, "route": "cloud", "answered_by": "device", "cloud": {"letter": "A", "choice": "a"}}
    answer = ask(api, edge, {"X-Edge-Provisional": "true"}).answer
    assert answer and (answer.answer, answer.reply, answer.probs, answer.api) == ("A", "a", None, api)
    for cloud in ({"choice": "z"}, {"choice": ["a"]}, None, "a"):
        assert ask(api, edge | {"cloud": cloud}).kind is CloudKind.PROVISIONAL


@pytest.mark.parametrize("api", APIS)
def test_visitors_answer_stays_provisional_until_the_other_edge_is_sure(home: pathlib.Path, api: str) -> None:
    with typed_cloud.typed_cloud(api) as cloud, agent(home, SpokenModel(UNSURE), cloud.url, api=api) as one:
        cloud.fault = lambda asked, body: (200, reply(asked, WAITS))
        decision = one.ask(QUESTION)
        assert (decision.route, decision.provisional, decision.reason, decision.answer) == ("local", True, "cloud_error", "A")
        with pytest.raises(CloudUnavailable, match="another edge"):
            one.ask(QUESTION, policy="only_cloud")
        *_, done = one.drain()
        assert done == Drained(0, 1, 1, None) and one.ending(decision.decision_id).waits
        (row,) = one.outbox.list()
        assert (row.state, row.attempts) == ("ready", 0) and "another edge" in str(row.last_error)
        assert one.gate and one.gate.breaker.health.recent == ""
        cloud.fault = lambda asked, body: (200, reply(asked, {"provisional": False, "route": "cloud"}))
        *_, done = one.drain()
        assert done == Drained(1, 0, 0, None) and one.ending(decision.decision_id).ending == "overturned"


def test_row_is_asked_again_a_few_times_an_hour_until_its_time_to_live_is_over(world: World) -> None:
    with typed_cloud.typed_cloud("chat") as cloud:
        cloud.fault = lambda api, body: (200, reply(api, WAITS))
        gate = Gate(world.store, CloudModel(cloud.url, "edge-auto"))
        box = world.outbox()
        world.put(box, "Question")

        def sleep(seconds: float) -> None:
            world.wait(max(seconds, LONGEST_WAIT_S / 3))

        drainer = Drainer(box, gate, deadline_s=5, sleep=sleep, stopped=lambda: box.list()[0].state != "ready")
        for n, _ in enumerate(drainer.watch()):
            if n == 20:  # ten tries: each yields its row and what became of it
                break
        assert 10 <= len(cloud.requests) <= 11 and box.list()[0].attempts == 0
        world.wait(7 * DAY_S)
        world.put(box, "Another")
        assert box.list()[0].state == "expired" and world.endings()[0] == "abandoned"


def test_own_test_question_is_answered_well_enough(world: World) -> None:
    """It shows that the address, the model and the key are right, so a rejected question is to blame itself."""
    with typed_cloud.typed_cloud("chat") as cloud:
        cloud.fault = lambda api, body: (400, b"{}") if "Bad" in str(body) else (200, reply(api, WAITS))
        gate = Gate(world.store, CloudModel(cloud.url, "edge-auto"))
        box = world.outbox()
        world.put(box, "Bad")
        *_, done = Drainer(box, gate, deadline_s=5).once()
        assert isinstance(done, Drained) and done.stopped is None and box.list()[0].state == "dead"
        assert gate.breaker.health.open_s == 0
