"""How the schema of the one SQLite file is made and checked, and how an older file is brought up to date.

Owns when each of the `migrations` runs, as named migrations of `sqlite_utils.Migrations`. Knows nothing about the rows. Invariant:
each migration is one transaction, so a crash leaves a whole number of them.

`PRAGMA user_version` says how many migrations a file has; sqlite-utils' own table `_sqlite_migrations` names them, so
`sqlite-utils` and a person can read what was applied. Both change in the same transaction. A file that is up to date is
recognised by `user_version` alone, and a new file gets all migrations at once: neither imports sqlite-utils, which takes as
long as a whole recalled answer. Only an older file needs it, once.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import pathlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_agent.core.errors import StorageError, StorageForeign
from edge_agent.core.files import put_in_place, temporary_folder
from edge_agent.store.migrations import MIGRATIONS

if TYPE_CHECKING:
    import sqlite_utils

APPLICATION_ID = 0x45644167  # "EdAg"
MIGRATION_SET = "edge_agent"  # our name in sqlite-utils' table
OLDEST_SQLITE = (3, 37)
INCREMENTAL = 2  # PRAGMA auto_vacuum

VERSION = len(MIGRATIONS)

# `digest(schema_of(VERSION).texts)`. Comparing an opened file with it takes 0.1 ms; building the schema to compare takes 3 ms.
# Its test prints the new value when a migration is added.
DIGEST = "565553d9e423266fedcc8f0fd1dea6693846a7116d4e758eb63aa4fb4f1323e8"

# sqlite-utils' own table, as its `Migrations.ensure_migrations_table` creates it (a test compares them).
_APPLIED_TABLE = (
    'CREATE TABLE "_sqlite_migrations" (\n   "id" INTEGER PRIMARY KEY,\n   "migration_set" TEXT,\n   "name" TEXT,\n   "applied_at" TEXT\n)',
    'CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"\n    ON "_sqlite_migrations" ("migration_set", "name")',
)
_INSERT_APPLIED = "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Schema:
    """What a sound file contains: name and text of everything in it, and the columns of each table."""

    texts: frozenset[tuple[str, str]]
    columns: dict[str, tuple[str, ...]]


@functools.cache
def schema_of(number: int) -> Schema:
    """The schema after the first `number` migrations, without sqlite-utils' own table."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        run_migrations(db, 0, number)
        found = texts(db)
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB 'sqlite_*'")]
        return Schema(found, {table: columns(db, table) for table in tables})


def texts(db: sqlite3.Connection) -> frozenset[tuple[str, str]]:
    """Name and text of all tables, indexes and views of an open file, except SQLite's statistics and the table of sqlite-utils."""
    ours = "sql IS NOT NULL AND name NOT GLOB 'sqlite_stat*' AND tbl_name <> '_sqlite_migrations'"
    rows = db.execute(f"SELECT name, sql FROM sqlite_master WHERE {ours}")
    return frozenset((str(row[0]), str(row[1])) for row in rows)


def digest(found: frozenset[tuple[str, str]]) -> str:
    """The sha256 of a schema's texts."""
    return hashlib.sha256(repr(sorted(found)).encode()).hexdigest()


def first_missing(db: sqlite3.Connection, number: int) -> str | None:
    """The name of something that a sound file with `number` migrations has and this one lacks, or has with another text.

    What a person added, such as an index or a view of their own, does not matter.
    """
    found = texts(db)
    if number == VERSION and digest(found) == DIGEST:
        return None
    return min((name for name, _ in schema_of(number).texts - found), default=None)


def columns(db: sqlite3.Connection, table: str) -> tuple[str, ...]:
    """The names of a table's columns in their order; none if there is no such table."""
    return tuple(row[1] for row in db.execute(f"PRAGMA table_info({table})"))


def run_migrations(db: sqlite3.Connection, first: int, last: int) -> None:
    """Run the SQL of the migrations after number `first`, up to number `last`. Opens no transaction and records nothing."""
    for sql in tuple(MIGRATIONS.values())[first:last]:
        _run(db, sql)


