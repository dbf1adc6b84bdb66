"""Facts and decisions in the one SQLite file."""

import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest

from edge_agent.cloud.queue import Outbox
from edge_agent.core.errors import StorageError
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer, CloudKey, OpenReading, Reading, ReadingKey, Timings
from edge_agent.store.file import opening
from edge_agent.store.store import Store

QUESTION = Question("Q", ("a", "b"))
READING = Reading(
    levels=("0.0", "1.0"), level_probs=(0.1, 0.9), level="1.0", format_mass=0.123456789012345,
    letters="AB", answer_probs=(1 / 3, 2 / 3), letter="B", timings=Timings(1.5, 2.5, 4.0, 9, 3, 2),
)  # fmt: skip
ANSWER = CloudAnswer("B", "B!", "big", 12.5, 9, 1)


@pytest.fixture
def store(tmp_path: pathlib.Path) -> Store:
    opened = Store(tmp_path / "home" / "edge-agent.db")
    yield opened
    opened.close()


def test_facts_are_read_back_exactly(store: Store) -> None:
    with store.transaction():
        store.put_question(QUESTION)
        reading_id = store.put_reading(ReadingKey(QUESTION.fingerprint, "m", "", "p"), READING)
        answer_id = store.put_cloud_answer(CloudKey(QUESTION.fingerprint, "big", "https://x", 1), ANSWER)
    assert store.reading(ReadingKey(QUESTION.fingerprint, "m", "", "p")) == (reading_id, READING)
    assert store.cloud_answer(CloudKey(QUESTION.fingerprint, "big", "https://x", 1)) == (answer_id, ANSWER)
    assert store.question(QUESTION.fingerprint) == QUESTION


def test_fact_is_found_only_under_its_whole_key(store: Store) -> None:
    with store.transaction():
        store.put_question(QUESTION)
        store.put_reading(ReadingKey(QUESTION.fingerprint, "m", "", "p"), READING)
        store.put_cloud_answer(CloudKey(QUESTION.fingerprint, "big", "https://x", 1), ANSWER)
    assert store.reading(ReadingKey(QUESTION.fingerprint, "other", "", "p")) is None
    assert store.reading(ReadingKey(QUESTION.fingerprint, "m", "adapter", "p")) is None
    assert store.reading(ReadingKey(QUESTION.fingerprint, "m", "", "other")) is None
    assert store.cloud_answer(CloudKey(QUESTION.fingerprint, "small", "https://x", 1)) is None
    assert store.cloud_answer(CloudKey(QUESTION.fingerprint, "big", "https://y", 1)) is None
    assert store.cloud_answer(CloudKey(QUESTION.fingerprint, "big", "https://x", 2)) is None


def test_failed_transaction_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.transaction():
        store.put_question(QUESTION)
        raise RuntimeError
    assert store.database.rows("SELECT * FROM questions") == []


def test_write_outside_a_transaction_is_a_bug(store: Store) -> None:
    with pytest.raises(AssertionError):
        store.put_question(QUESTION)


def test_files_are_readable_only_by_the_owner(store: Store) -> None:
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert store.path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", [b"not a database", b"SQLite format 3\0" + b"\0" * 200, b"\0" * 4096])
def test_foreign_file_is_not_changed(tmp_path: pathlib.Path, content: bytes) -> None:
    path = tmp_path / "edge-agent.db"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="not a database of edge-agent and was not changed"):
        Store(path)
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


