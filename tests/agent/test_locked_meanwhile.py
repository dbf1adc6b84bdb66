"""Another program locks the database for a while: what runs for long waits for it and goes on."""

import itertools
import pathlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from edge_agent.agent import endings
from edge_agent.cli.commands.queue import _Report
from edge_agent.cloud.drain import Drained, Drainer
from edge_agent.cloud.queue_row import QueueRow
from edge_agent.core.config.limits import BudgetLimits
from edge_agent.core.errors import StorageBusy, StorageError
from edge_agent.core.question import Question
from edge_agent.core.records import LevelReading, Reading
from edge_agent.store.file import opening
from tests.support.cloud_server import LoopbackCloud
from tests.support.spoken_model import UNSURE, SpokenModel, agent


class Lock:
    """SQLite's exclusive lock, held by another connection."""

    def __init__(self, path: pathlib.Path) -> None:
        self.other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def take(self) -> None:
        if not self.other.in_transaction:
            self.other.execute("BEGIN EXCLUSIVE")

    def release(self) -> None:
        if self.other.in_transaction:
            self.other.execute("ROLLBACK")


@pytest.fixture
def quickly_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "BUSY_TIMEOUT_MS", 50)


@pytest.fixture
def lock(home: pathlib.Path) -> Iterator[Lock]:
    agent(home, SpokenModel(UNSURE)).close()
    made = Lock(home / "edge-agent.db")
    yield made
    made.other.close()


def question(stem: str) -> Question:
    return Question(stem, ("x", "y", "z"))


@pytest.mark.usefixtures("quickly_busy")
def test_watch_goes_on_after_a_lock_between_and_within_passes(
    home: pathlib.Path, lock: Lock, cloud: LoopbackCloud, caplog: pytest.LogCaptureFixture
) -> None:
    with agent(home, SpokenModel(UNSURE)) as asker:
        for stem in ("one", "two"):
            asker.ask(question(stem))
    replies = itertools.count()
    cloud.reply = lambda body: (lock.take() if next(replies) == 0 else None) or "B"  # locked before the first outcome is stored
    with agent(home, SpokenModel(UNSURE), cloud.url) as one:
        sleeps = itertools.count()

        def sleep(_: float) -> None:
            if next(sleeps) in (0, 2):
                lock.release()
            else:
                lock.take()

        steps, answered = Drainer(one.outbox, one.gate, sleep=sleep).watch(), 0
        for step in steps:
            answered += step.answered if isinstance(step, Drained) else 0
            if answered == 2:
                break
        steps.close()
        assert [row.state for row in one.outbox.list()] == ["done", "done"] and len(cloud.requests) == 3
    assert "the queue is not drained now" in caplog.text and "in use by another program" in caplog.text


@pytest.mark.usefixtures("quickly_busy")
def test_watch_that_starts_while_the_database_is_locked_waits(home: pathlib.Path, lock: Lock, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(UNSURE)) as asker:
        asker.ask(question("one"))
    with agent(home, SpokenModel(UNSURE), cloud.url) as one:
        lock.take()
        steps = Drainer(one.outbox, one.gate, sleep=lambda _: lock.release()).watch()
        assert isinstance(next(steps), QueueRow)
        steps.close()


def test_second_watch_is_still_refused(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(UNSURE), cloud.url) as one:
        one.ask(question("one"))
    with agent(home, SpokenModel(UNSURE), cloud.url) as one, one.outbox.drainer(), pytest.raises(StorageError, match="Another process"):
        next(one.watch())


@pytest.mark.usefixtures("quickly_busy")
def test_follow_and_wait_go_on_after_a_lock(home: pathlib.Path, lock: Lock, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(UNSURE)) as one:
        decision = one.ask(question("one"))
        found = endings.endings(one.store, 0, poll_every_s=0.01)
        lock.take()
        with pytest.raises(StorageBusy):
            one.store.endings(0)
        threading.Timer(0.4, lock.release).start()
        drained = threading.Timer(0.8, lambda: list(drain(home, cloud)))
        drained.start()
        assert next(found).decision_id == decision.decision_id
        drained.join()
        lock.take()
        with pytest.raises(StorageBusy):
            one.wait(decision.decision_id, 0.01)  # its state was never read
        lock.release()
        assert one.wait(decision.decision_id).ending == "overturned"