def version(db: sqlite3.Connection) -> int:
    """How many migrations an open file has."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def migrate(db: sqlite3.Connection, path: pathlib.Path, sqlite_version: tuple[int, ...] = sqlite3.sqlite_version_info) -> None:
    """Bring the open database at `path` up to date; before each migration a copy is kept beside it (`.before-schema-N`).

    The connection must be outside a transaction. Each migration is one IMMEDIATE transaction, and so is the creation of a new
    file: a crash leaves a whole number of migrations. Foreign keys are checked at the end of each, not during it, because
    otherwise a table that others refer to could not be rebuilt. Raises `StorageForeign` for a schema newer than ours,
    `StorageError` for an SQLite that is too old, `sqlite3.Error` for what SQLite refuses; SQLITE_ERROR or SQLITE_CORRUPT then
    means that the file does not match its schema number.
    """
    found = version(db)
    if found > VERSION:
        raise StorageForeign(
            f"The database '{path}' has schema {found}, but this edge-agent knows only up to {VERSION}; update edge-agent."
        )
    if found == VERSION:
        return
    if sqlite_version < OLDEST_SQLITE:
        needed, there = (".".join(map(str, numbers)) for numbers in (OLDEST_SQLITE, sqlite_version))
        raise StorageError(f"The database '{path}' needs SQLite {needed} or newer, but this Python has {there}; use a newer Python.")
    db.execute("PRAGMA foreign_keys = OFF")
    if not found:
        with _transaction(db, path, new=True):
            if not version(db):  # otherwise another process was faster
                _create(db)
    for number in range(version(db), VERSION):
        _keep_copy(db, path.with_name(f"{path.name}.before-schema-{number + 1}"))
        with _transaction(db, path):
            if version(db) == number:  # otherwise another process was faster
                _apply(db, number)


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection, path: pathlib.Path, new: bool = False) -> Iterator[None]:
    """One IMMEDIATE transaction that ends with every foreign key checked.

    In a `new` file incremental vacuum must be chosen before the first page exists. Outside a transaction this would commit an
    empty database without our mark, which could not be told from a foreign one. So it is our first statement, and it takes
    the write lock as IMMEDIATE does.
    """
    db.execute("BEGIN" if new else "BEGIN IMMEDIATE")
    try:
        if new:
            db.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")
        yield
        if broken := db.execute("PRAGMA foreign_key_check").fetchone():
            raise StorageError(f"The database '{path}' has a row in {broken[0]} that refers to a missing row; restore a backup.")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _create(db: sqlite3.Connection) -> None:
    """All migrations of a new file, inside the caller's transaction."""
    run_migrations(db, 0, VERSION)
    for sql in _APPLIED_TABLE:
        db.execute(sql)
    now = str(datetime.datetime.now(datetime.UTC))
    for name in MIGRATIONS:
        db.execute(_INSERT_APPLIED, (MIGRATION_SET, name, now))
    _number(db, VERSION)


def _apply(db: sqlite3.Connection, number: int) -> None:
    """The next migration of a file that has `number` of them, inside the caller's transaction.

    On its own, `Migrations.apply` checks what is pending before its deferred BEGIN, so two processes can apply one migration.
    Inside our transaction its BEGIN becomes a savepoint, and `stop_before` limits it to one migration. A file older than
    named migrations first gets the names of those that it has, with the current time.
    """
    from sqlite_utils import Database, Migrations

    named, names = Migrations(MIGRATION_SET), list(MIGRATIONS)
    for name, sql in MIGRATIONS.items():
        named(name=name)(_step(sql))
    wrapped = Database(db, recursive_triggers=False, execute_plugins=False)
    named.ensure_migrations_table(wrapped)
    applied = [migration.name for migration in named.applied(wrapped)]
    if not set(applied) <= set(names[:number]):
        error = sqlite3.DatabaseError(f"its schema number is {number}, but it lists {len(applied)} migrations")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error
    now = str(datetime.datetime.now(datetime.UTC))
    for name in names[:number]:
        if name not in applied:
            db.execute(_INSERT_APPLIED, (MIGRATION_SET, name, now))
    named.apply(wrapped, stop_before=names[number + 1 :])
    _number(db, number + 1)


def _step(sql: str) -> Callable[[sqlite_utils.Database], None]:
    """A migration as sqlite-utils calls it."""

    def step(wrapped: sqlite_utils.Database) -> None:
        _run(wrapped.conn, sql)

    return step


def _run(db: sqlite3.Connection, sql: str) -> None:
    for statement in sql.split(";"):
        db.execute(statement)


def _number(db: sqlite3.Connection, number: int) -> None:
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {number}")


def copy_to(db: sqlite3.Connection, path: pathlib.Path) -> None:
    """Copy the open database as of one moment, readable only by its owner. The copy is complete or absent. Raises OSError."""
    with temporary_folder(beside=path) as folder:
        _write_copy(db, folder / "copy")
        put_in_place(folder / "copy", path)


def _write_copy(db: sqlite3.Connection, path: pathlib.Path) -> None:
    path.touch(mode=0o600)
    with contextlib.closing(sqlite3.connect(path)) as copy:
        db.backup(copy)


def _keep_copy(db: sqlite3.Connection, path: pathlib.Path) -> None:
    """Keep a copy at `path`, or at `path`-2, -3, ... if that is the copy of another file: a person may have restored one since."""
    with temporary_folder(beside=path) as folder:
        part = folder / "copy"
        _write_copy(db, part)
        kept, number = path, 1
        while kept.exists():
            if _content(kept) == _content(part):
                return  # an interrupted start has made it
            kept, number = path.with_name(f"{path.name}-{number + 1}"), number + 1
        put_in_place(part, kept)


def _content(path: pathlib.Path) -> tuple[int, str]:
    """Size and hash of a database file without the counters of its writes in the first page (bytes 24 to 27 and 92 to 99)."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        first = bytearray(file.read(100))
        first[92:100] = first[24:28] = b""
        digest.update(first)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return path.stat().st_size, digest.hexdigest()
