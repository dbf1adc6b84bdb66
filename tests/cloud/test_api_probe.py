"""Which API a cloud offers: found out once, with a question of our own, and never held against the cloud or a question."""

import json
import pathlib

import pytest

from edge_agent.agent.agent import Agent
from edge_agent.cloud.api_probe import AGAIN_S
from edge_agent.cloud.drain import Drained, Drainer
from edge_agent.cloud.gate import TEST_QUESTION, Gate
from edge_agent.cloud.privacy import Rules
from edge_agent.cloud.wire.client import CloudModel
from edge_agent.core.config.limits import BudgetLimits
from edge_agent.core.errors import BadSetting
from edge_agent.core.outcome import CloudKind
from edge_agent.core.question import OPEN, Question
from tests.support.queue_world import World
from tests.support.spoken_model import UNSURE, SpokenModel, agent
from tests.support.typed_cloud import gate, typed_cloud

QUESTION = Question("Which?", ("x", "y", "z"))


def drained(world: World, of: Gate) -> Drained:
    *_, done = Drainer(world.outbox(), of, deadline_s=5).once()
    assert isinstance(done, Drained)
    return done


def state(world: World, of: Gate) -> tuple[object, ...]:
    """Everything that could be held against the cloud or a question."""
    return of.breaker.health.recent, of.breaker.health.open_s, of.breaker.last_error, [row.attempts for row in world.outbox().list()]


@pytest.mark.parametrize(
    ("serves", "asked"),
    [
        (("chat", "systemone", "decisions"), ["systemone"]),
        (("chat", "systemone"), ["systemone"]),
        (("chat", "decisions"), ["systemone", "decisions"]),
        (("chat",), ["systemone", "decisions"]),
        (("systemone",), ["systemone"]),
        (("decisions",), ["systemone", "decisions"]),
    ],
)
def test_first_drain_finds_the_api_with_our_own_question_and_remembers_it(world: World, serves: tuple[str, ...], asked: list[str]) -> None:
    api = asked[-1] if asked[-1] in serves else "chat"
    with typed_cloud(*serves) as cloud:
        for n in range(2):
            world.put(world.outbox(), f"Question {n}")
        assert drained(world, gate(world, cloud)).answered == 2
        assert cloud.asked == [*asked, api, api]
        assert cloud.stems == [*[TEST_QUESTION.stem] * len(asked), "Question 0", "Question 1"]
        later = gate(world, cloud)
        world.put(world.outbox(), "Question 2")
        assert drained(world, later).answered == 1 and cloud.asked[len(asked) + 2 :] == [api]
        assert state(world, later)[:3] == ("", 0.0, None)


def test_nothing_is_probed_while_nothing_waits_and_nothing_was_answered(world: World) -> None:
    with typed_cloud() as cloud:
        of = gate(world, cloud)
        assert drained(world, of).answered == 0 and not of.may_find_api and cloud.asked == []


def test_drain_that_may_send_nothing_calls_no_cloud(world: World) -> None:
    with typed_cloud() as cloud:
        world.put(world.outbox(), "a secret")
        *_, done = Drainer(world.outbox(), gate(world, cloud), Rules.of(["secret"], []), deadline_s=5).once()
        assert isinstance(done, Drained) and done.answered == 0 and cloud.asked == []


@pytest.mark.parametrize("status", [400, 404, 405, 410, 422, 501])
@pytest.mark.parametrize("body", [b'{"detail":"Not Found"}', b"<html><title>404</title></html>", b"", b'{"error": "unknown path"}'])
def test_missing_api_is_no_fault_of_the_cloud(world: World, status: int, body: bytes) -> None:
    with typed_cloud("chat") as cloud:
        cloud.fault = lambda api, _: None if api == "chat" else (status, body)
        world.put(world.outbox(), "Question")
        of = gate(world, cloud)
        assert drained(world, of) == Drained(1, 0, 0, None) and cloud.asked == ["systemone", "decisions", "chat"]
        assert state(world, of) == ("", 0.0, None, [1])
        assert not gate(world, cloud).must_find_api


