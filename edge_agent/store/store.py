"""Facts and decisions in the SQLite file: the statements that read and write them.

Owns all SQL except the queue's (`cloud/queue.py`) and that of its neighbours (schema, salvage, device time, forgetting). Knows
nothing about models or HTTP, or how the file is opened and kept sound (`database.py`). Invariant: a fact once written is
never changed, only forgotten.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any, Self, TypeVar

from edge_agent.core.errors import BadQuestion, StorageError
from edge_agent.core.question import Question, same
from edge_agent.core.records import CloudAnswer, CloudKey, Ending, ModelFacts, OpenReading, Reading, ReadingKey
from edge_agent.store.database import Database
from edge_agent.store.device_time import Clock, Moment, read_moment
from edge_agent.store.disk import free_bytes

T = TypeVar("T")
_TOUCH_S = 60.0  # a question asked again within this time keeps its time, which saves a write


class Store:
    """Everything that is remembered; close it when done, or use it as a context manager.

    `database` is the file, `clock` its device time. Raises `StorageError` if the file cannot be used; without `must_open` its calls
    raise it instead. `connection` (SQLite's own), `moment` (the device's clocks) and `free_bytes` (of a folder's disk) are
    replaced in tests.
    """

    def __init__(
        self,
        path: pathlib.Path,
        connection: type[sqlite3.Connection] | None = None,
        moment: Callable[[], Moment] = read_moment,
        free_bytes: Callable[[pathlib.Path], int] = free_bytes,
        must_open: bool = True,
    ) -> None:
        self.database = Database(path, connection, must_open)
        self.clock = Clock(self.database, moment)
        self._free_bytes = free_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self.database.close()

    @property
    def path(self) -> pathlib.Path:
        """The SQLite file."""
        return self.database.path

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """One write, all or nothing (`Database.transaction`)."""
        return self.database.transaction()

    def free_bytes(self) -> int:
        """How many bytes are free on the disk of the file."""
        return self._free_bytes(self.path.parent)

    def model_facts(self, path: pathlib.Path) -> ModelFacts | None:
        """What was recorded about exactly this file (same path, size, time and inode), without reading it again."""
        status = path.stat()
        row = self._one(
            "SELECT facts FROM model_files WHERE path = ? AND size_bytes = ? AND mtime_ns = ? AND inode = ?",
            (_file_key(path), status.st_size, status.st_mtime_ns, status.st_ino),
        )
        return _readable(lambda text: ModelFacts(**json.loads(text)), row["facts"]) if row else None

    def reading(self, key: ReadingKey) -> tuple[int, Reading | OpenReading] | None:
        """The newest stored reading for a key, with its id."""
        row = self._one(
            "SELECT id, reading FROM readings WHERE fingerprint = ? AND model_sha256 = ? AND adapter_sha256 = ? AND profile_sha256 = ? "
            "ORDER BY id DESC LIMIT 1",
            key,
        )
        return (row["id"], found) if row and (found := _readable(_sound_reading, row["reading"])) else None

    def cloud_answer(self, key: CloudKey, after: int = 0) -> tuple[int, CloudAnswer] | None:
        """The newest stored cloud answer for a key, with its id; only one with an id above `after`."""
        row = self._one(
            "SELECT id, answer FROM cloud_answers WHERE fingerprint = ? AND cloud_model = ? AND endpoint = ? AND prompt_version = ? "
            "AND api = ? AND id > ? ORDER BY id DESC LIMIT 1",
            (*key, after),
        )
        return (row["id"], found) if row and (found := _readable(CloudAnswer.from_json, row["answer"])) else None

    def newest_cloud_answer(self) -> int:
        """The id of the newest stored cloud answer; 0 if there is none."""
        return int(self.database.rows("SELECT coalesce(max(id), 0) AS n FROM cloud_answers")[0]["n"])

    def question(self, fingerprint: str) -> Question:
        """A stored question. Raises `StorageError` if it was purged or is damaged."""
        row = self._one("SELECT stem, options FROM questions WHERE fingerprint = ?", (fingerprint,))
        if row is None:
            raise StorageError(f"The database '{self.path}' has no question {fingerprint}; it was purged or damaged.")
        question = _readable(lambda row: Question.of(row["stem"], json.loads(row["options"])), row)
        if question is None or question.fingerprint != fingerprint:
            raise StorageError(f"The question {fingerprint} in the database '{self.path}' is damaged; drop it from the queue or purge it.")
        return question

    def log(self, limit: int) -> list[dict[str, Any]]:
        """The last decisions with their questions, newest first by number, whatever the wall clock says.

        `cloud_answer` is the cloud's answer that each rests on or ended with (JSON, or None).
        """
        return self.database.rows(
            "SELECT d.*, q.stem, q.options, c.answer AS cloud_answer FROM decisions d JOIN questions q USING (fingerprint) "
            "LEFT JOIN cloud_answers c ON c.id = d.cloud_answer_id ORDER BY d.rowid DESC LIMIT ?",
            (limit,),
        )

    def count_decisions(self) -> int:
        """How many decisions are stored."""
        return int(self.database.rows("SELECT count(*) AS n FROM decisions")[0]["n"])

    def ending(self, decision_id: str) -> Ending:
        """The state of a decision. Raises `BadQuestion` if no decision has this id."""
        row = self._one(f"SELECT {_ENDING} FROM decisions WHERE decision_id = ?", (decision_id,))
        if row is None:
            raise BadQuestion(f"There is no decision '{decision_id[:64]}'; `edge-agent log --json` shows the ids.")
        return _ending(row)

    def endings(self, after: int, limit: int = 500, ids: Sequence[str] | None = None) -> list[Ending]:
        """The next endings of provisional decisions after a number, in order; with `ids`, only those of these decisions."""
        named = "" if ids is None else f"AND decision_id IN ({', '.join('?' * len(ids))})"
        sql = f"SELECT {_ENDING} FROM decisions WHERE end_number > ? {named} ORDER BY end_number LIMIT ?"
        return [_ending(row) for row in self.database.rows(sql, (after, *(ids or ()), limit))]

    def last_end(self) -> int:
        """The highest number that an ending ever had; 0 before the first."""
        return int(self.database.rows(f"SELECT {_LAST_END} AS number")[0]["number"])

    def decisions(self, at_once: int = 500, after: int = 0) -> Iterator[dict[str, Any]]:
        """Every decision with its question and all stored facts about it, oldest first; few of them are in memory at a time.

        `reading` and `cloud_answer` are the ones that it is based on; `any_cloud_answer` is the newest for its question (all JSON or
        None; a `cloud_answer` that was removed to make room is ""). `audit_answer` is what the cloud said to its audit, and `audit_agrees`
        whether that was the same. `after` is the `number` of the decision after which they begin.
        """
        last = after
        while rows := self.database.rows(
            "SELECT d.rowid AS number, d.*, q.stem, q.options, r.reading, c.answer AS cloud_answer, (SELECT a.answer FROM cloud_answers a "
            "WHERE a.fingerprint = d.fingerprint AND a.size_bytes > 0 ORDER BY a.id DESC LIMIT 1) AS any_cloud_answer, "
            "u.cloud_answer AS audit_answer, u.agrees AS audit_agrees FROM decisions d JOIN questions q USING (fingerprint) "
            "LEFT JOIN readings r ON r.id = d.reading_id LEFT JOIN cloud_answers c ON c.id = d.cloud_answer_id "
            "LEFT JOIN audits u ON u.decision_id = d.decision_id WHERE d.rowid > ? ORDER BY d.rowid LIMIT ?",
            (last, at_once),
        ):
            yield from rows
            last = rows[-1]["number"]

    def calibration(self, sha256: str) -> str | None:
        """The whole text of a calibration that was used (JSON); None if it is not stored."""
        row = self._one("SELECT calibration FROM calibrations WHERE sha256 = ?", (sha256,))
        return str(row["calibration"]) if row else None

    def newest_calibration(self) -> str | None:
        """The sha256 of the calibration that decisions were made under last; None if they never were, or the policy is damaged."""
        sql = 'SELECT policy FROM decisions WHERE instr(policy, \'"calibration": ""\') = 0 ORDER BY rowid DESC LIMIT 1'
        found = self._one(sql, ())
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            return str(json.loads(found["policy"])["calibration"]) if found else None
        return None

    def cloud_health(self, endpoint: str) -> str | None:
        """The circuit breaker's stored state of a cloud (JSON)."""
        row = self._one("SELECT health FROM clouds WHERE endpoint = ?", (endpoint,))
        return row["health"] if row else None

    def last_cloud_answer_at(self, endpoint: str) -> float | None:
        """When a cloud's newest stored answer came (Unix time); None if there is none."""
        row = self._one("SELECT created_at FROM cloud_answers WHERE endpoint = ? ORDER BY id DESC LIMIT 1", (endpoint,))
        return float(row["created_at"]) if row else None

    def spent(self, endpoint: str, since_s: float) -> tuple[int, int]:
        """The calls to a cloud since a moment of device time, and what they cost in millionths of the currency."""
        row = self.database.rows(
            "SELECT count(*) AS n, coalesce(sum(micros), 0) AS micros FROM spending WHERE endpoint = ? AND at_s > ?", (endpoint, since_s)
        )[0]
        return row["n"], row["micros"]

    # The writers below run inside the caller's `transaction()`, so facts and the decision based on them are stored
    # together or not at all.

    def put_model_facts(self, path: pathlib.Path, facts: ModelFacts) -> None:
        """Remember what is known about a file in its current state."""
        status = path.stat()
        row = (_file_key(path), status.st_size, status.st_mtime_ns, status.st_ino, json.dumps(asdict(facts)))
        self.database.write("INSERT OR REPLACE INTO model_files VALUES (?, ?, ?, ?, ?)", row)

    def put_question(self, question: Question) -> None:
        """Keep a question, and when it was asked last (device time, to a minute): its age counts from then."""
        self.database.write(
            "INSERT INTO questions (fingerprint, stem, options, asked_s) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (fingerprint) DO UPDATE SET asked_s = excluded.asked_s WHERE abs(asked_s - excluded.asked_s) >= ?",
            (question.fingerprint, question.stem, json.dumps(question.options, ensure_ascii=False), self.clock.now_s(), _TOUCH_S),
        )

    def put_reading(self, key: ReadingKey, reading: Reading | OpenReading) -> int:
        """Add a reading and return its id; older ones stay, because decisions refer to them."""
        return self._insert(
            "INSERT INTO readings (created_at, fingerprint, model_sha256, adapter_sha256, profile_sha256, reading) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (time.time(), *key, reading.to_json()),
        )

    def put_cloud_answer(self, key: CloudKey, answer: CloudAnswer) -> int:
        """Add a cloud answer and return its id; older ones stay, because decisions refer to them."""
        text = answer.to_json()
        return self._insert(
            "INSERT INTO cloud_answers (created_at, fingerprint, cloud_model, endpoint, prompt_version, api, answer, size_bytes, used_s) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (time.time(), *key, text, len(text), self.clock.now_s()),
        )

    def use_cloud_answer(self, answer_id: int) -> None:
        """Note that a stored answer was used again, to a minute: the least recently used is removed first."""
        now_s = self.clock.now_s()
        self.database.write(
            "UPDATE cloud_answers SET used_s = ? WHERE id = ? AND abs(used_s - ?) >= ?", (now_s, answer_id, now_s, _TOUCH_S)
        )

    def put_decision(self, row: dict[str, Any]) -> None:
        """Keep a decision; `row` has the columns of the table."""
        columns = ", ".join(row)
        self.database.write(f"INSERT INTO decisions ({columns}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))

    def end_provisional(self, queue_id: int, final_answer: str, cloud_answer_id: int) -> None:
        """End every provisional decision that waits for this queue row, as upheld or overturned. Both answers and times stay."""
        for row in self._waiting(queue_id):
            ending = "upheld" if same(row["answer"], final_answer) else "overturned"
            self.database.write(
                "UPDATE decisions SET ending = ?, ended_at = ?, end_number = ?, final_answer = ?, cloud_answer_id = ? "
                "WHERE decision_id = ?",
                (ending, time.time(), self._next_end(), final_answer, cloud_answer_id, row["decision_id"]),
            )

    def abandon_provisional(self, queue_id: int) -> None:
        """Abandon every provisional decision that waits for this queue row: no cloud answer comes, so the device's answer stays."""
        for row in self._waiting(queue_id):
            self.database.write(
                "UPDATE decisions SET ending = 'abandoned', ended_at = ?, end_number = ? WHERE decision_id = ?",
                (time.time(), self._next_end(), row["decision_id"]),
            )

    def reopen_provisional(self, queue_id: int) -> None:
        """Let the abandoned decisions of a queue row wait again."""
        self.database.write(
            "UPDATE decisions SET ending = NULL, ended_at = NULL, end_number = NULL WHERE queue_id = ? AND ending = 'abandoned'",
            (queue_id,),
        )

    def put_calibration(
        self, sha256: str, created_at: float, model_sha256: str, adapter_sha256: str, profile_sha256: str, text: str
    ) -> None:
        """Keep a calibration, whole; one that is there stays. `sha256` is that of its `text`."""
        row = (sha256, created_at, model_sha256, adapter_sha256, profile_sha256, text)
        self.database.write("INSERT OR IGNORE INTO calibrations VALUES (?, ?, ?, ?, ?, ?)", row)

    def put_cloud_health(self, endpoint: str, health: str) -> None:
        """Keep the circuit breaker's state of a cloud (JSON)."""
        self.database.write("INSERT OR REPLACE INTO clouds (endpoint, health) VALUES (?, ?)", (endpoint, health))

    def put_spending(self, endpoint: str, at_s: float, micros: int) -> int:
        """Count a call to a cloud at a moment of device time and return its number."""
        return self._insert("INSERT INTO spending (endpoint, at_s, micros) VALUES (?, ?, ?)", (endpoint, at_s, micros))

    def correct_spending(self, number: int, micros: int) -> None:
        """Record the real cost of a counted call."""
        self.database.write("UPDATE spending SET micros = ? WHERE id = ?", (micros, number))

    def drop_spending(self, number: int) -> None:
        """Remove a counted call."""
        self.database.write("DELETE FROM spending WHERE id = ?", (number,))

    def drop_spending_before(self, endpoint: str, at_s: float) -> None:
        """Forget the calls to a cloud up to a moment of device time."""
        self.database.write("DELETE FROM spending WHERE endpoint = ? AND at_s <= ?", (endpoint, at_s))

    def _one(self, sql: str, parameters: tuple[Any, ...]) -> dict[str, Any] | None:
        return next(iter(self.database.rows(sql, parameters)), None)

    def _waiting(self, queue_id: int) -> list[dict[str, Any]]:
        sql = "SELECT decision_id, answer FROM decisions WHERE queue_id = ? AND provisional AND ending IS NULL ORDER BY rowid"
        return self.database.rows(sql, (queue_id,))

    def _next_end(self) -> int:
        """The number of the next ending: never one that was used before, even if that ending was purged or reopened."""
        sql = f"INSERT OR REPLACE INTO marks (name, value) SELECT 'endings', {_LAST_END} + 1 RETURNING value"
        return int(self.database.write(sql).fetchall()[0]["value"])

    def _insert(self, sql: str, parameters: tuple[Any, ...]) -> int:
        rowid = self.database.write(sql, parameters).lastrowid
        assert rowid is not None
        return rowid


def _readable(read: Callable[[Any], T], stored: Any) -> T | None:
    """What was stored, or None if it is damaged: SQLite has no checksums, so a flipped bit may be in any text."""
    try:
        return read(stored)
    except (ValueError, TypeError, KeyError, AttributeError, BadQuestion):
        return None


def _sound_reading(text: str) -> Reading | OpenReading:
    reading = Reading.from_json(text)
    is_plain = reading.level is None  # then there are no levels, and no format to keep
    parts = [] if is_plain else [(reading.level, reading.levels, reading.level_probs)]
    if isinstance(reading, Reading):
        parts.append((reading.letter, tuple(reading.letters), reading.answer_probs))
    for chosen, choices, probabilities in parts:
        if chosen not in choices or len(choices) != len(probabilities) or not all(0 <= p <= 1 for p in probabilities):
            raise ValueError(f"{chosen} is not one of {choices}")
    if is_plain != (not reading.levels) or is_plain != (reading.format_mass is None) or not 0 <= (reading.format_mass or 0.0) <= 1:
        raise ValueError(f"level {reading.level}, levels {reading.levels} and format mass {reading.format_mass} do not fit together")
    if not all(0 <= float(level) <= 1 for level in reading.levels):
        raise ValueError(f"levels are {reading.levels}")
    return reading


def _ending(row: dict[str, Any]) -> Ending:
    return Ending(**{**row, "provisional": bool(row["provisional"])})


_ENDING = "decision_id, provisional, ending, answer, final_answer, created_at, ended_at, end_number AS number"
_LAST_END = (
    "max(coalesce((SELECT CAST(value AS INTEGER) FROM marks WHERE name = 'endings'), 0), "
    "coalesce((SELECT CAST(max(end_number) AS INTEGER) FROM decisions WHERE end_number IS NOT NULL), 0))"
)


def _file_key(path: pathlib.Path) -> str:
    """The path as text that SQLite can hold, whatever bytes its name has."""
    return os.fsencode(path.resolve()).decode("utf-8", errors="backslashreplace")
