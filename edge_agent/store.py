"""The one SQLite file: opens it, brings its schema up to date, and keeps every fact and decision.

Owns the schema and all SQL but the queue's (`outbox.py`, same connection). Knows nothing of models or HTTP.
Invariants: a file that is not ours is never written to; a write happens inside `transaction()` - BEGIN IMMEDIATE to
COMMIT, so that a crash leaves all of it or nothing; migrations are appended, never changed.

Why plain `sqlite3`: few statements, each says its transaction, and a recalled answer pays for every import (docs/decisions.md).
SQLite 3.7.0 to 3.51.2 can corrupt a WAL database that two connections checkpoint at once: WAL is used only where that is fixed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, Self, TypeVar

from edge_agent.answer import same
from edge_agent.errors import BadQuestion, StorageError
from edge_agent.ownership import Marker, refuse_foreign, set_aside
from edge_agent.question import CHOICE, OPEN, Question
from edge_agent.records import CloudAnswer, Ending, ModelFacts, OpenReading, Reading
from edge_agent.salvage import is_damage, save_rows, what_is_wrong
from edge_agent.schema import APPLICATION_ID, copy_to, migrate, version

T = TypeVar("T")
_log = logging.getLogger("edge_agent")


class Store:
    """An open database; close it when done, or use it as a context manager. Raises `StorageError` if it cannot be used.

    `connection` replaces SQLite's own in tests that fail or end at a statement.
    """

    def __init__(self, path: pathlib.Path, connection: type[sqlite3.Connection] = sqlite3.Connection) -> None:
        self.path, self._connection, self._marker = path, connection, Marker(path)
        self._writer: int | None = None  # the thread that is inside a transaction
        self._lock = threading.RLock()  # threads of one process share the connection, and so take turns
        self._damaged = False
        self._db = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._db.close()
        self._marker.release()

    def renew(self) -> bool:
        """If SQLite found the file damaged while it was open, open it anew: a damaged one is set aside if nobody else uses it.

        Whether it was opened anew. Raises `StorageError`.
        """
        if not self._damaged:
            return False
        with self._lock:
            self._db.close()
            self._marker.release()
            self._damaged = False
            self._db = self._open()
        return True

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

    def pack(self) -> None:
        """Give the space of what was deleted back to the disk. Raises `StorageError`, also if others are in the way."""
        try:
            with self._lock:
                self._db.execute("VACUUM")
                if _wal_is_safe():
                    self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def copy_to(self, path: pathlib.Path) -> None:
        """A copy as of one moment, whole or not there. Raises `StorageError`, OSError."""
        try:
            with self._lock:
                copy_to(self._db, path)
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def _refused(self, error: sqlite3.Error) -> StorageError:
        if is_damage(error):
            self._damaged = True
            self._marker.say_damaged()
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
        return _readable(lambda text: ModelFacts(**json.loads(text)), row["facts"]) if row else None

    def reading(
        self, fingerprint: str, model_sha256: str, adapter_sha256: str, profile_sha256: str
    ) -> tuple[int, Reading | OpenReading] | None:
        """The newest stored reading of a question by a model with an adapter ("": none) on it, with its id."""
        row = self._one(
            "SELECT id, reading FROM readings WHERE fingerprint = ? AND model_sha256 = ? AND adapter_sha256 = ? AND profile_sha256 = ? "
            "ORDER BY id DESC LIMIT 1",
            (fingerprint, model_sha256, adapter_sha256, profile_sha256),
        )
        return (row["id"], found) if row and (found := _readable(_sound_reading, row["reading"])) else None

    def cloud_answer(self, fingerprint: str, model: str, endpoint: str, version: int, after: int = 0) -> tuple[int, CloudAnswer] | None:
        """The newest stored answer of a cloud model to a question, with its id; only one with an id above `after`."""
        row = self._one(
            "SELECT id, answer FROM cloud_answers WHERE fingerprint = ? AND cloud_model = ? AND endpoint = ? AND prompt_version = ? "
            "AND id > ? ORDER BY id DESC LIMIT 1",
            (fingerprint, model, endpoint, version, after),
        )
        return (row["id"], found) if row and (found := _readable(_cloud_answer, row["answer"])) else None

    def question(self, fingerprint: str) -> Question:
        """A stored question."""
        row = self._one("SELECT stem, options FROM questions WHERE fingerprint = ?", (fingerprint,))
        if row is None:
            raise StorageError(f"The database '{self.path}' has no question {fingerprint}; it was purged or damaged.")
        question = _readable(_question, (row["stem"], row["options"]))
        if question is None or question.fingerprint != fingerprint:
            raise StorageError(f"The database '{self.path}' has a damaged question {fingerprint}; drop it from the queue or purge it.")
        return question

    def log(self, limit: int) -> list[dict[str, Any]]:
        """The last decisions with their questions, newest first."""
        return self.rows(
            "SELECT d.*, q.stem, q.options FROM decisions d JOIN questions q USING (fingerprint) "
            "ORDER BY d.created_at DESC, d.rowid DESC LIMIT ?",
            (limit,),
        )

    def ending(self, decision_id: str) -> Ending:
        """How a decision stands. Raises `BadQuestion` if there is none of this id."""
        row = self._one(f"SELECT {_ENDING} FROM decisions WHERE decision_id = ?", (decision_id,))
        if row is None:
            raise BadQuestion(f"There is no decision '{decision_id[:64]}'; `edge-agent log --json` shows their ids.")
        return Ending(**{**row, "provisional": bool(row["provisional"])})

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

    def put_reading(
        self, fingerprint: str, model_sha256: str, adapter_sha256: str, profile_sha256: str, reading: Reading | OpenReading
    ) -> int:
        """Add a reading; older ones stay, since decisions rest on them. Gives its id."""
        return self._insert(
            "INSERT INTO readings (created_at, fingerprint, model_sha256, adapter_sha256, profile_sha256, reading) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (time.time(), fingerprint, model_sha256, adapter_sha256, profile_sha256, reading.to_json()),
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

    def _open(self) -> sqlite3.Connection:
        """The file, ours and sound: created if it is not there, set aside and begun anew if it is damaged and nobody else has it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            suspect = refuse_foreign(self.path, self._marker)
            self._create()
            self._marker.take()
            try:
                db = self._open_sound(suspect)
                self._marker.share()
            except BaseException:
                self._marker.forget()
                raise
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"The database '{self.path}' cannot be used ({error}); check the folder and its space.") from error
        return db

    def _open_sound(self, suspect: bool) -> sqlite3.Connection:
        db, wrong = self._connect(suspect, thorough=self._marker.alone and (suspect or self._marker.ended_badly))
        if wrong is None:
            return db
        db.close()
        if not self._marker.alone:
            raise StorageError(
                f"The database '{self.path}' is damaged ({wrong}); end the other programs that use it, and start this again."
            )
        aside = set_aside(self.path)
        self._create()
        db, _ = self._connect(suspect=False, thorough=False)
        try:
            saved = save_rows(aside, db)
        except (sqlite3.Error, OSError) as error:
            saved, wrong = {}, f"{wrong}; nothing could be saved: {error}"
        counts = ", ".join(f"{n} {table.replace('_', ' ')}" for table, n in saved.items() if table not in ("clock", "spending"))
        _log.error("edge-agent: the database '%s' was damaged (%s). It lies whole at '%s'; a new one was begun with %s.",
                   self.path, wrong, aside, counts or "nothing")  # fmt: skip
        return db

    def _connect(self, suspect: bool, thorough: bool) -> tuple[sqlite3.Connection, str | None]:
        """A connection with everything set and the schema up to date, and what is wrong with the file, if anything is."""
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, factory=self._connection)
        try:
            db.row_factory = sqlite3.Row
            db.text_factory = lambda data: data.decode(errors="replace")  # a flipped bit in a text is no reason to answer nothing
            db.execute("PRAGMA busy_timeout = 5000")
            db.execute("PRAGMA trusted_schema = OFF")
            db.execute("PRAGMA cell_size_check = ON")
            db.execute("PRAGMA mmap_size = 0")
            db.execute("PRAGMA secure_delete = ON")  # what was purged is really gone
            db.execute("PRAGMA synchronous = FULL")  # "queued" must survive a power cut
            wrong = what_is_wrong(db, thorough)
            if wrong is None and suspect and self._marker.alone:
                wrong = "it is empty" if not version(db) else None
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")  # the whole file is sound but for this
            if wrong is None:
                migrate(db, self.path)  # before WAL: a crash inside then leaves our mark in the file itself, not in a log beside it
                db.execute("PRAGMA foreign_keys = ON")
                db.execute(f"PRAGMA journal_mode = {'WAL' if _wal_is_safe() else 'TRUNCATE'}")
                db.execute("PRAGMA journal_size_limit = 4194304")
        except sqlite3.Error as error:
            if not is_damage(error) and "already exists" not in str(error) and "no such" not in str(error):
                db.close()
                raise
            return db, str(error)
        except BaseException:
            db.close()
            raise
        return db, wrong

    def _create(self) -> None:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _readable(read: Callable[[Any], T], stored: Any) -> T | None:
    """What was stored, or None if it is damaged: SQLite has no checksums, so a flipped bit may be in any text."""
    try:
        return read(stored)
    except (ValueError, TypeError, KeyError, AttributeError, BadQuestion):
        return None


