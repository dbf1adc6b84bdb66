"""Several questions at once: decided as one by one, read in one turn, and with two calls to the cloud at a time."""

import pathlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.agent import assembly
from edge_agent.agent.agent import Agent
from edge_agent.cloud.wire.client import CloudModel
from edge_agent.core.config.loading import load
from edge_agent.core.config.settings import DEFAULT_LIMITS
from edge_agent.core.errors import BadQuestion, BadSetting, CloudUnavailable
from edge_agent.core.question import Question
from edge_agent.core.records import Decision, LevelReading, Reading
from edge_agent.core.typed import Rounds, TypedQuestion
from edge_agent.measure.replay import facts, replay
from edge_agent.model.catalog import ModelFiles
from edge_agent.store.file import opening
from edge_agent.store.store import Store
from tests.support.cloud_server import LoopbackCloud, completion
from tests.support.paths import DEMO
from tests.support.spoken_model import SURE, UNSURE, SpokenModel, agent

STATE = "A customer writes: I was charged twice for one order."
OFFLINE = "http://127.0.0.1:9/v1"


def questions(n: int) -> list[Question]:
    return [Question(f"{STATE}\n\nWhich number is {i}?", (str(i), str(i + 1), "none")) for i in range(n)]


def said(decision: Decision) -> tuple[object, ...]:
    """What was decided, without ids, times and the low bits of probabilities."""
    cloud = (decision.cloud.answer, decision.cloud.model) if decision.cloud else None
    return (
        decision.answer, decision.confidence, decision.route, decision.deferred, decision.provisional, decision.recalled,
        decision.reason, decision.cause, decision.queue_id is None, cloud, decision.cloud_error is None, decision.persisted,
    )  # fmt: skip


@pytest.mark.parametrize("url", [None, OFFLINE, "loopback"])
def test_decisions_are_those_of_ask_one_by_one(home: pathlib.Path, cloud: LoopbackCloud, url: str | None) -> None:
    asked = [*questions(3), Question("What is 12 + 7?", ("18", "19", "24")), questions(1)[0]]
    opened = assembly.opener(load())
    address = cloud.url if url == "loopback" else url

    def one(name: str) -> Agent:
        client = CloudModel(address, "big") if address else None
        return Agent(ModelFiles(DEMO), Store(home / name), tau=0.9, cloud=client, open_model=opened)

    with one("together.db") as together, one("alone.db") as alone:
        decisions, expected = together.ask_all(asked), [alone.ask(question) for question in asked]
        assert [said(decision) for decision in decisions] == [said(decision) for decision in expected]
        for mine, other in zip(decisions, expected, strict=True):
            assert mine.answer_probs == pytest.approx(other.answer_probs, abs=0.02)
        assert len(together.store.log(9)) == len({decision.decision_id for decision in decisions}) == 5
        again = together.ask_all(asked)
    assert [decision.timings.n_forward for decision in again] == [0] * 5


class Varied(SpokenModel):
    """Is sure of some questions: those whose number is even."""

    def read_all(self, questions: Sequence[Question], on_level: Callable[[int, LevelReading], None]) -> list[Reading]:
        found = [SURE if int(question.stem.split()[-1][:-1]) % 2 == 0 else UNSURE for question in questions]
        for i, reading in enumerate(found):
            on_level(i, reading)
        return found


@pytest.mark.parametrize("calls_per_day", [None, 2])
@given(data=st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_mixture_is_decided_as_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, cloud: LoopbackCloud, calls_per_day: int | None, data: st.DataObject
) -> None:
    """Repeated questions, policies of their own, questions that must not leave, things known before, a budget: all the same.

    Only where questions repeat, the budget may go to another one: repeated questions are decided after the others.
    """
    numbers = data.draw(st.lists(st.integers(0, 7), max_size=10, unique=calls_per_day is not None))
    policies = data.draw(st.lists(st.sampled_from([None, "only_local", "prefer_cloud"]), min_size=len(numbers), max_size=len(numbers)))
    asked = [replace(questions(8)[n], never_send=data.draw(st.booleans())) for n in numbers]
    url, before, refresh = data.draw(st.sampled_from([cloud.url, None])), data.draw(st.integers(0, 3)), data.draw(st.booleans())
    limits = {"budget": DEFAULT_LIMITS.budget._replace(calls_per_day=calls_per_day)}
    folder = tmp_path_factory.mktemp("mixture")
    with agent(folder / "a", Varied(SURE), url, **limits) as alone, agent(folder / "t", Varied(SURE), url, **limits) as together:
        for one in (alone, together):
            for question in asked[:before]:
                one.ask(question)
        expected = [alone.ask(question, refresh, policy=policy) for question, policy in zip(asked, policies, strict=True)]
        decisions = together.ask_all(asked, policy=policies, refresh=refresh)
        assert [said(decision) for decision in decisions] == [said(decision) for decision in expected]
        assert [row.state for row in together.outbox.list()] == [row.state for row in alone.outbox.list()]
        assert [replay(row).differences for row in together.store.decisions()] == [()] * (len(asked) + len(asked[:before]))


