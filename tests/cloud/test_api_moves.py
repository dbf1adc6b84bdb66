"""With `auto`, a question moves to another API in its own call, and what is remembered of that is true, dated and paid for once."""

import json
import logging
import pathlib
import threading

import pytest

from edge_agent.cloud.api_probe import AGAIN_S, CHAT_AGAIN_S
from edge_agent.cloud.drain import Drained, Drainer
from edge_agent.cloud.gate import Gate
from edge_agent.core.config.limits import BudgetLimits
from edge_agent.core.outcome import CloudKind
from edge_agent.core.question import OPEN, Question
from tests.support.queue_world import World
from tests.support.spoken_model import UNSURE, SpokenModel, agent
from tests.support.typed_cloud import TypedCloud, gate, refused, typed_cloud

QUESTION = Question("Which?", ("x", "y", "z"))
TOO_MANY = (400, json.dumps({"error": {"message": "question 'answer': at most 2 options for this model"}}).encode())
NO_MODEL = (404, json.dumps({"error": {"message": "The model `big` does not exist.", "param": "model"}}).encode())
TYPED = ("systemone", "decisions")


def drained(world: World, of: Gate) -> Drained:
    *_, done = Drainer(world.outbox(), of, deadline_s=5).once()
    assert isinstance(done, Drained)
    return done


def probed(world: World, cloud: TypedCloud) -> Gate:
    """A gate to a cloud that was found to serve typed decisions."""
    of = gate(world, cloud)
    assert of.find_api()
    cloud.requests.clear()
    return of


@pytest.mark.parametrize(("serves", "asked"), [("systemone", ["chat", "systemone"]), ("decisions", ["chat", "systemone", "decisions"])])
@pytest.mark.parametrize("status", [404, 405, 501])
def test_cloud_without_chat_is_asked_by_a_typed_api_in_the_same_call(
    home: pathlib.Path, serves: str, asked: list[str], status: int
) -> None:
    """Its 404s opened the circuit breaker, behind which nothing was ever probed."""
    with typed_cloud(serves) as cloud:
        cloud.fault = lambda api, body: None if api == serves else (status, b"{}")
        with agent(home, SpokenModel(UNSURE), cloud.url, api="auto") as one:
            for n in range(6):
                decision = one.ask(Question(f"Which {n}?", ("x", "y", "z")))
                assert decision.route == "cloud" and decision.cloud_confidence == 0.51
            assert cloud.asked == [*asked, *[serves] * 5]
            assert one.gate and one.gate.breaker.health.recent == ""
        with agent(home, SpokenModel(UNSURE), cloud.url, api="auto") as two:
            assert two.ask(Question("Later?", ("x", "y"))).route == "cloud" and cloud.asked[len(asked) + 5 :] == [serves]


def test_eight_visitors_at_once_are_answered_by_a_cloud_without_chat(home: pathlib.Path) -> None:
    with typed_cloud("systemone") as cloud, agent(home, SpokenModel(UNSURE), cloud.url, api="auto") as one:
        routes: list[str] = []
        ask = [threading.Thread(target=lambda n=n: routes.append(one.ask(Question(f"Q {n}", ("x", "y", "z"))).route)) for n in range(8)]
        for thread in ask:
            thread.start()
        for thread in ask:
            thread.join()
        assert routes == ["cloud"] * 8


def test_open_breaker_of_an_older_version_ends_with_the_next_call(world: World) -> None:
    with typed_cloud("systemone") as cloud:
        of = gate(world, cloud)
        with world.store.transaction():
            of.breaker.note(CloudKind.MISCONFIGURED, "there is no chat API at this address", proven=True)
        assert of.breaker.refusal(5) and not of.must_find_api
        world.put(world.outbox(), "Question")
        assert drained(world, of).answered == 1 and of.breaker.refusal(5) is None


@pytest.mark.parametrize("serves", TYPED)
def test_smallest_budget_finds_a_cloud_without_chat(world: World, serves: str) -> None:
    """One call a day was spent on chat each day; each process begins with what the last one learned."""
    with typed_cloud(serves) as cloud:
        world.put(world.outbox(), "Question")
        for _ in range(3):
            drained(world, gate(world, cloud, limits=BudgetLimits(calls_per_day=1)))
            world.wait(86_401)
        assert [row.state for row in world.outbox().list()] == ["done"] and cloud.asked == [*("chat", "systemone", "decisions")][
            : len(cloud.asked)
        ]
        assert cloud.asked[-1] == serves