def _sound_reading(text: str) -> Reading | OpenReading:
    reading = Reading.from_json(text)
    parts = [(reading.level, reading.levels, reading.level_probs)]
    if isinstance(reading, Reading):
        parts.append((reading.letter, tuple(reading.letters), reading.answer_probs))
    for chosen, choices, probabilities in parts:
        if (
            chosen not in choices
            or len(choices) != len(probabilities)
            or not all(0 <= p <= 1 for p in (*probabilities, reading.format_mass))
        ):
            raise ValueError(f"{chosen} is not one of {choices}")
    if not all(0 <= float(level) <= 1 for level in reading.levels):
        raise ValueError(f"levels are {reading.levels}")
    return reading


def _cloud_answer(text: str) -> CloudAnswer:
    return CloudAnswer(**json.loads(text))


def _question(stored: tuple[str, str]) -> Question:
    options = tuple(json.loads(stored[1]))
    return Question(stored[0], options, CHOICE if options else OPEN)


_ENDING = "decision_id, provisional, ending, answer, final_answer, created_at, ended_at"


def _wal_is_safe() -> bool:
    version = sqlite3.sqlite_version_info
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0)


def _file_key(path: pathlib.Path) -> str:
    """The path as text that SQLite can hold, whatever bytes its name has."""
    return os.fsencode(path.resolve()).decode("utf-8", errors="backslashreplace")