@pytest.mark.parametrize(
    "fault",
    [
        (500, b"{}"),
        (429, b"{}"),
        (503, b""),
        (401, b"{}"),
        (403, b'{"message":"Missing Authentication Token"}'),
        (302, b""),
        (200, b"<html>"),
    ],
)
def test_reply_that_says_nothing_is_asked_again_an_hour_later(world: World, fault: tuple[int, bytes]) -> None:
    """Some gateways answer an unknown path like a wrong key; a captive portal answers every path."""
    with typed_cloud() as cloud:
        cloud.fault = lambda api, _: None if api == "chat" else fault
        world.put(world.outbox(), "Question 0")
        of = gate(world, cloud)
        assert drained(world, of).answered == 1 and cloud.asked == ["systemone", "chat"] and state(world, of)[:3] == ("", 0.0, None)
        cloud.fault = lambda api, _: None
        world.put(world.outbox(), "Question 1")
        assert drained(world, gate(world, cloud)).answered == 1 and cloud.asked[2:] == ["chat"]
        world.wait(AGAIN_S + 1)
        world.put(world.outbox(), "Question 2")
        assert drained(world, gate(world, cloud)).answered == 1 and cloud.asked[3:] == ["systemone", "systemone"]


def test_offline_probe_is_repeated_at_once(world: World) -> None:
    world.put(world.outbox(), "Question")
    offline = Gate(world.store, CloudModel("http://127.0.0.1:9/v1", "big", api="auto"))
    assert drained(world, offline).answered == 0 and Gate(world.store, offline.cloud).must_find_api
    assert world.store.cloud_health(f"api {offline.cloud.endpoint} big") is None


def test_page_of_a_portal_is_never_remembered_as_a_cloud_that_offers_only_chat(world: World) -> None:
    with typed_cloud() as cloud:
        cloud.fault = lambda api, _: (404, b"<html>Log in")
        world.put(world.outbox(), "Question")
        assert drained(world, gate(world, cloud)).answered == 0
        cloud.fault = lambda api, _: None
        fresh = gate(world, cloud)
        assert fresh.api_for(QUESTION) == "chat" and fresh._probe.is_due


@pytest.mark.parametrize(("calls", "asked"), [(1, ["chat"]), (2, ["chat", "chat"]), (3, ["systemone", "decisions", "chat"])])
def test_small_budget_is_spent_on_questions(world: World, calls: int, asked: list[str]) -> None:
    with typed_cloud("chat") as cloud:
        for n in range(3):
            world.put(world.outbox(), f"Question {n}")
        drained(world, gate(world, cloud, limits=BudgetLimits(calls_per_day=calls)))
        assert cloud.asked == asked and len(world.store.database.rows("SELECT 1 FROM spending")) == calls


def test_typed_call_costs_what_its_usage_says(world: World) -> None:
    with typed_cloud() as cloud:
        world.put(world.outbox(), "Question")
        drained(world, gate(world, cloud, limits=BudgetLimits(money_per_day=1.0, prompt_price=1.0, completion_price=2.0)))
        assert [row["micros"] for row in world.store.database.rows("SELECT micros FROM spending ORDER BY id")] == [43, 43]


@pytest.mark.parametrize(("serves", "then", "api"), [
    (("chat", "systemone"), ["systemone", "decisions", "chat"], "chat"),
    (("chat", "systemone", "decisions"), ["systemone", "decisions"], "decisions"),
])  # fmt: skip
def test_cloud_that_stops_offering_the_api_is_asked_by_the_next_in_the_same_call(
    world: World, serves: tuple[str, ...], then: list[str], api: str
) -> None:
    with typed_cloud(*serves) as cloud:
        of = gate(world, cloud)
        assert of.find_api() and of.api_for(QUESTION) == "systemone"
        cloud.serves.discard("systemone")
        cloud.requests.clear()
        world.put(world.outbox(), "Question 0")
        assert drained(world, of) == Drained(1, 0, 0, None) and cloud.asked == then and state(world, of) == ("", 0.0, None, [1])
        world.put(world.outbox(), "Question 1")
        assert drained(world, gate(world, cloud)).answered == 1 and cloud.asked[len(then) :] == [api]


def test_move_to_another_api_stops_when_the_budget_does(world: World) -> None:
    with typed_cloud("chat", "systemone") as cloud:
        assert gate(world, cloud).find_api()
        cloud.serves.discard("systemone")
        world.put(world.outbox(), "Question")
        done = drained(world, gate(world, cloud, limits=BudgetLimits(calls_per_day=2)))
        assert done.answered == 0 and done.stopped and cloud.asked == ["systemone", "systemone", "decisions"]
        assert [(row.state, row.attempts) for row in world.outbox().list()] == [("ready", 0)]