def test_address_without_any_api_names_cloud_url(world: World) -> None:
    with typed_cloud("nothing") as cloud:
        outcome = gate(world, cloud).cloud.ask(QUESTION)
        assert outcome.kind is CloudKind.MISCONFIGURED and "no chat API" in str(outcome.error) and "check cloud_url" in str(outcome.error)
        assert cloud.asked == ["chat", "systemone", "decisions"]


def test_open_question_is_never_moved(world: World) -> None:
    with typed_cloud("systemone") as cloud:
        assert gate(world, cloud).cloud.ask(Question("Why?", (), OPEN)).kind is CloudKind.MISCONFIGURED and cloud.asked == ["chat"]


@pytest.mark.parametrize("api", TYPED)
def test_missing_model_moves_one_call_and_is_not_remembered(world: World, api: str) -> None:
    """One server of several without the model made an end of typed decisions for good."""
    with typed_cloud("chat", api) as cloud:
        of = probed(world, cloud)
        cloud.fault = lambda asked, body: NO_MODEL if asked == api else None
        outcome = of.cloud.ask(QUESTION)
        with world.store.transaction():
            of.note(None, outcome)
        assert outcome.answer and outcome.answer.api == "chat"
        cloud.fault = lambda asked, body: None
        assert of.api_for(QUESTION) == gate(world, cloud).api_for(QUESTION) == api


def test_lost_api_is_logged_and_looked_for_again_an_hour_later(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "edge_agent")
    with typed_cloud("chat", "systemone") as cloud:
        probed(world, cloud)
        cloud.serves.discard("systemone")
        for n in range(3):
            world.put(world.outbox(), f"Question {n}")
        assert drained(world, gate(world, cloud)).answered == 3
        assert [record.message for record in caplog.records] == [
            "edge-agent: the cloud does not offer systemone now; for a while it is asked by chat, without probabilities"
        ]
        cloud.serves.add("systemone")
        assert not gate(world, cloud).must_find_api
        world.wait(AGAIN_S + 1)
        world.put(world.outbox(), "Question 3")
        cloud.requests.clear()
        assert drained(world, gate(world, cloud)).answered == 1 and cloud.asked == ["systemone", "systemone"]


def test_cloud_that_offers_only_chat_is_asked_again_a_day_later(world: World) -> None:
    with typed_cloud("chat") as cloud:
        world.put(world.outbox(), "Question 0")
        drained(world, gate(world, cloud))
        world.wait(CHAT_AGAIN_S - 60)
        assert not gate(world, cloud).must_find_api
        world.wait(120)
        cloud.serves.add("systemone")
        world.put(world.outbox(), "Question 1")
        cloud.requests.clear()
        assert drained(world, gate(world, cloud)).answered == 1 and cloud.asked == ["systemone", "systemone"]


def test_chat_that_an_older_version_stored_for_good_is_asked_again(world: World) -> None:
    with typed_cloud() as cloud:
        of = gate(world, cloud)
        with world.store.transaction():
            world.store.put_cloud_health(f"api {of.cloud.endpoint} big", '{"api": "chat"}')
        assert of.must_find_api and of.find_api() and of.api_for(QUESTION) == "systemone"


@pytest.mark.parametrize("status", [400, 404, 405, 411])
def test_portal_in_the_probe_is_forgotten_though_the_same_process_goes_on(world: World, status: int) -> None:
    """A later reply by chat was taken as proof of what the portal had said."""
    with typed_cloud() as cloud:
        cloud.fault = lambda api, body: (status, b"<html>Log in")
        world.put(world.outbox(), "Question 0")
        of = gate(world, cloud)
        assert drained(world, of).answered == 0
        cloud.fault = lambda api, body: None
        world.wait(600)
        assert drained(world, of).answered == 1
        later = gate(world, cloud)
        assert later.must_find_api or later.api_for(QUESTION) == "systemone"


def test_probe_long_before_the_first_reply_by_chat_proves_nothing(world: World) -> None:
    with typed_cloud() as cloud:
        cloud.fault = lambda api, body: None if api == "chat" else (404, b"<html>Log in")
        of = gate(world, cloud)
        assert of.find_api() is None
        world.wait(600)
        with world.store.transaction():
            of.note(None, of.cloud.ask(QUESTION))
        assert gate(world, cloud).must_find_api


