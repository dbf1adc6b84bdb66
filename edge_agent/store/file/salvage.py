"""Checks whether a database is sound, and saves the rows of one that is not.

Owns the check, what SQLite's error codes mean for the file, and the copying of rows. A damaged file is read through a private
copy and is never changed. Invariants: a row is saved only if it passes its check: a question by its fingerprint, a fact by being
readable, and every row by the constraints of the schema; a file whose rows were read is named in `marks`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

from edge_agent.core.errors import StorageBusy, StorageError
from edge_agent.core.files import temporary_folder
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer, Reading
from edge_agent.store.file.replacement import BESIDE, DAMAGED
from edge_agent.store.schema import VERSION, columns, first_missing, run_migrations, schema_of, version

# A table comes after those that it refers to. Facts about model files and clouds' health are not saved: they are found again.
SAVED = (
    "questions", "readings", "cloud_answers", "outbox", "decisions", "calibrations", "audits", "agreements", "clock", "spending", "marks",
)  # fmt: skip
NOT_SAVED = ("model_files", "clouds")
READ = "read "  # how the mark of a file that was set aside starts: what could be read of it is in the database
_HEADER = (b"SQLite format 3\0\x10\x00", b"\x00\x40\x20\x20")  # magic, 4096-byte pages; after the journal mode, fixed fractions
_THIS_DEVICE = (
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY,
)  # fmt: skip  # the fault of the disk, its space or its permissions, whatever is in the file
_COPIED_BYTES, _PAGE_BYTES = 1 << 20, 4096
_NOT_NEWER = 100  # a schema number this far above ours is damage, not a newer edge-agent


class Connection(sqlite3.Connection):
    """sqlite3's connection; an error that Python cannot decode, because it quotes a damaged name, counts as damage."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Run a statement; such an error becomes SQLITE_CORRUPT."""
        try:
            return super().execute(sql, parameters)
        except UnicodeDecodeError as error:
            damage = sqlite3.DatabaseError("it has a name that is not text")
            damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise damage from error


def result_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code of an error, without its extension; 0 for an error that Python raised."""
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the bytes of the file are damaged."""
    return result_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another program's lock is in the way."""
    return result_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_wrong_schema(error: sqlite3.Error) -> bool:
    """Whether a statement of ours does not fit the file: a table or column is missing, exists already, or holds malformed JSON.

    SQLite has one code, SQLITE_ERROR, for all of these and for a statement that is itself wrong. The tests run all of our
    statements, and `migrate` refuses an SQLite that is too old for them. So the file is at fault.
    """
    return result_code(error) == sqlite3.SQLITE_ERROR


def refused(path: pathlib.Path, error: sqlite3.Error) -> StorageError:
    """Our exception for SQLite's error about the file at `path`."""
    if is_damage(error):
        return StorageError(
            f"The database '{path}' is damaged ({error}); try again, and edge-agent sets it aside and starts a new one "
            "with the rows that it can save."
        )
    if is_wrong_schema(error):
        return StorageError(f"The database '{path}' does not have the tables of this edge-agent ({error}); try again to check the file.")
    if is_busy(error):
        return StorageBusy(f"The database '{path}' is in use by another program; try again.")
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_DBMOVED:
        return StorageError(f"The database '{path}' was moved, deleted or replaced while it was open; it is opened again.")
    return StorageError(f"The database '{path}' cannot be used ({error}); check the free disk space and the file's owner.")


def what_is_wrong(db: sqlite3.Connection, check: str | None) -> str | None:
    """What is wrong with an open database, or None.

    `check` also reads the whole file: "quick_check", or "integrity_check", which compares the indexes too and takes longer.
    Raises `sqlite3.Error` if it cannot check: no space, no permission, or a lock that another process holds.
    """
    try:
        if check and (found := db.execute(f"PRAGMA {check}(1)").fetchone()[0]) != "ok":
            return str(found).splitlines()[-1]
        number = version(db)
        if number < 0 or number > VERSION + _NOT_NEWER:
            return f"its schema has the number {number}"
        if 0 < number <= VERSION and (missing := first_missing(db, number)):
            return f"its schema is not ours ({missing})"
    except sqlite3.Error as error:
        if is_damage(error) or is_wrong_schema(error):
            return str(error)
        raise
    return None