@pytest.mark.usefixtures("quickly_busy")
@pytest.mark.parametrize("after", [0, 99])  # 99: a number of another file
def test_follow_that_starts_while_the_database_is_locked_waits(home: pathlib.Path, lock: Lock, cloud: LoopbackCloud, after: int) -> None:
    with agent(home, SpokenModel(UNSURE)) as one:
        decision = one.ask(question("one"))
        list(drain(home, cloud))
        lock.take()
        with pytest.raises(StorageBusy):
            one.endings()  # what is new, cannot be known
        assert list(one.endings(after, timeout_s=0.2)) == []
        found = one.endings(after)
        threading.Timer(0.4, lock.release).start()
        assert next(found).decision_id == decision.decision_id


def drain(home: pathlib.Path, cloud: LoopbackCloud) -> Iterator[object]:
    with agent(home, SpokenModel(UNSURE), cloud.url) as one:
        yield from one.drain()


@pytest.mark.usefixtures("quickly_busy")
def test_what_a_drain_reports_under_a_lock_does_not_end_it(home: pathlib.Path, lock: Lock, capsys: pytest.CaptureFixture[str]) -> None:
    with agent(home, SpokenModel(UNSURE), "http://127.0.0.1:9/v1") as one:
        one.ask(question("one"))
        report, row = _Report(one, as_json=False), one.outbox.row(1)
        report.sends(row)
        lock.take()
        report.passed(Drained(1, 0, 0, None), line=True)
        lock.release()
    assert "unknown: the row cannot be read now" in capsys.readouterr().err


@pytest.mark.parametrize("budget", [BudgetLimits(), BudgetLimits(calls_per_day=9)])
def test_answer_waits_once_for_a_lock_and_not_at_each_step(
    home: pathlib.Path, lock: Lock, cloud: LoopbackCloud, budget: BudgetLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "BUSY_TIMEOUT_MS", 1000)
    with agent(home, InAThread(UNSURE), cloud.url, budget=budget) as one:
        lock.take()
        started = time.monotonic()
        decision = one.ask(question("one"))
        assert time.monotonic() - started < 1.9 and not decision.persisted and "in use by another program" in (decision.storage_error or "")
        if budget.is_set:
            assert "another program locks the database" in (decision.cloud_error or "")
        else:
            assert decision.route == "cloud"
        lock.release()
        assert one.ask(question("two")).persisted


def test_answers_to_many_at_once_wait_no_longer_for_a_lock_than_one(
    home: pathlib.Path, lock: Lock, cloud: LoopbackCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "BUSY_TIMEOUT_MS", 1000)
    stop = threading.Event()
    with agent(home, SpokenModel(UNSURE), cloud.url, budget=BudgetLimits(calls_per_day=9)) as one, ThreadPoolExecutor(10) as threads:
        following = threads.submit(lambda: list(one.endings(0, stop)))
        draining = threads.submit(lambda: list(one.watch(stop)))
        lock.take()

        def ask(stem: str) -> float:
            started = time.monotonic()
            assert not one.ask(question(stem)).persisted
            return time.monotonic() - started

        try:
            assert max(threads.map(ask, "abcdefgh")) < 1.9
        finally:
            stop.set()
            lock.release()
        assert (following.result(), draining.result()) == ([], [])


@pytest.mark.parametrize("is_released", [True, False])
def test_models_thread_does_not_wait_for_a_lock(
    home: pathlib.Path, lock: Lock, cloud: LoopbackCloud, monkeypatch: pytest.MonkeyPatch, is_released: bool
) -> None:
    """Others wait for the model: the call is started by the thread of the one who asked."""
    monkeypatch.setattr(opening, "BUSY_TIMEOUT_MS", 1000)

    class MeetsTheLock(SpokenModel):
        def read_all(self, questions: Sequence[Question], on_level: Callable[[int, LevelReading], None]) -> list[Reading]:
            lock.take()
            started = time.monotonic()
            on_level(0, self.reading)
            assert time.monotonic() - started < 0.9
            if is_released:
                threading.Timer(0.2, lock.release).start()
            return [self.reading]

    with agent(home, MeetsTheLock(UNSURE), cloud.url, budget=BudgetLimits(calls_per_day=9)) as one:
        decision = one.ask(question("one"))
        assert (decision.route, decision.persisted) == (("cloud", True) if is_released else ("local", False))
        assert len(cloud.requests) == is_released
        lock.release()


class InAThread(SpokenModel):
    """Says its level on a thread of its own, as the real one does."""

    def read_all(self, questions: Sequence[Question], on_level: Callable[[int, LevelReading], None]) -> list[Reading]:
        thread = threading.Thread(target=on_level, args=(0, self.reading))
        thread.start()
        thread.join()
        return [self.reading]
