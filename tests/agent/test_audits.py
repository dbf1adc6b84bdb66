"""Which kept answers are audited, what of them leaves the device, and that no audit ever answers anybody."""

import itertools
import json
import pathlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from edge_agent.agent.agent import Agent
from edge_agent.cloud.audits import MAX_ATTEMPTS, MAX_WAITING, Audits
from edge_agent.cloud.drain import Drained
from edge_agent.cloud.privacy import Rules
from edge_agent.core.config.limits import BudgetLimits
from edge_agent.core.question import Question
from edge_agent.core.routing import draw
from edge_agent.measure.replay import replay
from edge_agent.store import forget
from edge_agent.store.export import export
from tests.support.cloud_server import LoopbackCloud
from tests.support.spoken_model import SURE, UNSURE, SpokenModel, agent


@pytest.fixture
def cloud() -> Iterator[LoopbackCloud]:
    made = LoopbackCloud()
    yield made
    made.stop()


def question(stem: str) -> Question:
    return Question(stem, ("x", "y", "z"))


def audits(one: Agent) -> list[dict[str, Any]]:
    return one.store.database.rows("SELECT * FROM audits ORDER BY id")


def agreements(one: Agent) -> list[int]:
    return [row["agrees"] for row in one.store.database.rows("SELECT agrees FROM agreements ORDER BY id")]


def drained(one: Agent) -> Drained:
    *_, done = one.drain()
    assert isinstance(done, Drained)
    return done