def test_state_is_shared(home: pathlib.Path) -> None:
    with Agent.open(model=DEMO, policy="only_local") as one:
        cached = sorted(decision.timings.n_cached_tokens for decision in one.ask_all([q.user_message for q in questions(4)]))
    assert cached[0] < 120 and cached[1] > 100 and cached[1:] == [cached[1]] * 3


def test_known_questions_are_not_read_again(home: pathlib.Path) -> None:
    model = SpokenModel(SURE)
    with agent(home, model) as one:
        one.ask_all(questions(2))
        decisions = one.ask_all(questions(4))
        assert [decision.recalled for decision in decisions] == [True, True, False, False] and model.ran == 4
        assert [decision.recalled for decision in one.ask_all(questions(4), refresh=True)] == [False] * 4


def test_same_question_twice_is_read_once(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    model = SpokenModel(UNSURE)
    with agent(home, model, cloud.url) as one:
        decisions = one.ask_all([*questions(2), *questions(2), *questions(1)])
    assert [decision.recalled for decision in decisions] == [False, False, True, True, True]
    assert model.ran == len(cloud.requests) == 2 and {decision.answer for decision in decisions} == {"B"}


@pytest.mark.parametrize(
    "bad", [Question("Which?", ("a", "a")), Question("word " * 3000, ("a", "b")), Question("Who?", (), "open"), "no options", 5]
)
def test_one_question_that_cannot_be_asked_stops_all(home: pathlib.Path, cloud: LoopbackCloud, bad: Any) -> None:
    with Agent.open(model=DEMO, cloud_url=cloud.url) as one:
        with pytest.raises(BadQuestion):
            one.ask_all([*questions(2), bad])
        assert one.store.log(5) == [] and cloud.requests == []


def test_each_question_has_its_policy(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(UNSURE), cloud.url) as one:
        decisions = one.ask_all(questions(4), policy=["only_local", None, "only_cloud", "prefer_cloud"])
        assert [decision.reason for decision in decisions] == ["only_local", "unsure", "only_cloud", "prefer_cloud"]
        assert [decision.tau for decision in one.ask_all(questions(2), tau=0.25, policy="prefer_local")] == [0.25, 0.25]


@pytest.mark.parametrize("policy", [["only_local"], ["never", None], [["only_local"], None], 5, [], [5, 6]])
def test_wrong_policies_are_refused(home: pathlib.Path, policy: Any) -> None:
    with agent(home, SpokenModel(SURE)) as one, pytest.raises(BadSetting):
        one.ask_all(questions(2), policy=policy)


@pytest.mark.parametrize("asked", ["What?\nA. 1\nB. 2", questions(1)[0], None, {questions(1)[0]}])
def test_what_is_no_list_of_questions_is_refused(home: pathlib.Path, asked: Any) -> None:
    with agent(home, SpokenModel(SURE)) as one, pytest.raises(BadQuestion, match="give a list"):
        one.ask_all(asked)


def test_no_question_is_no_decision(home: pathlib.Path) -> None:
    with agent(home, model := SpokenModel(SURE)) as one:
        assert one.ask_all([]) == [] and model.opened == 0


def test_two_calls_run_at_a_time(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    lock, running, most = threading.Lock(), [0], [0]

    def respond(_: dict[str, Any]) -> tuple[int, bytes]:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.05)
        with lock:
            running[0] -= 1
        return completion("B")

    cloud.respond = respond
    with agent(home, SpokenModel(UNSURE), cloud.url) as one:
        decisions = one.ask_all(questions(7))
    assert [decision.route for decision in decisions] == ["cloud"] * 7 and len(cloud.requests) == 7 and most == [2]


def test_calls_run_while_the_next_questions_are_read(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    """Each question is read only when the cloud has seen the one before."""

    def cloud_has_been_asked() -> None:
        ends = time.monotonic() + 10
        while len(cloud.requests) < model.ran:
            assert time.monotonic() < ends
            time.sleep(0.005)

    model = SpokenModel(UNSURE, cloud_has_been_asked)
    with agent(home, model, cloud.url) as one:
        assert [decision.route for decision in one.ask_all(questions(2))] == ["cloud"] * 2


def test_cloud_that_fails_is_called_no_more_often_than_one_by_one(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    cloud.status, cloud.raw = 500, b"{}"
    with agent(home / "alone", SpokenModel(UNSURE), cloud.url) as alone:
        for question in questions(8):
            alone.ask(question)
    n_alone = len(cloud.requests)
    with agent(home / "together", SpokenModel(UNSURE), cloud.url) as together:
        decisions = together.ask_all(questions(8))
        assert len(together.outbox.list()) == 8
    assert [(decision.provisional, decision.reason) for decision in decisions] == [(True, "cloud_error")] * 8
    assert 0 < len(cloud.requests) - n_alone <= n_alone + 1  # two were under way at once


def test_file_that_is_replaced_meanwhile_gets_all_facts(home: pathlib.Path) -> None:
    """The first record finds the damage; what the others recalled has ids of the old file."""

    def damage() -> None:
        with one.store.transaction() as db:
            db.execute("DROP TABLE decisions")
            db.execute("DROP TABLE readings")

    asked = questions(4)
    with agent(home, SpokenModel(SURE)) as one:
        one.ask_all(asked[3:] + asked[:3])
    with agent(home, SpokenModel(SURE, damage)) as one:
        decisions = one.ask_all([*asked[:3], Question("New?", ("x", "y", "z"))])
        assert [decision.persisted for decision in decisions] == [True] * 4
        rows = {row["decision_id"]: row for row in one.store.decisions()}
        for decision in decisions:
            assert facts(rows[decision.decision_id]).reading == SURE
        assert [one.ask(question).recalled for question in asked] == [True, True, True, False]


def test_only_cloud_without_an_answer_raises_once_the_others_are_stored(home: pathlib.Path) -> None:
    with agent(home, SpokenModel(SURE), OFFLINE) as one:
        with pytest.raises(CloudUnavailable, match="Only the cloud may answer"):
            one.ask_all(questions(3), policy=["only_cloud", None, "only_local"])
        assert sorted(row["reason"] for row in one.store.log(5)) == ["confident", "only_local"]


@pytest.mark.parametrize("reading", [SURE, UNSURE])
def test_lock_of_another_program_delays_all_questions_once(
    home: pathlib.Path, cloud: LoopbackCloud, monkeypatch: pytest.MonkeyPatch, reading: Reading
) -> None:
    """Whether a call to the cloud must be counted before it is made, or only the decision is stored."""
    monkeypatch.setattr(opening, "BUSY_TIMEOUT_MS", 1000)
    budget = DEFAULT_LIMITS.budget._replace(calls_per_day=9)
    with agent(home, SpokenModel(reading), cloud.url, budget=budget) as one, agent(home, SpokenModel(SURE)) as other:
        one.ask_all(questions(1))
        with other.store.transaction():
            started = time.monotonic()
            decisions = one.ask_all(questions(5)[1:])
            assert time.monotonic() - started < 1.9 and [decision.persisted for decision in decisions] == [False] * 4
        expected = "another program locks the database" if reading is UNSURE else ""
        assert all(expected in (decision.cloud_error or "") for decision in decisions)


def test_warm_opens_the_model_and_reads_the_system_message(home: pathlib.Path) -> None:
    with Agent.open(model=DEMO, policy="only_local") as one:
        assert not one.is_warm and one.n_waiting == 0
        assert one.warm() == one.model and one.is_warm
        assert one.ask(questions(1)[0]).timings.n_cached_tokens > 70
    assert not one.is_warm


def test_fits_says_what_the_model_cannot_read_without_reading(home: pathlib.Path) -> None:
    with Agent.open(model=DEMO) as one:
        one.fits(questions(1)[0])
        for bad in (Question("word " * 3000, ("a", "b")), Question("Who?", (), "open"), Question("Which?", ("a", "a"))):
            with pytest.raises(BadQuestion):
                one.fits(bad)
        assert one._on_device.opened().n_forward == 0 and one.store.log(5) == []


def test_rounds_of_a_typed_question_are_decisions_that_replay_proves(home: pathlib.Path) -> None:
    rounds = Rounds(TypedQuestion.choice(STATE, "Which team?", [(f"team {i}", None) for i in range(40)]))
    with Agent.open(model=DEMO, tau=1.0) as one:
        while not rounds.is_over:
            decisions = one.ask_all(rounds.questions, policy=None if rounds.is_last else "only_local")
            rounds.answered([list((decision.answer_probs or {}).values()) for decision in decisions])
        assert [replay(row).differences for row in one.store.decisions()] == [()] * 3
    assert sum(rounds.probabilities) == pytest.approx(1)
    assert rounds.asked.options[rounds.winner] == decisions[0].answer_text
