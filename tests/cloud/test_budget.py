"""What may be spent and what was spent: every call is counted before it is sent."""

import pathlib
from dataclasses import replace

import pytest

from edge_agent.cloud.breaker import Health
from edge_agent.cloud.budget import Budget, Reservation
from edge_agent.cloud.drain import Drained
from edge_agent.cloud.wire.request import Shape
from edge_agent.core.config.limits import BudgetLimits
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer
from edge_agent.measure.replay import replay
from tests.support.cloud_server import LoopbackCloud, completion, gpt_5
from tests.support.mutation import catches
from tests.support.queue_world import World
from tests.support.spoken_model import UNSURE, SpokenModel, agent

QUESTION = Question("Q", ("a", "b"))


@pytest.fixture
def world(tmp_path: pathlib.Path) -> World:
    made = World(tmp_path / "edge-agent.db")
    yield made
    made.store.close()


def budget(world: World, kind: type[Budget] = Budget, **limits: float) -> Budget:
    return kind(world.store, "https://cloud", BudgetLimits(**limits))


def reserve(world: World, of: Budget, question: Question = QUESTION) -> Reservation | None:
    with world.store.transaction():
        return of.reserve(question)


class Unlimited(Budget):
    """Mutant: counts, but refuses nothing."""

    def allows(self, now_s: float, micros: int, share: float = 1.0) -> bool:
        return True


@catches(Budget, Unlimited)
def test_calls_per_day_and_month_are_limited(part, world: World) -> None:
    of = budget(world, part, calls_per_day=2, calls_per_month=3)
    assert [reserve(world, of) is None for _ in range(3)] == [False, False, True]
    world.wait(86_401)
    assert [reserve(world, of) is None for _ in range(2)] == [False, True]
    world.wait(31 * 86_400)
    assert reserve(world, of) is not None


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0, 50 * 365 * 86_400.0])
def test_jump_of_the_wall_clock_opens_no_new_budget(world: World, jump_s: float) -> None:
    """The mutant, a clock that trusts the wall clock, is in tests/store/test_device_time.py."""
    of = budget(world, calls_per_day=1)
    assert reserve(world, of) is not None
    world.moment = replace(world.moment, wall=world.moment.wall + jump_s)
    assert reserve(world, of) is None


@catches(Budget, Unlimited)
def test_highest_cost_is_reserved_and_corrected_to_the_real_cost(part, world: World) -> None:
    of = budget(world, part, money_per_day=0.001, prompt_price=1.0, completion_price=2.0)  # 1000 millionths
    reserved = reserve(world, of)  # about 64 + 9 prompt tokens and at most 256 completion tokens: 585
    assert reserved and reserve(world, of) is None
    with world.store.transaction():
        of.close(reserved, CloudOutcome(CloudKind.ANSWERED, CloudAnswer("A", "A", "big", 1.0, 70, 2)))
    assert world.store.database.rows("SELECT micros FROM spending") == [{"micros": 74}]
    assert reserve(world, of)


def test_reply_that_claims_far_more_than_was_allowed_does_not_use_up_the_budget(world: World) -> None:
    """One reply that claimed 2,000,000,000 tokens, where 256 were allowed, used up a month's budget."""
    of = budget(world, money_per_day=20.0, prompt_price=1.0, completion_price=10.0)
    for n_prompt, n_completion in ((9, 2_000_000_000), (2_000_000_000, 1)):
        reserved = reserve(world, of)
        assert reserved is not None
        with world.store.transaction():
            of.close(reserved, CloudOutcome(CloudKind.ANSWERED, CloudAnswer("A", "A", "big", 1.0, n_prompt, n_completion)))
        assert world.store.database.rows("SELECT micros FROM spending")[-1]["micros"] <= 2 * reserved.micros


def test_call_that_was_not_sent_is_uncounted_and_one_without_token_counts_is_not(world: World) -> None:
    of = budget(world, calls_per_day=1)
    for outcome in (None, CloudOutcome(CloudKind.OFFLINE)):
        reserved = reserve(world, of)
        with world.store.transaction():
            of.close(reserved, outcome)
    reserved = reserve(world, of)
    with world.store.transaction():
        of.close(reserved, CloudOutcome(CloudKind.TIMEOUT))
    assert reserve(world, of) is None


