"""The queue: states, joining, backoff, time to live, size limit, dead rows."""

import contextlib
import json
import multiprocessing
import pathlib
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from edge_agent.cloud.queue import Outbox
from edge_agent.core.config.limits import DAY_S
from edge_agent.core.errors import BadQuestion, StorageError
from edge_agent.core.outcome import CloudKind
from edge_agent.core.question import Question
from edge_agent.store.device_time import Moment
from edge_agent.store.store import Store
from tests.support.mutation import catches
from tests.support.paths import ROOT
from tests.support.queue_world import (
    LIMITS,
    ClaimsTwice,
    DropsOldest,
    ForgetsDecisions,
    FreeAttempts,
    Grows,
    IgnoresBackoff,
    NeverExpires,
    PaysTwice,
    World,
    answer,
    fail,
)


@pytest.fixture
def world(tmp_path: pathlib.Path) -> Iterator[World]:
    made = World(tmp_path / "home" / "edge-agent.db")
    yield made
    made.store.close()


@catches(Outbox, PaysTwice)
def test_second_question_joins_the_waiting_row(part, world: World) -> None:
    outbox = world.outbox(part)
    first = world.put(outbox, "Q")
    assert world.put(outbox, "Q") == first
    row = outbox.claim()
    assert world.put(outbox, "Q") == first  # also while it is being sent
    answer(outbox, row)
    assert world.put(outbox, "Q") != first  # answered: asked again, it is a new row


@catches(Outbox, Grows, DropsOldest)
def test_full_queue_refuses_new_questions_and_drops_nothing(part, world: World) -> None:
    outbox = world.outbox(part)
    assert [world.put(outbox, f"Q{n}") for n in range(7)] == [1, 2, 3, 4, 5, None, None]
    assert world.put(outbox, "Q1") == 2  # joining needs no room
    assert [row.state for row in outbox.list()] == ["ready"] * 5
    big = world.outbox(part, LIMITS._replace(max_rows=100, max_bytes=500))
    assert world.put(big, "x" * 1000) is None and world.put(big, "y") == 6


@catches(Outbox, NeverExpires, ForgetsDecisions)
def test_row_expires_after_its_time_to_live_and_is_never_sent(part, world: World) -> None:
    outbox = world.outbox(part)
    world.put(outbox, "old")
    world.wait(LIMITS.ttl_s - 1)
    world.put(outbox, "young")
    world.wait(2)
    assert outbox.claim().queue_id == 2 and outbox.claim() is None
    assert [row.state for row in outbox.list()] == ["expired", "sending"]
    assert world.endings() == ["abandoned", None]
    assert world.put(outbox, "old") == 3  # asked again: a new row


@catches(Outbox, IgnoresBackoff)
def test_failed_row_waits_for_its_backoff_unless_a_person_asks(part, world: World) -> None:
    outbox = world.outbox(part)
    world.put(outbox, "Q")
    for wait_s in (2, 4, 8):
        row = outbox.claim(due_only=True)
        fail(outbox, row, CloudKind.FAILED, "HTTP 500")
        assert outbox.claim(due_only=True) is None
        assert outbox.next_due_in_s() == wait_s
        world.wait(wait_s)
    assert outbox.claim(due_only=True).attempts == 3


def test_early_try_costs_no_attempt_unless_the_failure_is_final(world: World) -> None:
    outbox = world.outbox()
    world.put(outbox, "Q")
    fail(outbox, outbox.claim(), CloudKind.FAILED, "HTTP 500")
    for _ in range(20):
        fail(outbox, outbox.claim(), CloudKind.FAILED, "HTTP 500")
    assert [(row.state, row.attempts) for row in outbox.list()] == [("ready", 1)]
    assert fail(outbox, outbox.claim(), CloudKind.REJECTED, "HTTP 400") == "dead"


@catches(Outbox, FreeAttempts)
def test_row_is_dead_and_its_decision_abandoned_after_all_attempts(part, world: World) -> None:
    outbox = world.outbox(part)
    world.put(outbox, "Q")
    for _ in range(8):
        row = outbox.claim(due_only=True)
        assert row and row.state == "sending"
        fail(outbox, row, CloudKind.TIMEOUT, "no answer")
        world.wait(1000)
    assert [(row.state, row.attempts, row.last_error) for row in outbox.list()] == [("dead", 8, "no answer")]
    assert world.endings() == ["abandoned"] and outbox.claim() is None


@catches(Outbox, ClaimsTwice)
def test_claimed_row_cannot_be_claimed_again(part, world: World) -> None:
    outbox = world.outbox(part)
    world.put(outbox, "Q")
    assert outbox.claim() is not None and outbox.claim() is None


