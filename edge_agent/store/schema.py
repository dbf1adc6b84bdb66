"""The schema of the one SQLite file, as numbered migrations.

Owns the tables and how an older file becomes a newer one. Knows nothing of what stands in them. Invariants: a migration is
appended, never changed; each is one transaction, so that a crash leaves a whole number of them.
"""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3

from edge_agent.core.errors import StorageError
from edge_agent.core.files import put_in_place, temporary_folder

APPLICATION_ID = 0x45644167  # "EdAg"

MIGRATIONS = (
    """
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
    """
    UPDATE cloud_answers SET answer = json_set(json_remove(answer, '$.letter'), '$.answer', json_extract(answer, '$.letter'))
        WHERE json_extract(answer, '$.letter') IS NOT NULL
    """,
    """
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
    """
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
    """
    ALTER TABLE decisions ADD COLUMN end_number INTEGER;
    UPDATE decisions SET end_number = n
        FROM (SELECT rowid AS r, row_number() OVER (ORDER BY ended_at, rowid) AS n FROM decisions WHERE ending IS NOT NULL)
        WHERE decisions.rowid = r;
    CREATE INDEX decisions_by_end ON decisions (end_number) WHERE end_number IS NOT NULL
    """,
)


def migrate(db: sqlite3.Connection, path: pathlib.Path) -> None:
    """Bring the open database at `path` up to date; a copy is kept beside it before each step (`.before-schema-N`).

    The connection must not be inside a transaction. Each migration is one IMMEDIATE transaction: a crash leaves a whole
    number of them. Foreign keys are checked at
    its end, not on the way, since a table that others point to can only be rebuilt so. Raises `StorageError` for a
    schema from the future, `sqlite3.Error` for SQLite's own refusals.
    """
    found = version(db)
    if found > len(MIGRATIONS):
        raise StorageError(f"The database '{path}' is of schema {found}, and this edge-agent knows {len(MIGRATIONS)}; update edge-agent.")
    if found == len(MIGRATIONS):
        return
    db.execute("PRAGMA foreign_keys = OFF")
    for number in range(found, len(MIGRATIONS)):
        if found:  # there is nothing in a new file that could be lost
            _keep_copy(db, path.with_name(f"{path.name}.before-schema-{number + 1}"))
        db.execute("BEGIN IMMEDIATE")
        try:
            if version(db) <= number:  # else another process was faster
                for statement in MIGRATIONS[number].split(";"):
                    db.execute(statement)
                if broken := db.execute("PRAGMA foreign_key_check").fetchone():
                    raise StorageError(f"The database '{path}' has a row of {broken[0]} that points to nothing; restore a backup.")
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {number + 1}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def copy_to(db: sqlite3.Connection, path: pathlib.Path) -> None:
    """A copy of the open database as of one moment, whole on the disk or not there; readable by its owner alone. Raises OSError."""
    with temporary_folder(beside=path) as folder:
        part = folder / path.name
        part.touch(mode=0o600)
        with contextlib.closing(sqlite3.connect(part)) as copy:
            db.backup(copy)
        put_in_place(part, path)


def _keep_copy(db: sqlite3.Connection, path: pathlib.Path) -> None:
    if not path.exists():
        copy_to(db, path)


def version(db: sqlite3.Connection) -> int:
    """How many migrations the file has seen."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])