def test_each_endpoint_has_its_own_budget(world: World) -> None:
    assert reserve(world, budget(world, calls_per_day=1))
    other = Budget(world.store, "https://other", BudgetLimits(calls_per_day=1))
    assert reserve(world, other)


def test_without_a_limit_nothing_is_written(world: World) -> None:
    assert reserve(world, budget(world)) == Reservation(None) and world.store.database.rows("SELECT 1 FROM spending") == []


def test_question_over_budget_is_answered_locally_and_waits(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    limits = BudgetLimits(calls_per_day=1)
    with agent(home, SpokenModel(UNSURE), cloud.url, budget=limits) as one:
        first, second = (one.ask(Question(stem, ("x", "y", "z"))) for stem in ("first", "second"))
        assert (first.route, second.reason, second.provisional) == ("cloud", "over_budget", True)
        *_, drained = one.drain()
        assert isinstance(drained, Drained) and "budget for the cloud is used up" in drained.stopped and drained.waiting == 1
        assert len(cloud.requests) == 1 and one.outbox.list()[0].attempts == 0
        assert [replay(row).differences for row in one.store.decisions()] == [(), ()]
    with agent(home, SpokenModel(UNSURE), cloud.url, budget=BudgetLimits(calls_per_day=2)) as two:
        assert list(two.drain())[-1].answered == 1


def test_call_without_a_connection_spends_nothing(home: pathlib.Path) -> None:
    with agent(home, SpokenModel(UNSURE), "http://127.0.0.1:9/v1", budget=BudgetLimits(calls_per_day=1)) as one:
        for n in range(3):
            assert one.ask(Question(f"Q{n}", ("x", "y", "z"))).reason == "offline"
        list(one.drain())
        assert one.store.database.rows("SELECT 1 FROM spending") == []


def test_call_that_cannot_be_counted_is_not_made(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(UNSURE), cloud.url, budget=BudgetLimits(calls_per_day=9)) as one:
        with one.store.transaction() as db:
            db.execute("CREATE TRIGGER full BEFORE INSERT ON spending BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        decision = one.ask(Question("Q", ("x", "y", "z")))
        assert (decision.reason, decision.provisional, decision.queue_id) == ("cloud_error", True, 1) and cloud.requests == []
        assert decision.cloud_error == "the database cannot be written, so the budget for the cloud cannot be counted"


@pytest.mark.parametrize("url", [True, False])
def test_answer_that_nothing_can_end_is_not_called_provisional(home: pathlib.Path, cloud: LoopbackCloud, url: bool) -> None:
    """The disk is full: no row waits, and no decision is stored that could be upheld."""
    budget = BudgetLimits(calls_per_day=9)
    with agent(home, SpokenModel(UNSURE), cloud.url if url else None, budget=budget) as one:
        with one.store.transaction() as db:
            for table in ("spending", "outbox", "decisions"):
                db.execute(f"CREATE TRIGGER full_{table} BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        decision = one.ask(Question("Q", ("x", "y", "z")))
        assert (decision.persisted, decision.provisional, decision.queue_id, decision.route) == (False, False, None, "local")
        assert decision.reason == ("cloud_error" if url else "no_cloud") and cloud.requests == []


def test_call_stays_counted_after_a_crash(world: World) -> None:
    """The process is killed before the call is closed: the call may have been billed."""
    reserve(world, budget(world, calls_per_day=1))
    assert reserve(world, budget(world, calls_per_day=1)) is None


FORM = {"max_completion_tokens", "model", "messages"}  # what gpt_5 wants
MONEY = BudgetLimits(money_per_day=1.0, prompt_price=1.0, completion_price=10.0)


def test_each_sending_of_a_question_is_counted_at_its_own_limit(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    """Refused, refused, cut, answered: four requests."""
    cloud.respond = gpt_5
    with agent(home, SpokenModel(UNSURE), cloud.url, budget=MONEY) as one:
        assert one.ask(Question("first", ("x", "y", "z"))).route == "cloud" and len(cloud.requests) == 4
        spent = [row["micros"] for row in one.store.database.rows("SELECT micros FROM spending ORDER BY id")]
        limits = [request["body"].get("max_tokens") or request["body"]["max_completion_tokens"] for request in cloud.requests]
        assert limits == [256, 256, 256, 4096]
        assert [micros - spent[0] for micros in spent] == [10 * (limit - 256) for limit in limits]


def test_question_whose_next_sending_is_over_budget_waits(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    """It was dead. What was learned stays, so the next try needs fewer requests."""
    cloud.respond = gpt_5
    with agent(home, SpokenModel(UNSURE), cloud.url, budget=BudgetLimits(calls_per_day=2)) as one:
        decision = one.ask(Question("first", ("x", "y", "z")))
        assert decision.provisional and "budget" in (decision.cloud_error or "") and len(cloud.requests) == 2
        assert [(row.state, row.attempts) for row in one.outbox.list()] == [("ready", 0)]
        assert len(one.store.database.rows("SELECT 1 FROM spending")) == 2
    with agent(home, SpokenModel(UNSURE), cloud.url, budget=BudgetLimits(calls_per_day=4)) as two:
        assert list(two.drain())[-1].answered == 1 and len(cloud.requests) == 4


def test_budget_that_ends_inside_a_call_is_the_reason_and_no_fault_of_the_cloud(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    """It was "cloud_error", and five of them opened the breaker."""
    cloud.respond = lambda asked: completion("", "length")
    with agent(home, SpokenModel(UNSURE), cloud.url, budget=BudgetLimits(calls_per_day=1)) as one:
        decision = one.ask(Question("first", ("x", "y", "z")))
        assert (decision.reason, decision.provisional, len(cloud.requests)) == ("over_budget", True, 1)
        assert one.gate is not None and one.gate.breaker.health == Health() and one.gate.breaker.last_error is None
        assert [replay(row).differences for row in one.store.decisions()] == [()]


def test_next_process_reserves_and_sends_what_was_learned(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    cloud.respond = gpt_5
    with agent(home, SpokenModel(UNSURE), cloud.url) as one:
        assert one.ask(Question("first", ("x", "y", "z"))).route == "cloud"
        del cloud.requests[:]
    with agent(home, SpokenModel(UNSURE), cloud.url, budget=MONEY) as two:
        assert two.ask(Question("second", ("x", "y", "z"))).route == "cloud"
        (request,) = cloud.requests
        assert set(request["body"]) == FORM and request["body"]["max_completion_tokens"] == 4096
        assert two.store.database.rows("SELECT micros FROM spending")[0]["micros"] > 40_960


@pytest.mark.parametrize("row", ["{", '{"limit_name": "model", "raised_to": 9}', '{"at_most": -5, "extra": {"model": "x"}}', "[[", ""])
def test_damaged_memory_of_a_cloud_is_learned_again(home: pathlib.Path, cloud: LoopbackCloud, row: str) -> None:
    cloud.respond = gpt_5
    with agent(home, SpokenModel(UNSURE), cloud.url) as one:
        with one.store.transaction() as db:
            db.execute("INSERT OR REPLACE INTO clouds VALUES (?, ?)", (f"{cloud.url}/chat/completions big", row))
        assert one.ask(Question("first", ("x", "y", "z"))).route == "cloud" and len(cloud.requests) == 4
        assert one.ask(Question("second", ("x", "y", "z"))).route == "cloud" and len(cloud.requests) == 5


def test_extra_fields_are_reserved_as_tokens_too(world: World) -> None:
    limits = BudgetLimits(money_per_day=1.0, prompt_price=1.0)
    plain, large = (Budget(world.store, "https://cloud", limits, lambda n=n: Shape(extra={"note": "x" * n})) for n in (0, 500))
    for one in (plain, large):
        assert reserve(world, one)
    first, second = (row["micros"] for row in world.store.database.rows("SELECT micros FROM spending ORDER BY id"))
    assert second - first == 500
