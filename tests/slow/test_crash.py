"""SIGKILL at every statement of put, claim, settle, fail and migrate: the file is as before the operation or as after it.

Our code can be killed between any two calls of SQLite, so each statement is a place to test. What happens inside a call is
SQLite's own promise; tests/slow/test_crash_load.py tests it with kills at random moments.
"""

import contextlib
import itertools
import os
import pathlib
import signal
import sqlite3

import pytest

from edge_agent.cloud.queue import Outbox
from edge_agent.cloud.queue_row import QueueRow
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer, CloudKey
from edge_agent.store.schema import MIGRATIONS, VERSION, schema_of, texts, version
from edge_agent.store.store import Store
from tests.support import old_databases
from tests.support.killed import Killed, states_after_kills
from tests.support.mutation import catches
from tests.support.paths import ROOT
from tests.support.queue_world import answer, fail

QUESTION, OTHER = Question("Q", ("a", "b")), Question("other", ("a", "b"))
ANSWER = CloudAnswer("B", "B", "big", 1.0)


def decision(store: Store, question: Question, queue_id: int) -> None:
    store.put_decision(
        {"decision_id": question.stem, "created_at": 1.0, "fingerprint": question.fingerprint, "rule_version": 2, "policy": "{}",
         "circumstances": "{}", "answer": "A", "route": "local", "reason": "offline", "deferred": 1, "recalled": 0, "provisional": 1,
         "queue_id": queue_id}
    )  # fmt: skip


def put(store: Store, question: Question = QUESTION) -> None:
    with store.transaction():
        store.put_question(question)
        queue_id = Outbox(store).put(question)
        assert queue_id is not None
        decision(store, question, queue_id)


def put_in_two_steps(store: Store, question: Question = QUESTION) -> None:
    """Mutant: stores the row and the decision that waits for it in two transactions."""
    with store.transaction():
        store.put_question(question)
        queue_id = Outbox(store).put(question)
    with store.transaction():
        decision(store, question, queue_id)


def claim(store: Store) -> QueueRow:
    return Outbox(store).claim()


class FinishesInTwoSteps(Outbox):
    """Mutant: marks the row done in one transaction and ends its decisions in the next."""

    def finish(self, row: QueueRow, outcome: CloudOutcome, key: CloudKey, *_: object) -> str:
        with self.store.transaction():
            answer_id = self.store.put_cloud_answer(key, outcome.answer)
            self._end_sending(row, "done", costs_attempt=True)
        with self.store.transaction():
            self.store.end_provisional(row.queue_id, outcome.answer.answer, answer_id)
        return "done"


def settle(store: Store, kind: type[Outbox] = Outbox) -> None:
    answer(kind(store), Outbox(store).list()[0])


def settle_in_two_steps(store: Store) -> None:
    """Mutant: see `FinishesInTwoSteps`."""
    settle(store, FinishesInTwoSteps)


def reject(store: Store) -> None:
    fail(Outbox(store), Outbox(store).list()[0], CloudKind.REJECTED, "HTTP 400")


def state(path: pathlib.Path) -> tuple:
    """What matters in the file, after it was opened as after a crash."""
    with Store(path) as store:
        assert (
            store.database.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
            and store.database.rows("PRAGMA foreign_key_check") == []
        )
        rows = [(row.queue_id, row.state, row.attempts) for row in Outbox(store).list()]
        endings = [
            (row["decision_id"], row["queue_id"], row["ending"])
            for row in store.database.rows("SELECT * FROM decisions ORDER BY decision_id")
        ]
        answers = [row["id"] for row in store.database.rows("SELECT id FROM cloud_answers")]
    return rows, endings, answers


@catches(put, put_in_two_steps)
def test_kill_while_putting_leaves_all_or_nothing(part, tmp_path: pathlib.Path) -> None:
    before, after, found = states_after_kills(tmp_path, [], part, state)
    assert before != after and found == {before, after}


def test_kill_while_claiming_leaves_the_row_ready_or_sending(tmp_path: pathlib.Path) -> None:
    """The mutant, which does not mark the claimed row, is in tests/cloud/test_queue.py."""
    before, after, found = states_after_kills(tmp_path, [put], claim, state)
    assert before != after and found == {before, after}


@catches(settle, settle_in_two_steps)
def test_kill_while_settling_leaves_the_row_sending_or_all_done(part, tmp_path: pathlib.Path) -> None:
    before, after, found = states_after_kills(tmp_path, [put, claim], part, state)
    assert before != after and found == {before, after}


