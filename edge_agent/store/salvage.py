"""Looks whether a database is whole, and saves what can be saved of one that is not.

Owns the check and the copying of rows. The damaged file is read through a private copy and stays as it is. Invariant:
nothing is carried over that does not prove itself - a question by its fingerprint, a fact by being readable, a row by the
constraints of the schema.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

from edge_agent.core.files import temporary_folder
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer, Reading
from edge_agent.store.marker import BESIDE
from edge_agent.store.schema import MIGRATIONS, migrate, version

_TABLES = ("questions", "readings", "cloud_answers", "outbox", "decisions", "clock", "spending", "marks")
_HEADER = (b"SQLite format 3\0\x10\x00", b"\x00\x40\x20\x20")  # magic and 4096-byte pages; behind the journal mode, fixed fractions
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NOT_NEWER = 100  # a file whose schema is newer than ours by more than this has a damaged number


class Connection(sqlite3.Connection):
    """SQLite's own, but for a flipped bit in a name that an error quotes: Python then cannot read the error."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """As SQLite's own."""
        try:
            return super().execute(sql, parameters)
        except UnicodeDecodeError as error:
            damage = sqlite3.DatabaseError("a name in it is no text")
            damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise damage from error


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite's error says that the file itself is damaged."""
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF in _DAMAGE


def what_is_wrong(db: sqlite3.Connection, check: str | None) -> str | None:
    """What is wrong with an open database, or None.

    `check` reads the whole file: "quick_check", or "integrity_check", which looks into the indexes, too, and takes longer.

    Raises `sqlite3.Error` when it cannot be told: no space, no permission, somebody else's lock.
    """
    try:
        if check and (found := db.execute(f"PRAGMA {check}(1)").fetchone()[0]) != "ok":
            return str(found).splitlines()[-1]
        number = version(db)
        if number < 0 or number > len(MIGRATIONS) + _NOT_NEWER:
            return f"its schema has the number {number}"
        if number == len(MIGRATIONS):
            for table, columns in _columns().items():
                db.execute(f"SELECT {', '.join(columns)} FROM {table} LIMIT 0")
            if check and (changed := _schema(db) ^ _schema_of_ours()):
                return f"its schema is not ours ({min(changed)[0]})"
        elif number and check:
            db.execute("SELECT count(*) FROM questions")
    except sqlite3.Error as error:
        if is_damage(error) or "no such" in str(error):
            return str(error)
        raise
    return None


def _schema(db: sqlite3.Connection) -> set[tuple[str, str]]:
    """Name and text of everything that the schema has, but for SQLite's own tables."""
    return {(str(name), str(sql)) for name, sql in db.execute("SELECT name, sql FROM sqlite_master WHERE name NOT GLOB 'sqlite_*'")}


def _schema_of_ours() -> set[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as new:
        migrate(new, pathlib.Path(":memory:"))
        return _schema(new)


def save_rows(damaged: pathlib.Path, db: sqlite3.Connection) -> dict[str, int]:
    """Copy the rows of a damaged file that prove themselves into a new database; gives how many of each table.

    One transaction: a crash leaves the new database empty, and the damaged file where it was put.
    """
    saved = dict.fromkeys(_TABLES, 0)
    with temporary_folder(beside=damaged) as folder:
        copy = folder / "copy"
        for end in ("", *BESIDE):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(damaged.with_name(damaged.name + end), copy.with_name(copy.name + end))
        with copy.open("r+b") as file:
            mode = file.read(20)[18:]
            file.seek(0)
            file.write(_HEADER[0] + (mode if mode == b"\x02\x02" else b"\x01\x01") + _HEADER[1])
        with contextlib.closing(sqlite3.connect(copy, factory=Connection)) as old:
            old.text_factory = lambda data: data.decode(errors="replace")
            db.execute("BEGIN IMMEDIATE")
            try:
                for table in _TABLES:
                    saved[table] = _save_table(old, db, table)
                now_s = "coalesce((SELECT device_s FROM clock), 0)"  # nothing is forgotten too early
                db.execute(f"UPDATE questions SET asked_s = {now_s}")
                db.execute(f"UPDATE cloud_answers SET used_s = {now_s}, size_bytes = length(CAST(answer AS BLOB))")
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise
    return saved


def _save_table(old: sqlite3.Connection, db: sqlite3.Connection, table: str) -> int:
    saved = 0
    names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    try:
        known = {row[1] for row in old.execute(f"PRAGMA table_info({table})")}
    except sqlite3.DatabaseError:
        return 0
    columns = [name for name in names if name in known]
    if not columns:
        return 0
    insert = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    proves = _PROOFS.get(table)
    for values in _readable_rows(old, f"SELECT {', '.join(columns)} FROM {table}"):
        row = dict(zip(columns, values, strict=True))
        with contextlib.suppress(sqlite3.IntegrityError, sqlite3.DataError, ValueError, TypeError, KeyError, AttributeError):
            if proves is None or proves(row):
                saved += db.execute(insert, values).rowcount
    return saved


def _readable_rows(old: sqlite3.Connection, sql: str) -> Iterator[tuple[Any, ...]]:
    """The rows in front of a damaged place and those behind it: from both ends, as far as they can be read. Some come twice."""
    for order in ("ASC", "DESC"):
        try:
            yield from old.execute(f"{sql} ORDER BY rowid {order}")
            return
        except sqlite3.DatabaseError:
            continue


def _is_question(row: dict[str, Any]) -> bool:
    return bool(Question.of(row["stem"], json.loads(row["options"])).fingerprint == row["fingerprint"])


def _is_reading(row: dict[str, Any]) -> bool:
    reading = Reading.from_json(row["reading"])
    return bool(0.0 <= reading.confidence <= 1.0 and reading.answer)


def _is_answer(row: dict[str, Any]) -> bool:
    return row["answer"] == "" or bool(CloudAnswer(**json.loads(row["answer"])).answer)  # "": removed, and decisions still name it


def _is_decision(row: dict[str, Any]) -> bool:
    return isinstance(json.loads(row["policy"]), dict) and isinstance(json.loads(row["circumstances"]), dict)


_PROOFS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "questions": _is_question, "readings": _is_reading, "cloud_answers": _is_answer, "decisions": _is_decision,
}  # fmt: skip


def _columns() -> dict[str, list[str]]:
    """The columns that the statements of this version name."""
    return {
        "questions": ["fingerprint", "stem", "options", "asked_s"],
        "readings": ["id", "created_at", "fingerprint", "model_sha256", "adapter_sha256", "profile_sha256", "reading"],
        "cloud_answers": ["id", "created_at", "fingerprint", "cloud_model", "endpoint", "prompt_version", "answer", "used_s", "size_bytes"],
        "outbox": [
            "id", "created_at", "updated_at", "put_s", "due_s", "job_key", "dedupe_key", "fingerprint", "state", "attempts", "suspicions",
            "last_error", "answers_before", "payload", "size_bytes",
        ],
        "decisions": [
            "decision_id", "created_at", "fingerprint", "rule_version", "policy", "circumstances", "reading_id", "cloud_answer_id",
            "cloud_kind", "answer", "route", "reason", "cause", "score", "deferred", "recalled", "provisional", "queue_id", "ending",
            "ended_at", "final_answer", "end_number",
        ],
        "model_files": ["path", "size_bytes", "mtime_ns", "inode", "facts"],
        "clock": ["id", "boot", "uptime_s", "device_s", "wall", "trusted"],
        "clouds": ["endpoint", "health"],
        "spending": ["id", "endpoint", "at_s", "micros"],
        "marks": ["name", "value"],
    }  # fmt: skip
