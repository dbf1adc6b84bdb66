"""Puts a backup in the place of the database.

Owns the checks of the backup and who may restore. The renames are `replacement.py`'s. Changes neither the backup nor, before the
backup is known to be sound, anything else. Invariants: at every moment one of the two databases is whole at its path or finished by
the next start; the replaced one is kept beside it; no journal of the old file is left where SQLite would apply it to the new one.
"""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import sqlite3
from dataclasses import dataclass

from edge_agent.core.errors import StorageBusy, StorageError
from edge_agent.core.files import temporary_folder
from edge_agent.store.file import replacement
from edge_agent.store.file.marker import Marker, refuse_foreign
from edge_agent.store.file.salvage import Connection, is_damage, is_wrong_schema, refused, result_code, what_is_wrong
from edge_agent.store.schema import APPLICATION_ID, VERSION, version

_BUSY_TIMEOUT_MS = 5000


@dataclass(frozen=True, slots=True)
class Restored:
    """What is in the database now, and the name under which the replaced one is kept; None if there was none."""

    questions: int
    decisions: int
    waiting: int
    schema: int
    kept: str | None


def restore(database: pathlib.Path, backup: pathlib.Path) -> Restored:
    """Replace the database by a backup of one; an older schema is brought up to date by the next start.

    Refuses a file that is not ours, is damaged or of a newer version, and while any process uses the database. A crash leaves the old
    database, or the next start finishes. Raises `StorageError`.
    """
    if not backup.is_file():
        raise StorageError(f"There is no backup '{backup}'; give the file that `edge-agent backup` made.")
    if database.exists() and database.samefile(backup):
        raise StorageError(f"'{backup}' is the database itself; give a backup of it.")
    try:
        database.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        refuse_foreign(database, Marker(database))
        marker = Marker(database)
        marker.take(wait_s=0.0)
        try:
            if not marker.alone:
                raise _in_use(database)
            return _restore(database, backup)
        finally:
            marker.release()
    except StorageBusy as error:
        raise _in_use(database) from error
    except OSError as error:
        raise StorageError(f"The database '{database}' cannot be replaced ({error}); check the folder and its free space.") from error


def _in_use(database: pathlib.Path) -> StorageBusy:
    return StorageBusy(f"The database '{database}' is in use by another process; stop it (also `queue drain --watch`), then restore again.")


def _restore(database: pathlib.Path, backup: pathlib.Path) -> Restored:
    """Restore while this process is alone."""
    replacement.finish(database)
    with temporary_folder(beside=database) as folder:
        finished = folder / "new"
        for end in ("", *replacement.BESIDE[:2]):  # the journal of a copy that was made while the file was written
            source = backup.with_name(backup.name + end)
            if source.exists():
                shutil.copyfile(source, finished.with_name(finished.name + end))
        finished.chmod(0o600)
        found = _checked(finished, backup)
        _check_unlocked(database)
        aside = replacement.new_name(database, replacement.REPLACED)
        there = database.exists() and database.stat().st_size > 0
        replacement.begin(database, finished, aside)
    replacement.finish(database)
    return Restored(**found, kept=aside.name if there else None)


def _checked(copy: pathlib.Path, backup: pathlib.Path) -> dict[str, int]:
    """What a sound database of ours holds; it is one closed file afterwards. Raises `StorageError` for any other file."""
    try:
        with contextlib.closing(sqlite3.connect(copy, isolation_level=None, factory=Connection)) as db:
            if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID or not version(db):
                raise StorageError(f"'{backup}' is not a database of edge-agent; give the file that `edge-agent backup` made.")
            if wrong := what_is_wrong(db, "integrity_check"):
                raise _damaged(backup, wrong)
            if (number := version(db)) > VERSION:
                raise StorageError(
                    f"The backup '{backup}' has schema {number}, but this edge-agent knows only up to {VERSION}; update edge-agent."
                )
            db.execute("PRAGMA journal_mode = DELETE")
            sql = "SELECT (SELECT count(*) FROM questions) AS questions, (SELECT count(*) FROM decisions) AS decisions, " \
                "(SELECT count(*) FROM outbox WHERE state IN ('ready', 'sending')) AS waiting"  # fmt: skip
            counts = db.execute(sql)
            return {**dict(zip([column[0] for column in counts.description], counts.fetchone(), strict=True)), "schema": number}
    except sqlite3.Error as error:
        if is_damage(error) or is_wrong_schema(error):
            if result_code(error) == sqlite3.SQLITE_NOTADB:
                raise StorageError(f"'{backup}' is not a database of edge-agent; give the file that `edge-agent backup` made.") from error
            raise _damaged(backup, str(error)) from error
        raise refused(backup, error) from error


def _damaged(backup: pathlib.Path, wrong: str) -> StorageError:
    return StorageError(f"The backup '{backup}' is damaged ({wrong}); nothing was changed; give another backup.")


def _check_unlocked(database: pathlib.Path) -> None:
    """Refuse while a program that knows no marker, such as SQLite's shell, reads or writes the file.

    Opening it also applies its own journal, so that what is kept is complete. A damaged file is no hindrance.
    """
    if not database.exists() or not database.stat().st_size:
        return
    with contextlib.closing(sqlite3.connect(database, isolation_level=None, timeout=_BUSY_TIMEOUT_MS / 1000)) as db:
        try:
            db.execute("BEGIN EXCLUSIVE")
            db.execute("ROLLBACK")
        except sqlite3.Error as error:
            if result_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise _in_use(database) from error
