"""A forked child: it gets an error at once instead of waiting for ever, and its parent goes on."""

import multiprocessing
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from edge_agent.agent.agent import Agent
from edge_agent.core.errors import EdgeAgentError, StorageError
from edge_agent.core.question import Question
from edge_agent.engine.local_model import LocalModel
from edge_agent.store.store import Store

QUESTION = Question("What is 12 + 7?", ("18", "19", "24"))


def in_a_child(work: Callable[[], Any], within_s: float = 10.0) -> str:
    """What the work returns or raises in a forked process, as text."""

    def run(results: Any) -> None:
        started = time.monotonic()
        try:
            said = str(work())
        except EdgeAgentError as error:
            said = f"{type(error).__name__}: {error}"
        results.put((said, time.monotonic() - started))

    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=run, args=(results,))
    child.start()
    child.join(within_s)
    if child.is_alive():
        child.kill()
        raise AssertionError("the child waits for ever")
    assert child.exitcode == 0
    said, took_s = results.get()
    assert took_s < within_s
    return str(said)


@pytest.mark.parametrize("asked_before", [False, True])
def test_forked_child_gets_an_error_within_a_second_and_the_parent_goes_on(home: pathlib.Path, asked_before: bool) -> None:
    with Agent.open(model="demo") as one:
        if asked_before:
            one.ask(QUESTION)
        said = in_a_child(lambda: one.ask(QUESTION, refresh=True).answer, within_s=1.0)
        assert said == "ModelError: This agent was opened before this process was forked; open another agent in this process."
        assert one.ask(QUESTION, refresh=True).persisted
        assert "opened before this process was forked" in in_a_child(one.store.count_decisions)
        in_a_child(one.close)  # closes nothing of the parent's
        assert one.ask(QUESTION, refresh=True).persisted and one.store.count_decisions() == 2 + asked_before


def test_forked_child_can_open_an_agent_of_its_own(home: pathlib.Path) -> None:
    def ask() -> str:
        with Agent.open(model="demo") as own:
            decision = own.ask(QUESTION, refresh=True)
        return f"{decision.answer} {decision.persisted}"

    with Agent.open(model="demo") as one:
        answer = one.ask(QUESTION).answer
        assert in_a_child(ask) == f"{answer} True"
        assert one.ask(QUESTION, refresh=True).answer == answer and one.store.count_decisions() == 3
        assert one.store.database.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]


def test_forked_child_does_not_wait_for_the_models_thread(demo_model: LocalModel) -> None:
    for use in (lambda: demo_model.read(QUESTION), lambda: demo_model.generate(QUESTION), lambda: demo_model.draft("What", False)):
        assert in_a_child(use, within_s=1.0).startswith("ModelError: The model was opened before this process was forked")
    assert in_a_child(demo_model.close) == "None"
    assert demo_model.read(QUESTION).answer in "ABC"


def test_fork_waits_for_a_transaction_of_another_thread(home: pathlib.Path) -> None:
    """Otherwise the child's copy of SQLite would believe that it holds the parent's lock."""
    import threading

    with Store(home / "edge-agent.db") as store:
        inside, seen = threading.Event(), []

        def write() -> None:
            with store.transaction() as db:
                inside.set()
                time.sleep(0.3)
                db.execute("INSERT INTO marks (name, value) VALUES ('written', 1)")
            seen.append("committed")

        thread = threading.Thread(target=write)
        thread.start()
        inside.wait()

        def own() -> int:
            with Store(home / "edge-agent.db") as mine, mine.transaction() as db:
                return int(db.execute("SELECT count(*) FROM marks WHERE name = 'written'").fetchone()[0])

        assert in_a_child(own) == "1" and seen == ["committed"]
        thread.join()


def test_lock_of_the_parent_ends_with_the_parent(home: pathlib.Path) -> None:
    """A child that lives on does not keep the parent's marker, so the next process is alone again."""
    store = Store(home / "edge-agent.db")
    reading, writing = os.pipe()
    there, ready = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.write(ready, b"x")
        os.read(reading, 1)
        os._exit(0)
    os.read(there, 1)
    store.close()
    with Store(home / "edge-agent.db") as again:
        assert again.database._marker.alone  # of no interest to callers, and what decides about repairs
    os.close(writing)
    os.waitpid(child, 0)


def test_closed_parent_is_still_closed_in_the_child(home: pathlib.Path) -> None:
    store = Store(home / "edge-agent.db")
    store.close()
    assert "is closed" in in_a_child(store.count_decisions)
    with pytest.raises(StorageError):
        store.count_decisions()
