"""The one SQLite file: opens it, brings its schema up to date, and keeps every fact and decision.

Owns the schema and all SQL but the queue's (`outbox.py`, same connection). Knows nothing of models or HTTP.
Invariants: a file that is not ours is never written to; a write happens inside `transaction()` - BEGIN IMMEDIATE to
COMMIT, so that a crash leaves all of it or nothing; migrations are appended, never changed.

Why plain `sqlite3`: the statements are few, each says its transaction, and a recalled answer pays for every import
(docs/decisions.md has the figures). SQLite 3.7.0 to 3.51.2
can corrupt a WAL database that two connections checkpoint at once, so WAL is used only where that is fixed.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Self

from edge_agent.answer import same
from edge_agent.errors import StorageError
from edge_agent.question import CHOICE, OPEN, Question
from edge_agent.records import CloudAnswer, ModelFacts, OpenReading, Reading
from edge_agent.schema import APPLICATION_ID, migrate, version


class Store:
    """An open database; close it when done, or use it as a context manager. Raises `StorageError` if it cannot be used.

    `connection` replaces SQLite's own in tests that fail or end at a statement.
    """

    def __init__(self, path: pathlib.Path, connection: type[sqlite3.Connection] = sqlite3.Connection) -> None:
        self.path = path
        self._writer: int | None = None  # the thread that is inside a transaction
        self._lock = threading.RLock()  # threads of one process share the connection, and so take turns
        with contextlib.ExitStack() as undo:
            try:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                _refuse_foreign(path)
                with contextlib.suppress(FileExistsError):
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
                self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=connection)
                undo.callback(self._db.close)
                self._db.row_factory = sqlite3.Row
                self._configure()
                migrate(self._db, str(path))  # before WAL: a crash inside then leaves our mark in the file itself, not in a log beside it
                self._db.execute("PRAGMA foreign_keys = ON")
                self._db.execute(f"PRAGMA journal_mode = {'WAL' if _wal_is_safe() else 'TRUNCATE'}")
            except (sqlite3.Error, OSError) as error:
                raise StorageError(f"The database '{path}' cannot be used ({error}); check the folder and its space.") from error
            undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One write, all or nothing: BEGIN IMMEDIATE, then COMMIT, or ROLLBACK and the exception.

        SQLite's own failures become `StorageError`. A crash inside leaves the file as it was before.
        """
        try:
            with self._lock:
                self._db.execute("BEGIN IMMEDIATE")
                self._writer = threading.get_ident()
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
                finally:
                    self._writer = None
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def rows(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        """The rows of a query, as dictionaries; reads only."""
        try:
            with self._lock:
                return [dict(row) for row in self._db.execute(sql, parameters)]
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def write(self, sql: str, parameters: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        """One writing statement, inside the caller's `transaction()`, which translates its failures."""
        assert self.in_transaction, "a write outside a transaction"
        return self._db.execute(sql, parameters)

    @property
    def in_transaction(self) -> bool:
        """Whether this thread is inside a `transaction()` and may write."""
        return self._writer == threading.get_ident()

    def check_writable(self) -> None:
        """Commit a change that changes nothing, or raise `StorageError`."""
        with self.transaction() as db:
            db.execute(f"PRAGMA user_version = {version(self._db)}")

    def _refused(self, error: sqlite3.Error) -> StorageError:
        busy = "locked" in str(error)
        what = "another program holds it; try again" if busy else f"{error}; check the disk's space and who owns the file"
        return StorageError(f"The database '{self.path}' cannot be used: {what}.")

    def model_facts(self, path: pathlib.Path) -> ModelFacts | None:
        """What was recorded of this very file (same path, size, time and inode), without reading it again."""
        status = path.stat()
        row = self._one(
            "SELECT facts FROM model_files WHERE path = ? AND size_bytes = ? AND mtime_ns = ? AND inode = ?",
            (_file_key(path), status.st_size, status.st_mtime_ns, status.st_ino),
        )
        return ModelFacts(**json.loads(row["facts"])) if row else None

    def reading(self, fingerprint: str, model_sha256: str, profile_sha256: str) -> tuple[int, Reading | OpenReading] | None:
        """The newest stored reading of a question by a model, with its id."""
        row = self._one(
            "SELECT id, reading FROM readings WHERE fingerprint = ? AND model_sha256 = ? AND adapter_sha256 = '' AND profile_sha256 = ? "
            "ORDER BY id DESC LIMIT 1",
            (fingerprint, model_sha256, profile_sha256),
        )
        return (row["id"], Reading.from_json(row["reading"])) if row else None

    def cloud_answer(self, fingerprint: str, model: str, endpoint: str, version: int, after: int = 0) -> tuple[int, CloudAnswer] | None:
        """The newest stored answer of a cloud model to a question, with its id; only one with an id above `after`."""
        row = self._one(
            "SELECT id, answer FROM cloud_answers WHERE fingerprint = ? AND cloud_model = ? AND endpoint = ? AND prompt_version = ? "
            "AND id > ? ORDER BY id DESC LIMIT 1",
            (fingerprint, model, endpoint, version, after),
        )
        return (row["id"], CloudAnswer(**json.loads(row["answer"]))) if row else None

    def question(self, fingerprint: str) -> Question:
        """A stored question."""
        row = self._one("SELECT stem, options FROM questions WHERE fingerprint = ?", (fingerprint,))
        if row is None:
            raise StorageError(f"The database '{self.path}' has no question {fingerprint}; it was purged or damaged.")
        options = tuple(json.loads(row["options"]))
        return Question(row["stem"], options, CHOICE if options else OPEN)

    def log(self, limit: int) -> list[dict[str, Any]]:
        """The last decisions with their questions, newest first."""
        return self.rows(
            "SELECT d.*, q.stem, q.options FROM decisions d JOIN questions q USING (fingerprint) "
            "ORDER BY d.created_at DESC, d.rowid DESC LIMIT ?",
            (limit,),
        )

    def decisions(self, at_once: int = 500) -> Iterator[dict[str, Any]]:
        """Every decision with its question and all stored facts about it, oldest first; few of them are ever in memory.

        `reading` and `cloud_answer` are those that it rests on; `any_cloud_answer` is the newest for its question (all JSON or None).
        """
        last = 0
        while rows := self.rows(
            "SELECT d.rowid AS number, d.*, q.stem, q.options, r.reading, c.answer AS cloud_answer, (SELECT a.answer FROM cloud_answers a "
            "WHERE a.fingerprint = d.fingerprint ORDER BY a.id DESC LIMIT 1) AS any_cloud_answer FROM decisions d "
            "JOIN questions q USING (fingerprint) LEFT JOIN readings r ON r.id = d.reading_id "
            "LEFT JOIN cloud_answers c ON c.id = d.cloud_answer_id WHERE d.rowid > ? ORDER BY d.rowid LIMIT ?",
            (last, at_once),
        ):
            yield from rows
            last = rows[-1]["number"]

    # The writers below run inside the caller's `transaction()`, so that facts and the decision that rests on them
    # are stored together or not at all.

    def put_model_facts(self, path: pathlib.Path, facts: ModelFacts) -> None:
        """Remember what is known of a file, as it is now."""
        status = path.stat()
        row = (_file_key(path), status.st_size, status.st_mtime_ns, status.st_ino, json.dumps(asdict(facts)))
        self.write("INSERT OR REPLACE INTO model_files VALUES (?, ?, ?, ?, ?)", row)

    def put_question(self, question: Question) -> None:
        """Keep a question; the same one again changes nothing."""
        row = (question.fingerprint, question.stem, json.dumps(question.options, ensure_ascii=False))
        self.write("INSERT OR IGNORE INTO questions VALUES (?, ?, ?)", row)

    def put_reading(self, fingerprint: str, model_sha256: str, profile_sha256: str, reading: Reading | OpenReading) -> int:
        """Add a reading; older ones stay, since decisions rest on them. Gives its id."""
        return self._insert(
            "INSERT INTO readings (created_at, fingerprint, model_sha256, adapter_sha256, profile_sha256, reading) "
            "VALUES (?, ?, ?, '', ?, ?)",
            (time.time(), fingerprint, model_sha256, profile_sha256, reading.to_json()),
        )

    def put_cloud_answer(self, fingerprint: str, endpoint: str, version: int, answer: CloudAnswer) -> int:
        """Add a cloud answer; older ones stay, since decisions rest on them. Gives its id."""
        return self._insert(
            "INSERT INTO cloud_answers (created_at, fingerprint, cloud_model, endpoint, prompt_version, answer) VALUES (?, ?, ?, ?, ?, ?)",
            (time.time(), fingerprint, answer.model, endpoint, version, json.dumps(asdict(answer))),
        )

    def put_decision(self, row: dict[str, Any]) -> None:
        """Keep a decision; `row` has the columns of the table."""
        columns = ", ".join(row)
        self.write(f"INSERT INTO decisions ({columns}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))

    def end_provisional(self, queue_id: int, final_answer: str, cloud_answer_id: int) -> None:
        """End every provisional decision that waits for this queue row: upheld or overturned. Both answers and times stay."""
        for row in self.rows(
            "SELECT decision_id, answer FROM decisions WHERE queue_id = ? AND provisional AND ending IS NULL", (queue_id,)
        ):
            ending = "upheld" if same(row["answer"], final_answer) else "overturned"
            self.write(
                "UPDATE decisions SET ending = ?, ended_at = ?, final_answer = ?, cloud_answer_id = ? WHERE decision_id = ?",
                (ending, time.time(), final_answer, cloud_answer_id, row["decision_id"]),
            )

    def abandon_provisional(self, queue_id: int) -> None:
        """End every provisional decision that waits for this queue row, which will not be answered: the device's answer stands."""
        self.write(
            "UPDATE decisions SET ending = 'abandoned', ended_at = ? WHERE queue_id = ? AND provisional AND ending IS NULL",
            (time.time(), queue_id),
        )

    def reopen_provisional(self, queue_id: int) -> None:
        """Let the abandoned decisions of a queue row wait again."""
        self.write("UPDATE decisions SET ending = NULL, ended_at = NULL WHERE queue_id = ? AND ending = 'abandoned'", (queue_id,))

    def _insert(self, sql: str, parameters: tuple[Any, ...]) -> int:
        rowid = self.write(sql, parameters).lastrowid
        assert rowid is not None
        return rowid

    def _one(self, sql: str, parameters: tuple[Any, ...]) -> dict[str, Any] | None:
        return next(iter(self.rows(sql, parameters)), None)

    def _configure(self) -> None:
        self._db.execute("PRAGMA busy_timeout = 5000")
        self._db.execute("PRAGMA trusted_schema = OFF")
        self._db.execute("PRAGMA synchronous = FULL")  # "queued" must survive a power cut


def _wal_is_safe() -> bool:
    version = sqlite3.sqlite_version_info
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0)


def _file_key(path: pathlib.Path) -> str:
    """The path as text that SQLite can hold, whatever bytes its name has."""
    return os.fsencode(path.resolve()).decode("utf-8", errors="backslashreplace")


def _refuse_foreign(path: pathlib.Path) -> None:
    """Raise `StorageError` if there is a file that is not ours, without changing a byte of it.

    The file is looked at through SQLite, because closing any other descriptor of it would drop the locks that this
    process holds on it (https://www.sqlite.org/howtocorrupt.html, 2.2).
    """
    if not path.exists() or path.stat().st_size == 0:
        return
    for _ in range(20):
        try:
            with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
                ours = db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
            break
        except sqlite3.DatabaseError as error:
            ours = False
            if error.sqlite_errorcode != sqlite3.SQLITE_CORRUPT:
                break
            time.sleep(0.05)  # perhaps another process is in the middle of a COMMIT: this look takes no locks
    if not ours:
        raise StorageError(
            f"The file '{path}' is no database of edge-agent; it was left as it is. Move it or choose another EDGE_AGENT_HOME."
        )
