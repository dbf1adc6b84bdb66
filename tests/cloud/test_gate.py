"""The gate to a cloud: a call is reserved before it is made, and its cost and outcome are recorded afterwards."""

import pathlib
from collections.abc import Iterator

import pytest

from edge_agent.cloud.budget import Reservation
from edge_agent.cloud.gate import Gate
from edge_agent.cloud.wire.client import CloudModel
from edge_agent.cloud.wire.request import PROMPT_VERSION
from edge_agent.core.config.limits import BudgetLimits
from edge_agent.core.errors import CloudUnavailable, StorageError
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer, CloudKey
from tests.support.cloud_server import LoopbackCloud
from tests.support.mutation import catches
from tests.support.queue_world import World
from tests.support.spoken_model import UNSURE, SpokenModel, agent

QUESTION = Question("Q", ("a", "b"))
ANSWERED = CloudOutcome(CloudKind.ANSWERED, CloudAnswer("A", "A", "big", 1.0, 70, 2))
FAILED = CloudOutcome(CloudKind.FAILED, error="the cloud answered HTTP 500")
PRICED = BudgetLimits(money_per_day=1.0, prompt_price=1.0, completion_price=2.0)


@pytest.fixture
def world(tmp_path: pathlib.Path) -> Iterator[World]:
    made = World(tmp_path / "edge-agent.db")
    yield made
    made.store.close()


def gate(world: World, limits: BudgetLimits, kind: type[Gate] = Gate) -> Gate:
    return kind(world.store, CloudModel("https://cloud.test/v1", "big", "sk-key"), limits)


def note(of: Gate, world: World, reservation: Reservation | None, outcome: CloudOutcome | None) -> None:
    with world.store.transaction():
        of.note(reservation, outcome)


def spent(world: World) -> list[int]:
    """The stored cost of each counted call, in millionths of the currency."""
    return [row["micros"] for row in world.store.database.rows("SELECT micros FROM spending ORDER BY rowid")]


class Forgets(Gate):
    """Mutant: does not record how a call ended."""

    def note(self, reservation: Reservation | None, outcome: CloudOutcome | None) -> None:
        pass


def test_refused_reservation_makes_no_call(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(UNSURE), cloud.url, budget=BudgetLimits(calls_per_day=0)) as one:
        assert one.gate is not None
        assert one.gate.reserve(QUESTION) is None
        assert one.ask(Question("Q", ("x", "y", "z"))).reason == "over_budget"
        list(one.drain())
    assert cloud.requests == []


def test_reservation_is_stored_before_the_call(world: World) -> None:
    reservation = gate(world, PRICED).reserve(QUESTION)
    assert reservation is not None and reservation.number is not None
    assert len(spent(world)) == 1


def test_reservation_that_cannot_be_stored_is_refused(world: World) -> None:
    with world.store.transaction() as db:
        db.execute("CREATE TRIGGER full BEFORE INSERT ON spending BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    with pytest.raises(StorageError, match="disk full"):
        gate(world, PRICED).reserve(QUESTION)


def test_without_limits_every_call_is_allowed_and_none_is_counted(world: World) -> None:
    assert gate(world, BudgetLimits()).reserve(QUESTION) == Reservation(None)
    assert spent(world) == []


@catches(Gate, Forgets)
def test_note_corrects_the_cost_of_an_answered_call(part, world: World) -> None:
    of = gate(world, PRICED, part)
    note(of, world, of.reserve(QUESTION), ANSWERED)
    assert spent(world) == [74]  # 70 prompt tokens at 1, 2 completion tokens at 2


@catches(Gate, Forgets)
def test_note_tells_the_breaker_how_a_call_ended(part, world: World) -> None:
    of = gate(world, PRICED, part)
    for _ in range(5):
        note(of, world, of.reserve(QUESTION), FAILED)
    refusal = of.breaker.refusal(1.0)
    assert refusal is not None
    assert refusal[0] is CloudKind.PAUSED and "HTTP 500" in refusal[1]
    assert len(spent(world)) == 5  # each may have been billed


@catches(Gate, Forgets)
def test_call_that_was_not_made_is_uncounted_and_tells_the_breaker_nothing(part, world: World) -> None:
    of = gate(world, PRICED, part)
    note(of, world, of.reserve(QUESTION), FAILED)
    before = of.breaker.health
    note(of, world, of.reserve(QUESTION), None)
    assert len(spent(world)) == 1
    assert of.breaker.health == before


def test_note_without_a_reservation_still_tells_the_breaker(world: World) -> None:
    of = gate(world, PRICED)
    note(of, world, None, CloudOutcome(CloudKind.LIMITED, error="HTTP 429", retry_after_s=60.0))
    assert of.breaker.wait_s() == 60.0


def test_answers_are_stored_by_question_model_endpoint_and_prompt_version(world: World) -> None:
    of = gate(world, PRICED)
    assert of.key("f") == CloudKey("f", "big", "https://cloud.test/v1/chat/completions", PROMPT_VERSION)


def test_what_is_counted_never_lies_in_the_future_after_a_restart(tmp_path: pathlib.Path) -> None:
    """A reservation and the breaker's state rest on device time, so they store it, too."""
    world = World(tmp_path / "edge-agent.db")
    world.wait(10 * 86_400.0)
    of = gate(world, BudgetLimits(calls_per_day=1))
    reserved = of.reserve(QUESTION)
    for _ in range(5):
        note(of, world, None, FAILED)
    world.restart()
    after = gate(world, BudgetLimits(calls_per_day=1))
    now_s = world.store.clock.now_s()
    assert reserved is not None and after.reserve(QUESTION) is None
    assert world.store.database.rows("SELECT 1 FROM spending WHERE at_s > ?", (now_s,)) == []
    assert 0 < after.breaker.wait_s() <= 30
    world.store.close()


def test_call_without_a_connection_costs_nothing_under_only_cloud(home: pathlib.Path) -> None:
    with agent(home, SpokenModel(UNSURE), "http://127.0.0.1:9/v1", policy="only_cloud", budget=BudgetLimits(calls_per_day=2)) as one:
        for n in range(4):
            with pytest.raises(CloudUnavailable, match="no connection"):
                one.ask(Question(f"Q{n}", ("x", "y", "z")))
        assert one.store.database.rows("SELECT 1 FROM spending") == []