def save_rows(damaged: pathlib.Path, db: sqlite3.Connection, aside: pathlib.Path) -> tuple[dict[str, int], str]:
    """Copy the rows of a damaged file that pass their checks into an empty database.

    Returns how many of each table, and why there are none if nothing can be read. `aside` is the damaged file's name afterwards.
    One transaction: a crash leaves the database empty, and the damaged file as it was. Raises OSError or `sqlite3.Error` if this
    device fails (no space, no permission): then the next start tries again.
    """
    saved, why = dict.fromkeys(SAVED, 0), ""
    with temporary_folder(beside=damaged) as folder:
        db.execute("BEGIN IMMEDIATE")
        try:
            try:
                _save_tables(damaged, db, folder, saved)
            except sqlite3.Error as error:
                _raise_if_device(error)
                why = str(error)
            now_s = "coalesce((SELECT device_s FROM clock), 0)"  # so that nothing is forgotten too early
            db.execute(f"UPDATE questions SET asked_s = {now_s}")
            db.execute(f"UPDATE cloud_answers SET used_s = {now_s}, size_bytes = length(CAST(answer AS BLOB))")
            db.execute("INSERT OR REPLACE INTO marks (name, value) VALUES (?, 1)", (READ + aside.name,))
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:  # a full disk ends it by itself
                db.execute("ROLLBACK")
            raise
    return saved, why


def unread(database: pathlib.Path, db: sqlite3.Connection) -> list[pathlib.Path]:
    """The damaged files beside a database without any question that were never read to their end, the newest first."""
    if db.execute("SELECT 1 FROM questions LIMIT 1").fetchone():
        return []
    prefix = f"{database.name}.{DAMAGED}-"
    names = [file.name for file in database.parent.iterdir() if file.name.startswith(prefix) and not file.name.endswith(BESIDE)]
    read = {row[0] for row in db.execute("SELECT name FROM marks")}
    return [database.with_name(name) for name in sorted(names, reverse=True) if READ + name not in read]


def is_waiting_elsewhere(copy: pathlib.Path, here: set[str]) -> bool:
    """Whether queue rows wait in another database file whose job keys are not `here`, as far as they can be read. Changes nothing.

    True also if this device cannot look, for example because its disk is full.
    """
    sql = "SELECT job_key FROM outbox WHERE state IN ('ready', 'sending')"
    try:
        with temporary_folder(beside=copy) as folder, contextlib.closing(_private_copy(copy, folder / "copy")) as old:
            return any(str(row[0]) not in here for row in _readable_rows(old, sql))
    except sqlite3.Error as error:
        return result_code(error) in _THIS_DEVICE
    except OSError:
        return True


def _save_tables(damaged: pathlib.Path, db: sqlite3.Connection, folder: pathlib.Path, saved: dict[str, int]) -> None:
    """Copy what is readable, table by table, and count it in `saved`."""
    with (
        contextlib.closing(_private_copy(damaged, folder / "copy")) as old,
        contextlib.closing(_up_to_date(old, folder / "newer")) as newer,
    ):
        for table in SAVED:
            saved[table] = _save_table(newer, db, table, VERSION, _CHECKS.get(table))


def _private_copy(damaged: pathlib.Path, copy: pathlib.Path) -> sqlite3.Connection:
    """A copy of the damaged file with a sound header, opened; the files that SQLite keeps beside it are copied too."""
    for end in ("", *BESIDE):
        with contextlib.suppress(FileNotFoundError):
            _copy_readable(damaged.with_name(damaged.name + end), copy.with_name(copy.name + end))
    with copy.open("r+b") as file:
        mode = file.read(20)[18:]
        file.seek(0)
        file.write(_HEADER[0] + (mode if mode == b"\x02\x02" else b"\x01\x01") + _HEADER[1])
    old = sqlite3.connect(copy, factory=Connection)
    old.text_factory = lambda data: data.decode(errors="replace")
    # If the text of one index or view is damaged, SQLite refuses the whole file. With this setting only the first statement fails,
    # and the later ones see everything else.
    old.execute("PRAGMA writable_schema = ON")
    with _damage_ignored():
        old.execute("SELECT count(*) FROM sqlite_master")
    return old