def test_dead_row_can_be_read_retried_and_dropped(world: World) -> None:
    outbox = world.outbox()
    world.put(outbox, "Q")
    fail(outbox, outbox.claim(), CloudKind.REJECTED, "HTTP 400")
    assert world.endings() == ["abandoned"]
    again = outbox.retry(1)
    assert (again.state, again.attempts, again.last_error) == ("ready", 0, "HTTP 400") and world.endings() == [None]
    fail(outbox, outbox.claim(), CloudKind.REJECTED, "HTTP 400")
    dropped = outbox.drop(1)
    assert dropped.state == "cancelled" and dropped.question is None and world.endings() == ["abandoned"]
    with pytest.raises(BadQuestion, match="no queue row 9"):
        outbox.drop(9)


def test_retried_row_gets_a_new_time_to_live(world: World) -> None:
    outbox = world.outbox()
    world.put(outbox, "Q")
    world.wait(LIMITS.ttl_s + 1)
    assert outbox.claim() is None
    outbox.retry(1)
    world.wait(LIMITS.ttl_s - 1)
    assert outbox.claim() is not None


def test_row_that_is_answered_being_sent_or_waits_as_another_row_is_not_changed(world: World) -> None:
    outbox = world.outbox()
    world.put(outbox, "Q")
    with Store(world.store.path) as other, Outbox(other).drainer():
        row = outbox.claim()
        for change in (outbox.retry, outbox.drop):
            with pytest.raises(BadQuestion, match="being sent"):
                change(1)
    fail(outbox, row, CloudKind.REJECTED, "HTTP 400")
    assert world.put(outbox, "Q") == 2
    with pytest.raises(BadQuestion, match="already waits as row 2"):
        outbox.retry(1)
    row = outbox.claim()
    answer(outbox, row)
    for change in (outbox.retry, outbox.drop):
        with pytest.raises(BadQuestion, match="answered"):
            change(2)


def test_dead_rows_are_cancelled_after_their_time(world: World) -> None:
    outbox = world.outbox()
    world.put(outbox, "Q")
    fail(outbox, outbox.claim(), CloudKind.REJECTED, "HTTP 400")
    for days, state in ((36, "dead"), (2, "cancelled")):
        world.wait(days * DAY_S)
        with outbox.drainer():
            assert outbox.list()[0].state == state


def test_question_is_sent_as_it_was_queued_for_sending(world: World) -> None:
    outbox = world.outbox()
    asked, sent = Question("My phone is +7 701 1234567", ("a", "b")), Question("My phone is [phone]", ("a", "b"))
    with world.store.transaction():
        world.store.put_question(asked)
        outbox.put(asked, send=sent)
    row = outbox.claim()
    assert row.question == sent and "701" not in json.dumps(row.payload) and row.fingerprint == asked.fingerprint


class Careless(Outbox):
    """Mutant: takes the half-sent rows without a lock."""

    def drainer(self):
        with self.store.transaction() as db:
            db.execute("UPDATE outbox SET state = 'ready' WHERE state = 'sending'")
        return contextlib.nullcontext()


@catches(Outbox, Careless, fails_with=pytest.fail.Exception)
def test_second_drainer_is_refused_while_the_first_one_runs(part, world: World) -> None:
    outbox = world.outbox(part)
    world.put(outbox, "Q")
    with outbox.drainer():
        outbox.claim()
        with Store(world.store.path) as other, pytest.raises(StorageError, match="Another process"), part(other).drainer():
            pass
    with outbox.drainer():
        assert outbox.list()[0].state == "ready"


@pytest.mark.parametrize("jump_s", [-86_400.0, -50 * 365 * 86_400.0, 86_400.0])
def test_jump_of_the_wall_clock_expires_nothing_and_delays_nothing(world: World, jump_s: float) -> None:
    """The mutant, a clock that trusts the wall clock, is in tests/store/test_device_time.py."""
    outbox = world.outbox()
    world.put(outbox, "Q")
    fail(outbox, outbox.claim(), CloudKind.FAILED, "HTTP 500")
    world.moment = replace(world.moment, wall=world.moment.wall + jump_s, uptime_s=world.moment.uptime_s + 3)
    assert outbox.claim(due_only=True) is not None


def test_start_with_a_clock_in_the_past_expires_nothing_and_sends_waiting_rows(world: World) -> None:
    outbox = world.outbox()
    world.put(outbox, "Q")
    fail(outbox, outbox.claim(), CloudKind.FAILED, "HTTP 500")
    world.moment = Moment("next boot", 5.0, 0.0, False)
    again = world.outbox()
    assert again.claim(due_only=True) is not None and again.list()[0].state == "sending"