def test_cloud_that_fails_while_it_is_asked_otherwise_is_remembered_as_before(world: World) -> None:
    """A server that restarts may answer 404 for a moment."""
    with typed_cloud("chat", "systemone") as cloud:
        of = gate(world, cloud)
        assert of.find_api()
        cloud.fault = lambda api, _: (500, b"{}") if api == "chat" else (404, b"{}")
        assert of.cloud.ask(QUESTION).kind is CloudKind.FAILED
        cloud.fault = lambda api, _: None
        assert gate(world, cloud).api_for(QUESTION) == of.api_for(QUESTION) == "systemone"


@pytest.mark.parametrize("api", ["systemone", "decisions"])
def test_api_that_is_set_is_never_replaced(world: World, api: str) -> None:
    with typed_cloud("chat") as cloud:
        world.put(world.outbox(), "Question")
        of = gate(world, cloud, api)
        done = drained(world, of)
        assert set(cloud.asked) == {api} and done.answered == 0 and "check cloud_api" in str(done.stopped)
        assert [(row.state, row.attempts) for row in world.outbox().list()] == [("ready", 0)]


def test_chat_that_is_set_is_never_probed(world: World) -> None:
    with typed_cloud() as cloud:
        world.put(world.outbox(), "Question")
        assert drained(world, gate(world, cloud, "chat")).answered == 1 and cloud.asked == ["chat"]


def test_another_model_of_the_same_cloud_is_probed_for_itself(world: World) -> None:
    with typed_cloud() as cloud:
        assert gate(world, cloud).find_api()
        other = Gate(world.store, CloudModel(cloud.url, "small", api="auto"))
        assert other.must_find_api and other.api_for(QUESTION) == "chat"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"api": "soap"}', '{"api": ["chat"]}', '{"again_s": "soon"}', '{"again_s": 1e99}']
)
def test_damaged_memory_counts_as_nothing_known(world: World, text: str) -> None:
    with typed_cloud() as cloud:
        of = gate(world, cloud)
        with world.store.transaction():
            world.store.put_cloud_health(f"api {of.cloud.endpoint} big", text)
        assert of.must_find_api and of.find_api() and of.api_for(QUESTION) == "systemone"


def test_open_question_always_goes_by_chat(world: World) -> None:
    with typed_cloud() as cloud:
        of = gate(world, cloud)
        assert of.find_api()
        outcome = of.cloud.ask(Question("Why?", (), OPEN))
        assert outcome.answer and outcome.answer.api == "chat" and outcome.answer.probs is None
        assert of.api_for(QUESTION) == "systemone" and of.api_for(Question("Why?", (), OPEN)) == "chat"


def test_visitor_is_answered_first_and_the_cloud_is_asked_what_it_offers_when_nobody_waits(home: pathlib.Path) -> None:
    with typed_cloud() as cloud:
        with agent(home, SpokenModel(UNSURE), cloud.url, api="auto") as one:
            decision = one.ask(QUESTION)
            assert decision.route == "cloud" and decision.cloud_confidence is None and cloud.asked == ["chat"]
        assert cloud.asked == ["chat", "systemone"] and cloud.stems[1] == TEST_QUESTION.stem
        with agent(home, SpokenModel(UNSURE), cloud.url, api="auto") as two:
            again = two.ask(QUESTION)  # the API is a part of the key
            assert again.cloud and (again.cloud.api, again.cloud_confidence, again.recalled) == ("systemone", 0.51, False)
            assert two.ask(QUESTION).recalled
        assert cloud.asked == ["chat", "systemone", "systemone"]


def test_agent_that_asked_no_cloud_probes_none(home: pathlib.Path) -> None:
    with typed_cloud() as cloud:
        for _ in range(2):
            with agent(home, SpokenModel(UNSURE), cloud.url, "only_local", api="auto") as one:
                one.ask(QUESTION)
        assert cloud.asked == []


def test_setting_must_be_one_of_four(home: pathlib.Path) -> None:
    with pytest.raises(BadSetting, match="auto, chat, decisions, systemone"):
        Agent.open("demo", cloud_url="http://127.0.0.1:9/v1", cloud_api="soap")


def test_key_and_address_never_stand_in_what_is_remembered(world: World) -> None:
    with typed_cloud() as cloud:
        of = Gate(world.store, CloudModel(cloud.url, "big", "sk-canary-4711", api="auto"))
        assert of.find_api() and cloud.requests[0][2]["Authorization"] == "Bearer sk-canary-4711"
        assert "canary" not in json.dumps(world.store.database.rows("SELECT * FROM clouds"))
