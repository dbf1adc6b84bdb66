"""The one SQLite file: opened, brought up to date, kept whole; transactions on it.

Owns the connection, its settings, and what happens to a damaged file. Knows nothing of what stands in the tables. Invariants:
a file that is not ours is never written to; a write happens inside `transaction()` - BEGIN IMMEDIATE to COMMIT, so that a
crash leaves all of it or nothing.

Why plain `sqlite3`: few statements, each says its transaction, and a recalled answer pays for every import (docs/decisions.md).
"""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import sqlite3
import threading
from collections.abc import Iterator
from typing import Any, Self

from edge_agent.core.errors import StorageError
from edge_agent.store.marker import Marker, refuse_foreign, set_aside
from edge_agent.store.salvage import Connection, is_damage, save_rows, what_is_wrong
from edge_agent.store.schema import APPLICATION_ID, copy_to, migrate, version

_log = logging.getLogger("edge_agent")
_PATIENCE_MS = 5000  # how long a write waits for another process's
_INCREMENTAL = 2  # PRAGMA auto_vacuum


class Database:
    """An open database; close it when done, or use it as a context manager. Raises `StorageError` if it cannot be used.

    `connection` replaces SQLite's own in tests that fail or end at a statement.
    """

    def __init__(self, path: pathlib.Path, connection: type[sqlite3.Connection] | None = None) -> None:
        self.path, self._connection, self._marker = path, connection or Connection, Marker(path)
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
        with self._transaction() as db:
            yield db

    @contextlib.contextmanager
    def forgetting(self, patient: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction that deletes questions with all that rests on them.

        Links between rows are not checked on the way: each deleted question would cost a look through every decision. Unless
        `patient`, it is refused at once while another process writes. Raises `StorageError`.
        """
        with self._lock:
            try:
                self._db.execute("PRAGMA foreign_keys = OFF")
                with self._patience(patient), self._transaction() as db:
                    yield db
            except sqlite3.Error as error:
                raise self._refused(error) from error
            finally:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("PRAGMA foreign_keys = ON")

    @contextlib.contextmanager
    def _patience(self, patient: bool) -> Iterator[None]:
        """Unless `patient`, wait for no other process on the way."""
        if patient:
            yield
            return
        self._db.execute("PRAGMA busy_timeout = 0")
        try:
            yield
        finally:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
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
    def journal_mode(self) -> str:
        """SQLite's name for how a crash is undone: "wal" or "truncate"."""
        return str(self.rows("PRAGMA journal_mode")[0]["journal_mode"])

    @property
    def in_transaction(self) -> bool:
        """Whether this thread is inside a `transaction()` and may write."""
        return self._writer == threading.get_ident()

    def change_mark(self) -> tuple[int, int]:
        """Another pair than before once anything was written, by this connection or any other; costs no query."""
        try:
            with self._lock:  # not in the middle of another thread's transaction
                return self._db.execute("PRAGMA data_version").fetchone()[0], self._db.total_changes
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def check_writable(self) -> None:
        """Commit a change that changes nothing, or raise `StorageError`."""
        with self.transaction() as db:
            db.execute(f"PRAGMA user_version = {version(self._db)}")

    def pack(self, patient: bool = True) -> None:
        """Write the file anew: no byte of what was deleted is left in it, and all of its space is given back to the disk.

        Raises `StorageError`, also if others are in the way; unless `patient`, at once.
        """
        try:
            with self._lock, self._patience(patient):
                self._db.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")  # of an older version's file, by the VACUUM
                self._db.execute("VACUUM")
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # without WAL, nothing
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def free_pages(self) -> int:
        """How many pages `shrink` could give back: 0 for a file of an older version, which keeps them and uses them again."""
        if self.rows("PRAGMA auto_vacuum")[0]["auto_vacuum"] != _INCREMENTAL:
            return 0
        return int(self.rows("PRAGMA freelist_count")[0]["freelist_count"])

    def shrink(self, n_pages: int) -> None:
        """Give at most so many pages back to the disk, without waiting for anybody; in WAL mode, what is in the log as well.

        One transaction of SQLite's own: a crash leaves the file as it was before. Raises `StorageError`.
        """
        vacuum = f"PRAGMA incremental_vacuum({n_pages});" if self.free_pages() else ""
        try:
            with self._lock, self._patience(False):
                self._db.executescript(f"{vacuum} PRAGMA wal_checkpoint(TRUNCATE)")  # execute() stops behind the first page
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
            return StorageError(
                f"The database '{self.path}' is damaged ({error}); try again: it is set aside then, and a new one is begun with what can "
                "be saved."
            )
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR:  # our statements are sound: perhaps the schema is ours no more
            self._damaged = True
            self._marker.say_damaged()
        busy = "locked" in str(error)
        what = "another program holds it; try again" if busy else f"{error}; check the disk's space and who owns the file"
        return StorageError(f"The database '{self.path}' cannot be used: {what}.")

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
        db, wrong = self._connect(suspect, self._check(suspect))
        if wrong is None:
            return db
        db.close()
        if not self._marker.alone:
            raise StorageError(
                f"The database '{self.path}' is damaged ({wrong}); end the other programs that use it, and start this again."
            )
        aside = set_aside(self.path)
        self._create()
        db, _ = self._connect(suspect=False, check=None)
        try:
            saved = save_rows(aside, db)
        except (sqlite3.Error, OSError) as error:
            saved, wrong = {}, f"{wrong}; nothing could be saved: {error}"
        counts = ", ".join(f"{n} {table.replace('_', ' ')}" for table, n in saved.items() if table not in ("clock", "spending", "marks"))
        _log.error("edge-agent: the database '%s' was damaged (%s). It lies whole at '%s'; a new one was begun with %s.",
                   self.path, wrong, aside, counts or "nothing")  # fmt: skip
        return db

    def _check(self, suspect: bool) -> str | None:
        """How the file is looked at: whole, if its last user did not close it; into its indexes, too, if SQLite found it damaged."""
        if self._marker.said_damaged:
            return "integrity_check"
        return "quick_check" if self._marker.alone and (suspect or self._marker.ended_badly) else None

    def _connect(self, suspect: bool, check: str | None) -> tuple[sqlite3.Connection, str | None]:
        """A connection with everything set and the schema up to date, and what is wrong with the file, if anything is."""
        new = self.path.stat().st_size == 0
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, factory=self._connection)
        try:
            db.row_factory = sqlite3.Row
            db.text_factory = lambda data: data.decode(errors="replace")  # a flipped bit in a text is no reason to answer nothing
            db.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")
            if new:
                db.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")  # of a file with anything in it, this would be a write
            db.execute("PRAGMA trusted_schema = OFF")
            db.execute("PRAGMA cell_size_check = ON")
            db.execute("PRAGMA mmap_size = 0")
            db.execute("PRAGMA secure_delete = ON")  # what was purged is really gone
            db.execute("PRAGMA synchronous = FULL")  # "queued" must survive a power cut
            wrong = what_is_wrong(db, check)
            if wrong is None and suspect and self._marker.alone:
                wrong = "it is empty" if not version(db) else None
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")  # the whole file is sound but for this
            if wrong is None:
                migrate(db, self.path)  # before WAL: a crash inside then leaves our mark in the file itself, not in a log beside it
                db.execute("PRAGMA foreign_keys = ON")
                db.execute(f"PRAGMA journal_mode = {journal_mode(sqlite3.sqlite_version_info)}")
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


def journal_mode(version: tuple[int, ...]) -> str:
    """WAL, or TRUNCATE for a version of SQLite whose WAL is not to be trusted.

    3.7.0 to 3.51.2 can corrupt a WAL database that two connections write or checkpoint at once; 3.44.6 and 3.50.7 have the
    correction, too (https://www.sqlite.org/wal.html).
    """
    corrected = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    return "WAL" if corrected else "TRUNCATE"
