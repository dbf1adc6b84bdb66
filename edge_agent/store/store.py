"""The facts and decisions in the SQLite file: each statement that reads or writes them.

Owns all SQL but the queue's (`outbox.py`) and that of the rooms with a table of their own (clock, breaker, budget), on the same
connection. Knows nothing of models or HTTP, or of how the file is opened and kept whole (`database.py`). Invariant: a fact once
written is never changed, only forgotten.
"""

from __future__ import annotations

import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, TypeVar

from edge_agent.core.errors import BadQuestion, StorageError
from edge_agent.core.question import CHOICE, OPEN, Question, same
from edge_agent.core.records import CloudAnswer, Ending, ModelFacts, OpenReading, Reading
from edge_agent.store.database import Database

T = TypeVar("T")


class Store(Database):
    """All that is remembered; close it when done, or use it as a context manager. Raises `StorageError` if it cannot be used."""

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
        return _ending(row)

    def endings(self, after: int, limit: int = 500) -> list[Ending]:
        """The next ends of provisional decisions behind a number, in their order."""
        sql = f"SELECT {_ENDING} FROM decisions WHERE end_number > ? ORDER BY end_number LIMIT ?"
        return [_ending(row) for row in self.rows(sql, (after, limit))]

    def last_end(self) -> int:
        """The highest number that an end was ever given; 0 before the first."""
        return int(self.rows(f"SELECT {_LAST_END} AS number")[0]["number"])

    def decisions(self, at_once: int = 500) -> Iterator[dict[str, Any]]:
        """Every decision with its question and all stored facts about it, oldest first; few of them are ever in memory.

        `reading` and `cloud_answer` are those that it rests on; `any_cloud_answer` is the newest for its question (all JSON or None;
        a `cloud_answer` that was removed to make room is "").
        """
        last = 0
        while rows := self.rows(
            "SELECT d.rowid AS number, d.*, q.stem, q.options, r.reading, c.answer AS cloud_answer, (SELECT a.answer FROM cloud_answers a "
            "WHERE a.fingerprint = d.fingerprint AND a.size_bytes > 0 ORDER BY a.id DESC LIMIT 1) AS any_cloud_answer FROM decisions d "
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
        """Keep a question, and when it was asked: device time as it was last written down, to an hour. That is how it ages."""
        self.write(
            f"INSERT INTO questions (fingerprint, stem, options, asked_s) VALUES (?, ?, ?, {_NOW_S}) "
            f"ON CONFLICT (fingerprint) DO UPDATE SET asked_s = excluded.asked_s WHERE abs(asked_s - excluded.asked_s) >= {_TOUCH_S}",
            (question.fingerprint, question.stem, json.dumps(question.options, ensure_ascii=False)),
        )

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
        text = json.dumps(asdict(answer))
        return self._insert(
            "INSERT INTO cloud_answers (created_at, fingerprint, cloud_model, endpoint, prompt_version, answer, size_bytes, used_s) "
            f"VALUES (?, ?, ?, ?, ?, ?, ?, {_NOW_S})",
            (time.time(), fingerprint, answer.model, endpoint, version, text, len(text)),
        )

    def use_cloud_answer(self, answer_id: int) -> None:
        """Say that a stored answer was used again, to an hour: what was used last is removed last."""
        self.write(f"UPDATE cloud_answers SET used_s = {_NOW_S} WHERE id = ? AND abs(used_s - {_NOW_S}) >= {_TOUCH_S}", (answer_id,))

    def put_decision(self, row: dict[str, Any]) -> None:
        """Keep a decision; `row` has the columns of the table."""
        columns = ", ".join(row)
        self.write(f"INSERT INTO decisions ({columns}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))

    def end_provisional(self, queue_id: int, final_answer: str, cloud_answer_id: int) -> None:
        """End every provisional decision that waits for this queue row: upheld or overturned. Both answers and times stay."""
        for row in self._waiting(queue_id):
            ending = "upheld" if same(row["answer"], final_answer) else "overturned"
            self.write(
                "UPDATE decisions SET ending = ?, ended_at = ?, end_number = ?, final_answer = ?, cloud_answer_id = ? "
                "WHERE decision_id = ?",
                (ending, time.time(), self._next_end(), final_answer, cloud_answer_id, row["decision_id"]),
            )

    def abandon_provisional(self, queue_id: int) -> None:
        """End every provisional decision that waits for this queue row, which will not be answered: the device's answer stands."""
        for row in self._waiting(queue_id):
            self.write(
                "UPDATE decisions SET ending = 'abandoned', ended_at = ?, end_number = ? WHERE decision_id = ?",
                (time.time(), self._next_end(), row["decision_id"]),
            )

    def reopen_provisional(self, queue_id: int) -> None:
        """Let the abandoned decisions of a queue row wait again."""
        self.write(
            "UPDATE decisions SET ending = NULL, ended_at = NULL, end_number = NULL WHERE queue_id = ? AND ending = 'abandoned'",
            (queue_id,),
        )

    def _waiting(self, queue_id: int) -> list[dict[str, Any]]:
        sql = "SELECT decision_id, answer FROM decisions WHERE queue_id = ? AND provisional AND ending IS NULL ORDER BY rowid"
        return self.rows(sql, (queue_id,))

    def _next_end(self) -> int:
        """The number of the next end: never one that was given before, even if that end is purged or taken back."""
        sql = f"INSERT OR REPLACE INTO marks (name, value) SELECT 'endings', {_LAST_END} + 1 RETURNING value"
        return int(self.write(sql).fetchall()[0]["value"])

    def _insert(self, sql: str, parameters: tuple[Any, ...]) -> int:
        rowid = self.write(sql, parameters).lastrowid
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


def _ending(row: dict[str, Any]) -> Ending:
    return Ending(**{**row, "provisional": bool(row["provisional"])})


def _question(stored: tuple[str, str]) -> Question:
    options = tuple(json.loads(stored[1]))
    return Question(stored[0], options, CHOICE if options else OPEN)


_TOUCH_S = 3600
_NOW_S = "coalesce((SELECT device_s FROM clock), 0)"
_ENDING = "decision_id, provisional, ending, answer, final_answer, created_at, ended_at, end_number AS number"
_LAST_END = (
    "max(coalesce((SELECT CAST(value AS INTEGER) FROM marks WHERE name = 'endings'), 0), "
    "coalesce((SELECT CAST(max(end_number) AS INTEGER) FROM decisions WHERE end_number IS NOT NULL), 0))"
)


def _file_key(path: pathlib.Path) -> str:
    """The path as text that SQLite can hold, whatever bytes its name has."""
    return os.fsencode(path.resolve()).decode("utf-8", errors="backslashreplace")