def test_portal_in_doctors_probe_takes_no_typed_api_away(world: World) -> None:
    with typed_cloud() as cloud:
        of = probed(world, cloud)
        cloud.fault = lambda api, body: (404, b"<html>Log in")
        assert of.test(find_api=True)
        assert of.api_for(QUESTION) == gate(world, cloud).api_for(QUESTION) == "systemone"


def test_answers_with_probabilities_are_not_bought_again_while_the_cloud_is_asked_by_chat(home: pathlib.Path) -> None:
    with typed_cloud("chat", "systemone") as cloud:
        with agent(home, SpokenModel(UNSURE), cloud.url, api="auto") as one:
            assert one.gate and one.gate.find_api()
            for n in range(3):
                one.ask(Question(f"Which {n}?", ("x", "y", "z")))
        cloud.serves.discard("systemone")
        with agent(home, SpokenModel(UNSURE), cloud.url, api="auto") as two:
            assert two.ask(Question("New?", ("x", "y", "z"))).cloud_confidence is None
            assert two.gate and two.gate.api_for(QUESTION) == "chat"
            n_calls = len(cloud.requests)
            again = [two.ask(Question(f"Which {n}?", ("x", "y", "z"))) for n in range(3)]
            assert [(one.recalled, one.cloud_confidence) for one in again] == [(True, 0.51)] * 3 and len(cloud.requests) == n_calls


@pytest.mark.parametrize("api", TYPED)
@pytest.mark.parametrize("fault", ["too many", "contradiction"])
def test_question_that_the_typed_api_cannot_answer_is_asked_by_chat_alone_and_once(home: pathlib.Path, api: str, fault: str) -> None:
    """It was dead, though the same cloud would have answered it by chat."""
    with typed_cloud("chat", api) as cloud, agent(home, SpokenModel(UNSURE), cloud.url, api="auto") as one:
        assert one.gate and one.gate.find_api()
        cloud.requests.clear()
        cloud.letter = "C"
        if fault == "too many":
            cloud.fault = lambda asked, body: TOO_MANY if asked == api and "Hard" in str(body) else None
        else:
            cloud.probabilities = lambda names: [0.9] * len(names) if len(names) == 3 else [0.2, 0.8]
        hard = Question("Hard?", ("x", "y", "z"))
        decision = one.ask(hard)
        assert (decision.answer, decision.route, decision.cloud_confidence) == ("C", "cloud", None) and cloud.asked == [api, "chat"]
        assert one.ask(hard).recalled and cloud.asked == [api, "chat"]
        assert one.ask(Question("Easy?", ("x", "y"))).cloud_confidence and cloud.asked == [api, "chat", api]
        assert one.gate.breaker.health.recent == ""


def test_refused_question_is_not_asked_again_by_chat(world: World) -> None:
    with typed_cloud("chat", "decisions") as cloud:
        of = probed(world, cloud)
        cloud.fault = lambda api, body: (200, json.dumps(refused()).encode()) if api == "decisions" else None
        assert of.cloud.ask(QUESTION).kind is CloudKind.REJECTED and cloud.asked == ["decisions"]
        cloud.fault = lambda api, body: (400, b'{"error": {"code": "content_filter"}}') if api == "decisions" else None
        assert of.cloud.ask(QUESTION).kind is CloudKind.REJECTED and cloud.asked == ["decisions"] * 2


@pytest.mark.parametrize("api", TYPED)
def test_typed_refusal_stands_where_the_cloud_has_no_chat(world: World, api: str) -> None:
    with typed_cloud(api) as cloud:
        of = probed(world, cloud)
        cloud.fault = lambda asked, body: TOO_MANY if asked == api else None
        outcome = of.cloud.ask(QUESTION)
        assert outcome.kind is CloudKind.REJECTED and "at most 2 options" in str(outcome.error) and of.api_for(QUESTION) == api


@pytest.mark.parametrize("api", TYPED)
def test_api_that_is_set_by_hand_is_not_left_for_one_question(world: World, api: str) -> None:
    with typed_cloud("chat", api) as cloud:
        cloud.fault = lambda asked, body: TOO_MANY
        assert gate(world, cloud, api).cloud.ask(QUESTION).kind is CloudKind.REJECTED and cloud.asked == [api]