def test_kept_answer_is_compared_with_the_clouds(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    cloud.reply = lambda body: "A" if "same" in json.dumps(body) else "B"
    with agent(home, SpokenModel(SURE), cloud.url, audit_share=1.0) as one:
        first, second = one.ask(question("same")), one.ask(question("other"))
        assert not cloud.requests and [row["state"] for row in audits(one)] == ["ready", "ready"]
        assert drained(one) == Drained(0, 0, 0, None, audited=2)
        rows = audits(one)
        assert [(row["decision_id"], row["answer"], row["cloud_answer"], row["agrees"], row["state"], row["payload"]) for row in rows] == [
            (first.decision_id, "A", "A", 1, "done", None), (second.decision_id, "A", "B", 0, "done", None),
        ]  # fmt: skip
        assert [row["audit"] for row in export(one.store)] == [{"answer": "A", "agrees": True}, {"answer": "B", "agrees": False}]
        assert agreements(one) == [1, 0] and drained(one).audited == 0 and len(cloud.requests) == 2


def test_audit_answers_nobody_and_changes_no_decision(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    """Even under `prefer_cloud`, where a stored answer of the cloud would be recalled."""
    with agent(home, SpokenModel(SURE), cloud.url, audit_share=1.0) as one:
        before = one.ask(question("q"))
        rows = one.store.log(10)
        assert drained(one).audited == 1 and one.store.log(10) == rows
        assert one.store.database.rows("SELECT * FROM cloud_answers") == []
        again = one.ask(question("q"))
        assert (again.answer, again.route, again.recalled) == (before.answer, "local", True) == ("A", "local", True)
        wanted = one.ask(question("q"), policy="prefer_cloud")
        assert (wanted.answer, wanted.recalled, len(cloud.requests)) == ("B", False, 2)
        assert all(not replay(row).differences for row in one.store.decisions())


@pytest.mark.parametrize(
    ("reading", "policy", "stem", "configured"),
    [(SURE, "only_local", "q", True), (SURE, "prefer_local", "secret q", True), (SURE, "prefer_cloud", "q", True),
     (UNSURE, "prefer_local", "q", True), (SURE, "prefer_local", "q", False)],
)  # fmt: skip
def test_only_confident_answers_that_may_leave_the_device_are_audited(
    home: pathlib.Path, cloud: LoopbackCloud, reading: Any, policy: str, stem: str, configured: bool
) -> None:
    rules = Rules.of(["secret"], [])
    with agent(home, SpokenModel(reading), cloud.url if configured else None, policy, rules=rules, audit_share=1.0) as one:
        assert one.ask(question(stem)).persisted and audits(one) == []


def test_without_a_share_nothing_is_audited(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(SURE), cloud.url) as one:
        one.ask(question("q"))
        assert audits(one) == [] and drained(one).audited == 0 and not cloud.requests


def test_repeats_of_a_question_are_audited_once(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(SURE), cloud.url, audit_share=1.0) as one:
        for refresh in (False, False, True):
            one.ask(question("q"), refresh=refresh)
        drained(one)
        one.ask(question("q"))
        assert len(audits(one)) == 1


def test_share_is_kept_and_belongs_to_the_question(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    """Asked again with the same share, the same questions are chosen: none gets a second draw."""
    stems = [f"q{n}" for n in range(400)]
    with agent(home, SpokenModel(SURE), cloud.url, audit_share=0.25) as one:
        one.ask_all([question(stem) for stem in stems])
        chosen = [row["fingerprint"] for row in audits(one)]
        assert 75 <= len(chosen) <= 125
        one.ask_all([question(stem) for stem in stems])
        assert [row["fingerprint"] for row in audits(one)] == chosen
        assert chosen == [f for f in (question(s).fingerprint for s in stems) if draw(f, "audit:") < 0.25]


def test_chance_decides_alone(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(SURE), cloud.url) as one:
        numbers = itertools.cycle([0.29, 0.3])
        chosen = Audits(one.store, 0.3, chance=lambda fingerprint, calibration: next(numbers))
        assert [chosen.chooses("f", ""), chosen.chooses("f", "")] == [True, False]


def test_personal_data_are_redacted_in_the_audit_and_in_what_is_sent(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(SURE), cloud.url, rules=Rules.of([], []), audit_share=1.0) as one:
        one.ask(question("Write to aliya@example.kz: which?"))
        (row,) = audits(one)
        assert "aliya" not in row["payload"] and "[email]" in row["payload"]
        drained(one)
    (request,) = cloud.requests
    assert "aliya" not in json.dumps(request["body"]) and "[email]" in json.dumps(request["body"])


def test_rules_that_are_newer_than_an_audit_hold(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(SURE), cloud.url, audit_share=1.0) as one:
        one.ask(question("secret"))
    with agent(home, SpokenModel(SURE), cloud.url, rules=Rules.of(["secret"], []), audit_share=1.0) as one:
        assert drained(one).audited == 0 and not cloud.requests
        (row,) = audits(one)
        assert (row["state"], row["last_error"], row["payload"]) == ("dropped", "never_send", None)


def test_question_that_must_not_be_sent_any_more_drops_its_audit(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    """The same question is asked again, this time with a word of the person that it stays here."""
    with agent(home, SpokenModel(SURE), cloud.url, audit_share=1.0) as one:
        one.ask(question("q"))
        one.ask(replace(question("q"), never_send=True))
        assert drained(one).audited == 0 and not cloud.requests
        assert [(row["state"], row["last_error"], row["payload"]) for row in audits(one)] == [("dropped", "never_send", None)]


@pytest.mark.parametrize(("policy", "share"), [("only_local", 1.0), ("prefer_local", 0.0)])
def test_audits_that_wait_are_not_sent_once_they_are_switched_off(
    home: pathlib.Path, cloud: LoopbackCloud, policy: str, share: float
) -> None:
    with agent(home, SpokenModel(SURE), cloud.url, audit_share=1.0) as one:
        one.ask(question("q"))
    with agent(home, SpokenModel(SURE), cloud.url, policy, audit_share=share) as one:
        assert drained(one).audited == 0 and not cloud.requests and audits(one)[0]["state"] == "ready"


def test_questions_in_the_queue_go_first(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(SURE), cloud.url, audit_share=1.0) as one:
        one.ask(question("kept"))
    with agent(home, SpokenModel(UNSURE), "http://127.0.0.1:9/v1") as one:
        one.ask(question("unsure"))
    with agent(home, SpokenModel(SURE), cloud.url, audit_share=1.0) as one:
        assert drained(one) == Drained(1, 0, 0, None, audited=1)
    assert [("unsure" in json.dumps(request["body"])) for request in cloud.requests] == [True, False]


@pytest.mark.parametrize(("calls", "sent"), [(1, 0), (3, 1), (4, 2), (5, 2)])
def test_audits_leave_half_of_the_budget(home: pathlib.Path, cloud: LoopbackCloud, calls: int, sent: int) -> None:
    with agent(home, SpokenModel(SURE), cloud.url, audit_share=1.0, budget=BudgetLimits(calls_per_day=calls)) as one:
        one.ask_all([question(f"q{n}") for n in range(6)])
        assert drained(one) == Drained(0, 0, 0, None, audited=sent) and len(cloud.requests) == sent
        assert [row["state"] for row in audits(one)] == ["done"] * sent + ["ready"] * (6 - sent)
        assert one.ask(question("q0"), policy="prefer_cloud").route == ("cloud" if calls > sent else "local")


def test_money_for_audits_is_half_too(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    """Each call costs 10 tokens at 100,000 a million: 1.0; before its reply, at most 30.3 are reserved for it."""
    budget = BudgetLimits(money_per_day=66.0, prompt_price=100_000.0, completion_price=100_000.0)
    with agent(home, SpokenModel(SURE), cloud.url, audit_share=1.0, budget=budget) as one:
        one.ask_all([question(f"q{n}") for n in range(6)])
        drained(one)
        spent = one.store.spent(one.gate.cloud.endpoint, 0.0)[1] / 1e6
        assert len(cloud.requests) == spent < 33


def test_refused_audit_touches_only_itself(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    cloud.respond = lambda body: (422, b'{"error": {"message": "not this one"}}')
    with agent(home, SpokenModel(SURE), cloud.url, audit_share=1.0) as one:
        one.ask_all([question("a"), question("b")])
        assert drained(one) == Drained(0, 0, 0, None) and len(cloud.requests) == 1
        assert [row["state"] for row in audits(one)] == ["dropped", "ready"] and agreements(one) == []
        assert not one.gate.breaker.health.open_s and one.store.log(1)[0]["ending"] is None


def test_audit_without_a_usable_answer_is_tried_three_times(home: pathlib.Path, cloud: LoopbackCloud, due: Callable[[Agent], None]) -> None:
    cloud.reply = lambda body: "I cannot say."
    with agent(home, SpokenModel(SURE), cloud.url, audit_share=1.0) as one:
        one.ask(question("q"))
        for n in range(1, MAX_ATTEMPTS + 2):
            drained(one)
            assert (audits(one)[0]["attempts"], audits(one)[0]["state"]) == (min(n, 3), "ready" if n < 3 else "dropped")
            drained(one)  # not due
            due(one)
        assert len(cloud.requests) == MAX_ATTEMPTS and agreements(one) == []


def test_cloud_that_is_away_costs_no_try_and_an_open_breaker_stops_audits(home: pathlib.Path, due: Callable[[Agent], None]) -> None:
    with agent(home, SpokenModel(SURE), "http://127.0.0.1:9/v1", audit_share=1.0) as one:
        one.ask_all([question(f"q{n}") for n in range(9)])
        for _ in range(9):
            drained(one)
            due(one)
        assert one.gate.breaker.health.open_s and len(one.gate.breaker.health.recent) == 5  # as many failures as a row of the queue needs
        assert {(row["attempts"], row["state"]) for row in audits(one)} == {(0, "ready")}


@pytest.fixture
def due() -> Callable[[Agent], None]:
    """Makes all audits due now."""

    def make(one: Agent) -> None:
        with one.store.transaction() as db:
            db.execute("UPDATE audits SET due_s = 0")

    return make


def test_answer_that_the_cloud_gave_before_needs_no_call(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(SURE), cloud.url, audit_share=1.0, budget=BudgetLimits(calls_per_day=10)) as one:
        one.ask(question("q"), policy="prefer_cloud")
        one.ask(question("q"))
        assert drained(one).audited == 1 and len(cloud.requests) == 1 and agreements(one) == [0]
        assert one.store.spent(one.gate.cloud.endpoint, 0.0)[0] == 1


def test_no_more_wait_than_the_limit(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(SURE), cloud.url, audit_share=1.0) as one:
        one.ask(question("first"))
        with one.store.transaction() as db:
            for n in range(MAX_WAITING - 2):
                db.execute(
                    "INSERT INTO decisions SELECT 'd' || ?, created_at, fingerprint, rule_version, policy, circumstances, reading_id, "
                    "cloud_answer_id, cloud_kind, answer, route, reason, cause, score, deferred, recalled, provisional, queue_id, ending, "
                    "ended_at, final_answer, end_number FROM decisions LIMIT 1", (n,),
                )  # fmt: skip
                db.execute(
                    "INSERT INTO audits (created_at, put_s, due_s, decision_id, fingerprint, calibration, cloud_model, answer, state) "
                    "SELECT 1, 1, 1, 'd' || ?, fingerprint, 'c', 'big', 'A', 'ready' FROM questions", (n,),
                )  # fmt: skip
        one.ask_all([question("last"), question("too many")])
        assert len(audits(one)) == MAX_WAITING and audits(one)[-1]["fingerprint"] == question("last").fingerprint


def test_audit_that_waited_too_long_is_dropped(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(SURE), cloud.url, audit_share=1.0) as one:
        one.ask(question("q"))
        with one.store.transaction() as db:
            db.execute("UPDATE audits SET put_s = put_s - 8 * 86400")
        assert drained(one).audited == 0 and audits(one)[0]["state"] == "dropped" and not cloud.requests


def test_purged_question_takes_its_audits_along(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    """One bit stays, which says nothing of the question: the test of agreement must not lose results."""
    with agent(home, SpokenModel(SURE), cloud.url, audit_share=1.0) as one:
        one.ask_all([question("canary one"), question("canary two")])
        drained(one)
        one.ask(question("canary three"))
        forget.purge(one.store, older_than_s=-1.0)
        assert audits(one) == [] and agreements(one) == [0, 0] and drained(one).audited == 0
    assert not any(b"canary" in file.read_bytes() for file in home.rglob("*") if file.is_file())


def test_question_that_is_purged_while_its_audit_is_sent_leaves_nothing(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(SURE), cloud.url, audit_share=1.0) as one, agent(home, SpokenModel(SURE)) as other:
        one.ask(question("canary"))
        cloud.reply = lambda body: str(forget.purge(other.store, stem="canary").questions and "B")
        assert drained(one).audited == 1 and audits(one) == agreements(one) == []