def test_kill_while_failing_leaves_the_row_sending_or_all_dead(tmp_path: pathlib.Path) -> None:
    before, after, found = states_after_kills(tmp_path, [put, claim], reject, state)
    assert before != after and found == {before, after}


class Unguarded(sqlite3.Connection):
    """Mutant: migrations without a transaction."""

    def execute(self, sql: str, *more: object) -> sqlite3.Cursor:
        guards = ("BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE", "COMMIT", "ROLLBACK")
        return super().execute("SELECT 1" if sql in guards else sql, *more)


class KilledUnguarded(Killed, Unguarded):
    """The mutant, in a process that is killed."""


def everything(path: pathlib.Path) -> tuple:
    """Version, schema, migrations and rows of a file, read without our code opening it."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        number = version(db)
        named = "SELECT name FROM _sqlite_migrations ORDER BY id" if number == VERSION else "SELECT NULL LIMIT 0"
        rows = [sorted(map(repr, db.execute(f"SELECT * FROM {table}"))) for table in schema_of(number).columns]
        return number, texts(db), [name for (name,) in db.execute(named)], rows


def start_killed_at(path: pathlib.Path, part: type[Killed], at: int, after: bool) -> bool:
    """Open the file in a process that is killed at a statement. Returns False if the start ended first."""
    child = os.fork()
    if child == 0:
        Killed.at, Killed.after, Killed.count = at, after, 0
        try:
            Store(path, connection=part).close()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def check_kills_while_opening(part: type[Killed], path: pathlib.Path, old: bytes | None) -> int:
    """Kill the first start with a file at each statement: only complete migrations are left, and the next start has every row.

    Returns the number of statements.
    """
    folder = path.parent

    def write_old_file() -> None:
        for file in folder.iterdir():
            file.unlink()
        if old is not None:
            path.write_bytes(old)

    write_old_file()
    first = version_of(path) if old else 0
    Store(path).close()
    expected, at = everything(path), 0
    for after in (False, True):
        for at in itertools.count():
            write_old_file()
            killed = start_killed_at(path, part, at, after)
            with contextlib.closing(sqlite3.connect(path)) as db:  # rolls a hot journal back
                number = version(db)
                assert first <= number <= VERSION and (first or number in (0, VERSION)), number
                assert texts(db) == schema_of(number).texts
                recorded = db.execute("SELECT name FROM _sqlite_migrations ORDER BY id").fetchall() if number > first else []
                assert [name for (name,) in recorded] == (list(MIGRATIONS)[:number] if number > first else [])
            Store(path).close()
            assert everything(path) == expected and not list(folder.glob("*.damaged-*"))
            if not killed:
                break
    return at


def version_of(path: pathlib.Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return version(db)


@pytest.mark.parametrize("number", old_databases.VERSIONS)
@catches(Killed, KilledUnguarded, fails_with=Exception)
def test_kill_while_migrating_leaves_only_complete_migrations(part, tmp_path: pathlib.Path, number: int) -> None:
    old = (ROOT / "tests" / "data" / f"schema-{number}.db").read_bytes()
    (tmp_path / "kept").mkdir()
    assert check_kills_while_opening(part, tmp_path / "kept" / "edge-agent.db", old) > 30 * (VERSION - number)


def test_kill_while_creating_leaves_a_new_database_or_none(tmp_path: pathlib.Path) -> None:
    """The file has a temporary name until it is complete, so this holds even without a transaction."""
    (tmp_path / "kept").mkdir()
    assert check_kills_while_opening(Killed, tmp_path / "kept" / "edge-agent.db", None) > 40


def test_row_of_a_killed_drainer_is_ready_again(tmp_path: pathlib.Path) -> None:
    """The lock ends with the process, so the next drainer gets the row. The mutant without a lock is in tests/cloud/test_queue.py."""
    path = tmp_path / "edge-agent.db"
    with Store(path) as store:
        put(store)
    child = os.fork()
    if child == 0:
        store = Store(path)
        with Outbox(store).drainer():
            Outbox(store).claim()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with Store(path) as store, Outbox(store).drainer():
        assert [row.state for row in Outbox(store).list()] == ["ready"]


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_other_signals_lose_nothing(tmp_path: pathlib.Path, signal_number: int) -> None:
    path = tmp_path / "edge-agent.db"
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        with Store(path) as store:
            put(store)
            os.kill(os.getpid(), signal_number)
        os._exit(0)
    os.waitpid(child, 0)
    assert [row[1] for row in state(path)[0]] == ["ready"]
