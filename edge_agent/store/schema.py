"""The schema of the one SQLite file, as named migrations of `sqlite_utils.Migrations`.

Owns the tables, the readable views, and how an older file is brought up to date. Knows nothing about the rows. Invariants:
a migration is appended, never changed; each is one transaction, so a crash leaves a whole number of them.

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

if TYPE_CHECKING:
    import sqlite_utils

APPLICATION_ID = 0x45644167  # "EdAg"
MIGRATION_SET = "edge_agent"  # our name in sqlite-utils' table
OLDEST_SQLITE = (3, 37)
INCREMENTAL = 2  # PRAGMA auto_vacuum

# Name and SQL of each migration, oldest first. Statements are separated by ";" and contain none.
# A migration that rebuilds or renames a table must drop the views first and create them again. A view reads JSON with
# json_each only: under trusted_schema = OFF, SQLite 3.38 to 3.40 refuse the other JSON functions in a view.
MIGRATIONS = {
    "questions_and_decisions": """
    CREATE TABLE model_files (
        path TEXT PRIMARY KEY, size_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
        facts TEXT NOT NULL
    );
    CREATE TABLE questions (fingerprint TEXT PRIMARY KEY, stem TEXT NOT NULL, options TEXT NOT NULL);
    CREATE TABLE readings (
        id INTEGER PRIMARY KEY, created_at REAL NOT NULL, fingerprint TEXT NOT NULL REFERENCES questions,
        model_sha256 TEXT NOT NULL, adapter_sha256 TEXT NOT NULL, profile_sha256 TEXT NOT NULL, reading TEXT NOT NULL
    );
    CREATE INDEX readings_by_key ON readings (fingerprint, model_sha256, adapter_sha256, profile_sha256);
    CREATE TABLE cloud_answers (
        id INTEGER PRIMARY KEY, created_at REAL NOT NULL, fingerprint TEXT NOT NULL REFERENCES questions,
        cloud_model TEXT NOT NULL, endpoint TEXT NOT NULL, prompt_version INTEGER NOT NULL, answer TEXT NOT NULL
    );
    CREATE INDEX cloud_answers_by_key ON cloud_answers (fingerprint, cloud_model, endpoint, prompt_version);
    CREATE TABLE outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT, created_at REAL NOT NULL, updated_at REAL NOT NULL,
        job_key TEXT NOT NULL UNIQUE, dedupe_key TEXT NOT NULL, fingerprint TEXT NOT NULL REFERENCES questions,
        state TEXT NOT NULL CHECK (state IN ('ready', 'sending', 'done')),
        attempts INTEGER NOT NULL DEFAULT 0, last_error TEXT
    );
    CREATE UNIQUE INDEX outbox_waiting ON outbox (dedupe_key) WHERE state IN ('ready', 'sending');
    CREATE TABLE decisions (
        decision_id TEXT PRIMARY KEY, created_at REAL NOT NULL, fingerprint TEXT NOT NULL REFERENCES questions,
        rule_version INTEGER NOT NULL, policy TEXT NOT NULL, circumstances TEXT NOT NULL,
        reading_id INTEGER REFERENCES readings, cloud_answer_id INTEGER REFERENCES cloud_answers, cloud_kind TEXT,
        answer TEXT NOT NULL, route TEXT NOT NULL, reason TEXT NOT NULL, cause TEXT, score REAL,
        deferred INTEGER NOT NULL, recalled INTEGER NOT NULL, provisional INTEGER NOT NULL,
        queue_id INTEGER REFERENCES outbox, ending TEXT, ended_at REAL, final_answer TEXT
    );
    CREATE INDEX decisions_by_queue ON decisions (queue_id);
    CREATE INDEX decisions_by_time ON decisions (created_at);
    """,
    "cloud_answers_to_open_questions": """
    UPDATE cloud_answers SET answer = json_set(json_remove(answer, '$.letter'), '$.answer', json_extract(answer, '$.letter'))
        WHERE json_extract(answer, '$.letter') IS NOT NULL
    """,
    "queue_with_device_time": """
    CREATE TABLE outbox_3 (
        id INTEGER PRIMARY KEY AUTOINCREMENT, created_at REAL NOT NULL, updated_at REAL NOT NULL,
        put_s REAL NOT NULL, due_s REAL NOT NULL,
        job_key TEXT NOT NULL UNIQUE, dedupe_key TEXT NOT NULL, fingerprint TEXT NOT NULL REFERENCES questions,
        state TEXT NOT NULL CHECK (state IN ('ready', 'sending', 'done', 'dead', 'expired', 'cancelled')),
        attempts INTEGER NOT NULL DEFAULT 0, suspicions INTEGER NOT NULL DEFAULT 0, last_error TEXT,
        answers_before INTEGER NOT NULL, payload TEXT, size_bytes INTEGER NOT NULL
    );
    INSERT INTO outbox_3 (id, created_at, updated_at, put_s, due_s, job_key, dedupe_key, fingerprint, state, attempts, last_error,
                          answers_before, size_bytes)
        SELECT o.id, o.created_at, o.updated_at, 0, 0, o.job_key, o.dedupe_key, o.fingerprint, o.state, o.attempts, o.last_error,
               (SELECT coalesce(max(c.id), 0) FROM cloud_answers c WHERE c.created_at < o.created_at),
               length(q.stem) + length(q.options)
        FROM outbox o JOIN questions q USING (fingerprint);
    DROP TABLE outbox;
    ALTER TABLE outbox_3 RENAME TO outbox;
    CREATE UNIQUE INDEX outbox_waiting ON outbox (dedupe_key) WHERE state IN ('ready', 'sending');
    CREATE INDEX outbox_sizes ON outbox (size_bytes) WHERE state IN ('ready', 'sending');
    CREATE INDEX outbox_ages ON outbox (put_s) WHERE state = 'ready';
    CREATE INDEX outbox_dead ON outbox (updated_at) WHERE state = 'dead';
    CREATE TABLE clock (
        id INTEGER PRIMARY KEY CHECK (id = 1), boot TEXT NOT NULL, uptime_s REAL NOT NULL, device_s REAL NOT NULL,
        wall REAL NOT NULL, trusted INTEGER NOT NULL
    );
    CREATE TABLE clouds (endpoint TEXT PRIMARY KEY, health TEXT NOT NULL);
    CREATE TABLE spending (id INTEGER PRIMARY KEY AUTOINCREMENT, endpoint TEXT NOT NULL, at_s REAL NOT NULL, micros INTEGER NOT NULL);
    CREATE INDEX spending_by_time ON spending (endpoint, at_s)
    """,
    "forgetting": """
    CREATE TABLE marks (name TEXT PRIMARY KEY, value NUMERIC NOT NULL);
    ALTER TABLE questions ADD COLUMN asked_s REAL NOT NULL DEFAULT 0;
    UPDATE questions SET asked_s = coalesce((SELECT device_s FROM clock), 0);
    CREATE INDEX questions_by_age ON questions (asked_s);
    ALTER TABLE cloud_answers ADD COLUMN used_s REAL NOT NULL DEFAULT 0;
    ALTER TABLE cloud_answers ADD COLUMN size_bytes INTEGER NOT NULL DEFAULT 0;
    UPDATE cloud_answers SET used_s = coalesce((SELECT device_s FROM clock), 0), size_bytes = length(CAST(answer AS BLOB));
    CREATE INDEX cloud_answers_by_use ON cloud_answers (used_s, size_bytes) WHERE size_bytes > 0;
    CREATE INDEX decisions_by_question ON decisions (fingerprint);
    CREATE INDEX outbox_by_question ON outbox (fingerprint)
    """,
    "numbered_ends": """
    ALTER TABLE decisions ADD COLUMN end_number INTEGER;
    UPDATE decisions SET end_number = n
        FROM (SELECT rowid AS r, row_number() OVER (ORDER BY ended_at, rowid) AS n FROM decisions WHERE ending IS NOT NULL)
        WHERE decisions.rowid = r;
    CREATE INDEX decisions_by_end ON decisions (end_number) WHERE end_number IS NOT NULL
    """,
    "readable_views": """
    CREATE VIEW decisions_readable AS
        SELECT d.number, d.decision_id, strftime('%Y-%m-%dT%H:%M:%SZ', d.created_at, 'unixepoch') AS asked_at, d.stem AS question,
               (SELECT group_concat(char(65 + j.key) || '. ' || j.value, ' | ') FROM json_each(d.options) j) AS options,
               d.answer, CASE WHEN d.options = '[]' THEN d.answer ELSE
                   (SELECT j.value FROM json_each(d.options) j WHERE char(65 + j.key) = d.answer) END AS answer_text,
               (SELECT CAST(j.value AS REAL) FROM json_each(d.reading) j WHERE j.key = 'level') AS confidence, d.score,
               (SELECT j.value FROM json_each(d.policy) j WHERE j.key = 'tau') AS tau,
               (SELECT j.value FROM json_each(d.policy) j WHERE j.key = 'name') AS policy, d.route, d.reason, d.cause,
               CASE WHEN d.deferred THEN 'yes' ELSE 'no' END AS deferred, CASE WHEN d.recalled THEN 'yes' ELSE 'no' END AS recalled,
               CASE WHEN d.provisional THEN 'yes' ELSE 'no' END AS provisional,
               CASE WHEN d.provisional THEN coalesce(d.ending, 'waiting') END AS ending,
               d.final_answer, CASE WHEN d.options = '[]' THEN d.final_answer ELSE
                   (SELECT j.value FROM json_each(d.options) j WHERE char(65 + j.key) = d.final_answer) END AS final_answer_text,
               strftime('%Y-%m-%dT%H:%M:%SZ', d.ended_at, 'unixepoch') AS ended_at,
               (SELECT n.value FROM model_files m, json_each(m.facts) s, json_each(m.facts) n
                   WHERE s.key = 'sha256' AND s.value = d.model_sha256 AND n.key = 'name' LIMIT 1) AS model,
               d.cloud_model, d.queue_id AS queue_number
        FROM (SELECT d.rowid AS number, d.decision_id, d.created_at, d.answer, d.score, d.route, d.reason, d.cause, d.deferred, d.recalled,
                     d.provisional, d.ending, d.final_answer, d.ended_at, d.queue_id, d.policy, q.stem, q.options, r.reading,
                     r.model_sha256, c.cloud_model
              FROM decisions d JOIN questions q USING (fingerprint) LEFT JOIN readings r ON r.id = d.reading_id
              LEFT JOIN cloud_answers c ON c.id = d.cloud_answer_id) d
        ORDER BY d.number;
    CREATE VIEW queue_readable AS
        SELECT o.id AS number, o.state, o.attempts, o.last_error, q.stem AS question,
               strftime('%Y-%m-%dT%H:%M:%SZ', o.created_at, 'unixepoch') AS queued_at,
               strftime('%Y-%m-%dT%H:%M:%SZ', o.updated_at, 'unixepoch') AS changed_at,
               (SELECT count(*) FROM decisions d WHERE d.queue_id = o.id AND d.provisional AND d.ending IS NULL) AS waiting_decisions
        FROM outbox o JOIN questions q USING (fingerprint)
        ORDER BY o.id;
    CREATE VIEW cloud_answers_readable AS
        SELECT c.id AS number, strftime('%Y-%m-%dT%H:%M:%SZ', c.created_at, 'unixepoch') AS received_at, q.stem AS question,
               (SELECT j.value FROM json_each(c.kept) j WHERE j.key = 'answer') AS answer,
               (SELECT j.value FROM json_each(c.kept) j WHERE j.key = 'reply') AS reply, c.cloud_model, c.endpoint,
               (SELECT j.value FROM json_each(c.kept) j WHERE j.key = 'latency_ms') AS latency_ms,
               (SELECT j.value FROM json_each(c.kept) j WHERE j.key = 'n_prompt_tokens') AS prompt_tokens,
               (SELECT j.value FROM json_each(c.kept) j WHERE j.key = 'n_completion_tokens') AS completion_tokens,
               CASE WHEN c.kept IS NULL THEN 'yes' ELSE 'no' END AS removed
        FROM (SELECT id, created_at, fingerprint, cloud_model, endpoint, nullif(answer, '') AS kept FROM cloud_answers) c
        JOIN questions q USING (fingerprint)
        ORDER BY c.id;
    CREATE VIEW spending_readable AS
        SELECT s.id AS number, s.endpoint, strftime('%Y-%m-%dT%H:%M:%SZ', c.wall - c.device_s + s.at_s, 'unixepoch') AS called_at,
               s.micros / 1e6 AS cost
        FROM spending s LEFT JOIN clock c
        ORDER BY s.id
    """,
}
VERSION = len(MIGRATIONS)

# `digest(schema_of(VERSION).texts)`. Comparing an opened file with it takes 0.1 ms; building the schema to compare takes 3 ms.
# Its test prints the new value when a migration is added.
DIGEST = "a051f07eb89b8f2df70b48cc2c14ce7f72dc06a9fb8a0c63a7ebb59c592dcdcb"

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
