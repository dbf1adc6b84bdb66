"""A database that cannot be used: questions are answered all the same, and the person is told why nothing is stored."""

import contextlib
import logging
import os
import pathlib
import re
import sqlite3
from collections.abc import Callable, Iterator

import pytest

from edge_agent.agent.agent import Agent
from edge_agent.core.config.limits import BudgetLimits
from edge_agent.core.errors import StorageError
from edge_agent.core.files import try_lock
from edge_agent.core.question import Question
from edge_agent.store import database
from edge_agent.store.store import Store
from tests.support.cloud_server import LoopbackCloud
from tests.support.spoken_model import SURE, UNSURE, SpokenModel, agent

QUESTION = Question("What is 12 + 7?", ("18", "19", "24"))


@contextlib.contextmanager
def locked(home: pathlib.Path) -> Iterator[str]:
    """Another program holds SQLite's exclusive lock."""
    Store(home / "edge-agent.db").close()
    with contextlib.closing(sqlite3.connect(home / "edge-agent.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield "in use by another program"


@contextlib.contextmanager
def mounted(home: pathlib.Path, options: str, why: str) -> Iterator[str]:
    home.mkdir(parents=True)
    if os.geteuid() or os.system(f"mount -t tmpfs -o {options} tmpfs {home} 2>/dev/null"):
        pytest.skip("only root can mount a file system")
    try:
        yield why
    finally:
        os.system(f"umount -l {home}")


def read_only(home: pathlib.Path) -> contextlib.AbstractContextManager[str]:
    return mounted(home, "ro", "Read-only file system")


def full(home: pathlib.Path) -> contextlib.AbstractContextManager[str]:
    return mounted(home, "size=8k", "disk is full|No space left")


@contextlib.contextmanager
def below_a_file(home: pathlib.Path) -> Iterator[str]:
    home.write_text("a file where the folder should be")
    yield "Not a directory|File exists"


@contextlib.contextmanager
def damaged_and_in_use(home: pathlib.Path) -> Iterator[str]:
    with Store(home / "edge-agent.db") as other:
        other.path.write_bytes(b"x" * 100 + other.path.read_bytes()[100:])
        yield "is damaged"


@contextlib.contextmanager
def being_checked(home: pathlib.Path) -> Iterator[str]:
    """Another process holds the marker alone, as one that checks or repairs the file."""
    Store(home / "edge-agent.db").close()
    handle = os.open(home / "edge-agent.db.open", os.O_RDWR)
    assert try_lock(handle)
    try:
        yield "checking or repairing"
    finally:
        os.close(handle)


TROUBLES = [locked, read_only, full, below_a_file, damaged_and_in_use, being_checked]


def tolerant(path: pathlib.Path) -> Store:
    return Store(path, must_open=False)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_question_is_answered_and_the_reason_is_said_once(
    trouble: Callable[[pathlib.Path], contextlib.AbstractContextManager[str]], home: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    with trouble(home) as why, Agent.open(model="demo", policy="only_local") as one:
        decisions = [one.ask(QUESTION), one.ask(QUESTION)]
    for decision in decisions:
        assert decision.answer in "ABC" and not decision.persisted and decision.queue_id is None
        assert re.search(why, decision.storage_error), decision.storage_error
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1 and "this answer is not stored" in said[0] and re.search(why, said[0])


@pytest.mark.parametrize("trouble", [below_a_file, read_only])
def test_cloud_is_asked_without_a_database_unless_there_is_a_budget(
    trouble: Callable[[pathlib.Path], contextlib.AbstractContextManager[str]], home: pathlib.Path, cloud: LoopbackCloud
) -> None:
    with trouble(home):
        with agent(home, SpokenModel(UNSURE), cloud.url, store=tolerant) as one:
            decision = one.ask(QUESTION)
            assert decision.route == "cloud" and not decision.persisted and not decision.provisional
        asked = len(cloud.requests)
        assert asked == 1
        with agent(home, SpokenModel(UNSURE), cloud.url, store=tolerant, budget=BudgetLimits(calls_per_day=5)) as two:
            decision = two.ask(QUESTION)
        assert (decision.route, decision.reason, decision.provisional, decision.queue_id) == ("local", "cloud_error", False, None)
        assert "cannot be counted" in decision.cloud_error and len(cloud.requests) == asked


def test_breaker_works_without_a_database(home: pathlib.Path) -> None:
    """Its state is kept in memory, so a cloud that is down is not called with every question."""
    home.write_text("")
    with agent(home, SpokenModel(UNSURE), "http://127.0.0.1:9/v1", store=tolerant) as one:
        errors = [one.ask(QUESTION).cloud_error for _ in range(7)]
    assert "will not be called for" in errors[-1]


def test_agent_stores_again_when_the_database_can_be_opened(home: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_OPEN_AGAIN_S", 0.0)
    home.write_text("")
    with agent(home, SpokenModel(SURE), store=tolerant) as one:
        assert not one.ask(QUESTION).persisted
        home.unlink()
        assert one.ask(QUESTION).persisted and one.ask(QUESTION).recalled


def test_what_needs_the_database_says_so(home: pathlib.Path) -> None:
    home.write_text("")
    with agent(home, SpokenModel(SURE), "http://127.0.0.1:9/v1", store=tolerant) as one:
        for call in (lambda: list(one.drain()), lambda: one.ending("x"), lambda: next(one.endings())):
            with pytest.raises(StorageError, match=r"cannot be used|cannot be opened"):
                call()


def test_closed_database_is_not_blamed_on_the_disk(home: pathlib.Path) -> None:
    store = Store(home / "edge-agent.db")
    store.close()
    with pytest.raises(StorageError, match="is closed; open it again"):
        store.count_decisions()


@pytest.mark.parametrize("is_replaced", [True, False])
def test_file_that_is_replaced_or_deleted_while_it_is_open_is_opened_again(home: pathlib.Path, is_replaced: bool) -> None:
    path, copy = home / "edge-agent.db", home / "copy.db"
    with agent(home, SpokenModel(SURE)) as one:
        one.ask(Question("one", ("x", "y", "z")))
        one.store.database.copy_to(copy)
        if is_replaced:
            copy.replace(path)
        else:
            path.unlink()
        assert one.ask(Question("two", ("x", "y", "z"))).persisted
    with Store(path) as store:
        assert [row["stem"] for row in store.log(9)] == (["two", "one"] if is_replaced else ["two"])