def test_row_of_an_older_version_keeps_its_attempts_and_gets_a_full_time_to_live(tmp_path: pathlib.Path) -> None:
    """tests/data/schema-2.db was written with schema version 2."""
    path = tmp_path / "edge-agent.db"
    path.write_bytes((ROOT / "tests" / "data" / "schema-2.db").read_bytes())
    world = World(path)
    outbox = world.outbox()
    rows = outbox.list()
    assert [(row.queue_id, row.state, row.attempts) for row in rows] == [
        (1, "done", 1), (2, "done", 1), (3, "sending", 0), (4, "ready", 2), (5, "ready", 0),
    ]  # fmt: skip
    assert world.endings() == ["upheld", "overturned", None, None, None, None, None]
    assert world.store.database.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    with outbox.drainer():
        claimed = [outbox.claim(), outbox.claim(), outbox.claim()]
    assert [row.queue_id for row in claimed] == [3, 4, 5] and all(row.question is None for row in claimed)
    assert [world.store.question(row.fingerprint).stem for row in claimed] == ["half-sent?", "failed?", "waiting?"]
    world.store.close()


def forbid(world: World, outbox: Outbox, stem: str) -> None:
    """What `ask --never-send` does to the queue."""
    with world.store.transaction():
        outbox.cancel_waiting(Question(stem, ("a", "b")))


@pytest.mark.parametrize("kind", [CloudKind.PAUSED, CloudKind.FAILED, CloudKind.REJECTED, "released", "crashed"])
def test_question_that_is_forbidden_while_it_is_sent_is_never_sent_again(world: World, kind: CloudKind | str) -> None:
    outbox = world.outbox()
    world.put(outbox, "Q")
    row = outbox.claim()
    forbid(world, outbox, "Q")
    if kind == "released":
        outbox.release(row, "interrupted")
    elif kind == "crashed":
        with outbox.drainer():
            pass
    else:
        assert fail(outbox, row, kind) == "cancelled"
    ended = outbox.list()[0]
    assert (ended.state, ended.payload, ended.last_error) == ("cancelled", None, "never_send") and world.endings() == ["abandoned"]


def test_question_that_is_forbidden_while_it_is_sent_keeps_its_answer_and_may_be_allowed_again(world: World) -> None:
    outbox = world.outbox()
    for _ in range(2):
        world.put(outbox, "Q")
        row = outbox.claim()
        forbid(world, outbox, "Q")
        answer(outbox, row)
    world.put(outbox, "R")
    row = outbox.claim()
    forbid(world, outbox, "R")
    assert world.put(outbox, "R") == row.queue_id  # asked once more, without the flag
    assert fail(outbox, row, CloudKind.FAILED) == "ready"
    assert [row.state for row in outbox.list()] == ["done", "done", "ready"]


def test_forbidden_question_that_a_person_retries_is_sent_again(world: World) -> None:
    outbox = world.outbox()
    world.put(outbox, "Q")
    forbid(world, outbox, "Q")
    outbox.retry(1)
    assert fail(outbox, outbox.claim(), CloudKind.FAILED) == "ready"


@pytest.mark.parametrize(("verb", "state"), [("retry", "ready"), ("drop", "cancelled")])
def test_row_that_a_dead_drainer_left_half_sent_is_retried_or_dropped(world: World, verb: str, state: str) -> None:
    outbox = world.outbox()
    world.put(outbox, "Q")
    outbox.claim()
    assert getattr(outbox, verb)(1).state == state


def test_forked_child_does_not_keep_the_drain_lock(world: World) -> None:
    outbox = world.outbox()
    context = multiprocessing.get_context("fork")
    child = context.Process(target=time.sleep, args=(60,))
    with outbox.drainer():
        child.start()
    try:
        with outbox.drainer():
            pass
    finally:
        child.kill()
        child.join()


def in_a_fork(outbox: Outbox, entered: contextlib.AbstractContextManager[None]) -> None:
    entered.__exit__(None, None, None)  # as a child does that leaves the block that it was forked in


def test_forked_child_does_not_release_the_drain_lock_of_its_parent(world: World) -> None:
    outbox = world.outbox()
    entered = outbox.drainer()
    with entered:
        child = multiprocessing.get_context("fork").Process(target=in_a_fork, args=(outbox, entered))
        child.start()
        child.join(30)
        assert child.exitcode == 0
        with Store(world.store.path) as other, pytest.raises(StorageError, match="Another process"), Outbox(other).drainer():
            pass