def test_database_of_another_program_is_not_changed(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "edge-agent.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StorageError):
        Store(path)
    assert path.read_bytes() == before


def test_opening_the_file_twice_keeps_the_locks_of_this_process(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """POSIX drops a process's locks on a file when it closes any descriptor of it; a second Store must not do that."""
    monkeypatch.setattr(opening, "BUSY_TIMEOUT_MS", 50)
    program = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None); db.execute('BEGIN IMMEDIATE')"
    with store.transaction():
        store.put_question(QUESTION)
        Store(store.path, must_open=False).close()  # without WAL, it finds the file locked
        done = subprocess.run([sys.executable, "-c", program, str(store.path)], capture_output=True, text=True, check=False)
    assert "locked" in done.stderr


def test_newer_facts_are_recalled_and_older_ones_stay(store: Store) -> None:
    """A decision keeps the older fact that it refers to."""
    with store.transaction():
        store.put_question(QUESTION)
        first = store.put_reading(ReadingKey(QUESTION.fingerprint, "m", "", "p"), READING)
        second = store.put_reading(ReadingKey(QUESTION.fingerprint, "m", "", "p"), replace(READING, letter="A"))
    assert second != first and store.reading(ReadingKey(QUESTION.fingerprint, "m", "", "p")) == (second, replace(READING, letter="A"))
    assert store.database.rows("SELECT id FROM readings ORDER BY id") == [{"id": first}, {"id": second}]


def test_foreign_lock_file_is_a_storage_error(store: Store) -> None:
    store.path.with_name(store.path.name + ".drain-lock").mkdir()
    with pytest.raises(StorageError, match="lock file"), Outbox(store).drainer():
        pass


def test_process_killed_inside_a_transaction_leaves_only_committed_writes(tmp_path: pathlib.Path) -> None:
    """SIGKILL between BEGIN and COMMIT loses the whole write; after COMMIT nothing."""
    path = tmp_path / "edge-agent.db"
    program = textwrap.dedent("""
        import os, pathlib, signal, sys
        from edge_agent.cloud.queue import Outbox
        from edge_agent.core.question import Question
        from edge_agent.store.store import Store
        store = Store(pathlib.Path(sys.argv[1]))
        for number in range(2):
            with store.transaction():
                question = Question(f"Q{number}", ("a", "b"))
                store.put_question(question)
                Outbox(store).put(question, "letter")
                if number == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
    """)
    done = subprocess.run([sys.executable, "-c", program, str(path)], env={**os.environ, "PYTHONPATH": "."}, check=False)
    assert done.returncode == -signal.SIGKILL
    store = Store(path)
    assert [store.question(row.fingerprint).stem for row in Outbox(store).list()] == ["Q0"]
    assert store.database.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    store.close()


def test_facts_of_an_open_question_are_read_back_exactly(store: Store) -> None:
    question = Question("Why?", (), "open")
    reading = OpenReading(
        levels=("0.0", "1.0"), level_probs=(0.1, 0.9), level="1.0", format_mass=0.5, text="Себебі…", ended=True, timings=Timings()
    )
    with store.transaction():
        store.put_question(question)
        reading_id = store.put_reading(ReadingKey(question.fingerprint, "m", "", "p"), reading)
    assert store.reading(ReadingKey(question.fingerprint, "m", "", "p")) == (reading_id, reading)
    assert store.question(question.fingerprint) == question


def test_facts_with_a_flipped_bit_are_ignored(store: Store) -> None:
    """SQLite has no checksums: a readable text may differ from what was written."""
    with store.transaction() as db:
        store.put_question(QUESTION)
        store.put_reading(ReadingKey(QUESTION.fingerprint, "m", "", "p"), READING)
        store.put_cloud_answer(CloudKey(QUESTION.fingerprint, "big", "https://x", 1), ANSWER)
        db.execute("UPDATE readings SET reading = replace(reading, 'levels', 'leve' || char(0) || 's')")
        db.execute("UPDATE cloud_answers SET answer = CAST(x'7b22ff' AS TEXT)")
        db.execute("UPDATE questions SET stem = 'P'")
    assert store.reading(ReadingKey(QUESTION.fingerprint, "m", "", "p")) is None
    assert store.cloud_answer(CloudKey(QUESTION.fingerprint, "big", "https://x", 1)) is None
    with pytest.raises(StorageError, match="is damaged; drop it"):
        store.question(QUESTION.fingerprint)


@pytest.mark.parametrize(
    ("was", "is_now"),
    [('"letter": "B"', '"letter": "Q"'), ('"level": "1.0"', '"level": "1.p"'), ('"0.0", "1.0"', '"0.0", "q.0"'), ("0.9", "9.9")],
)
def test_reading_that_contradicts_itself_is_ignored(store: Store, was: str, is_now: str) -> None:
    with store.transaction() as db:
        store.put_question(QUESTION)
        store.put_reading(ReadingKey(QUESTION.fingerprint, "m", "", "p"), READING)
        assert db.execute("UPDATE readings SET reading = replace(reading, ?, ?)", (was, is_now)).rowcount == 1
    assert store.reading(ReadingKey(QUESTION.fingerprint, "m", "", "p")) is None