def _copy_readable(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copy a file; a page that the disk cannot read becomes zeros, which SQLite finds damaged."""
    with source.open("rb", buffering=0) as old, target.open("wb") as new:
        at, size = 0, os.fstat(old.fileno()).st_size
        while at < size:
            for n_bytes in (_COPIED_BYTES, _PAGE_BYTES):
                try:
                    data = os.pread(old.fileno(), n_bytes, at)
                    break
                except OSError as error:
                    if error.errno != errno.EIO:
                        raise
                    data = bytes(min(_PAGE_BYTES, size - at))
            if not data:
                return  # it became shorter
            new.write(data)
            at += len(data)


def _raise_if_device(error: sqlite3.Error) -> None:
    """Raise the error if it is not the file's fault."""
    if result_code(error) in _THIS_DEVICE:
        raise error


@contextlib.contextmanager
def _damage_ignored() -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        _raise_if_device(error)


def _up_to_date(old: sqlite3.Connection, path: pathlib.Path) -> sqlite3.Connection:
    """The rows of a damaged older file, migrated to the current schema in a new file at `path`; `old` itself if it is not older.

    Older rows cannot be copied directly: new columns may not be empty, and JSON keys have changed.
    """
    number = _number_by_columns(old)
    if number == VERSION:
        return old
    newer = sqlite3.connect(path, isolation_level=None)
    try:
        newer.execute("PRAGMA synchronous = OFF")
        newer.execute("PRAGMA foreign_keys = ON")  # a row without the one that it refers to is not copied
        newer.execute("BEGIN")
        run_migrations(newer, 0, number)
        for table in SAVED:
            if table in schema_of(number).columns:
                _save_table(old, newer, table, number, _is_json_answer if table == "cloud_answers" else None)
        newer.execute("COMMIT")
        newer.execute("PRAGMA foreign_keys = OFF")  # a migration rebuilds a table that others refer to
        run_migrations(newer, number, VERSION)
    except BaseException:
        newer.close()
        raise
    return newer


def _number_by_columns(old: sqlite3.Connection) -> int:
    """The schema number of a damaged file if the columns of its tables agree, otherwise ours."""
    with _damage_ignored():
        number = version(old)
        if 0 < number < VERSION and all(columns(old, table) == names for table, names in schema_of(number).columns.items()):
            return number
    return VERSION


def _save_table(
    old: sqlite3.Connection, db: sqlite3.Connection, table: str, number: int, passes: Callable[[dict[str, Any]], bool] | None
) -> int:
    """Copy the readable rows of a table between files of the same schema; returns how many were new and passed.

    Columns are matched by position, because a flipped bit may be in a name; by name if some are missing.
    """
    saved = 0
    try:
        there = columns(old, table)
    except sqlite3.DatabaseError as error:
        _raise_if_device(error)
        return 0
    names = schema_of(number).columns[table]
    selected = "*"
    if len(there) != len(names):
        key, names = names[0], tuple(name for name in names if name in there)
        selected = ", ".join(names)
        if key not in names:
            return 0
    insert = f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    for values in _readable_rows(old, f"SELECT {selected} FROM {table}"):
        row = dict(zip(names, values, strict=True))
        with contextlib.suppress(sqlite3.IntegrityError, sqlite3.DataError, ValueError, TypeError, KeyError, AttributeError):
            if passes is None or passes(row):
                saved += db.execute(insert, values).rowcount
    return saved


def _readable_rows(old: sqlite3.Connection, sql: str) -> Iterator[tuple[Any, ...]]:
    """The rows before and after a damaged place, in their order, read from both ends as far as possible. Some come twice."""
    try:
        yield from old.execute(f"{sql} ORDER BY rowid ASC")
        return
    except sqlite3.DatabaseError as error:
        _raise_if_device(error)
    after: list[tuple[Any, ...]] = []
    with _damage_ignored():
        after.extend(old.execute(f"{sql} ORDER BY rowid DESC"))
    yield from reversed(after)


def _is_question(row: dict[str, Any]) -> bool:
    return bool(Question.of(row["stem"], json.loads(row["options"])).fingerprint == row["fingerprint"])


def _is_reading(row: dict[str, Any]) -> bool:
    reading = Reading.from_json(row["reading"])
    return bool((reading.confidence is None or 0.0 <= reading.confidence <= 1.0) and reading.answer)


def _is_answer(row: dict[str, Any]) -> bool:
    return row["answer"] == "" or bool(CloudAnswer.from_json(row["answer"]).answer)  # "": removed; decisions still refer to it


def _is_json_answer(row: dict[str, Any]) -> bool:
    """A cloud answer of any version; the migrations read it."""
    return row["answer"] == "" or isinstance(json.loads(row["answer"]), dict)


def _is_decision(row: dict[str, Any]) -> bool:
    return isinstance(json.loads(row["policy"]), dict) and isinstance(json.loads(row["circumstances"]), dict)


def _is_calibration(row: dict[str, Any]) -> bool:
    return bool(hashlib.sha256(row["calibration"].encode()).hexdigest() == row["sha256"])


_CHECKS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "questions": _is_question, "readings": _is_reading, "cloud_answers": _is_answer, "decisions": _is_decision,
    "calibrations": _is_calibration,
}  # fmt: skip
