"""The one SQLite file: opens it, brings it up to date, keeps it sound, and runs transactions on it.

Owns the connection, its settings, and what happens to a damaged file. Knows nothing about the tables. Invariants:
a file that is not ours is never written to; a write happens inside `transaction()`, from BEGIN IMMEDIATE to COMMIT, so a
crash leaves all of it or nothing.

Why plain `sqlite3`: there are few statements, each says its transaction, and every import makes a recalled answer slower
(docs/decisions.md).
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
from edge_agent.store.salvage import Connection, is_damage, is_wrong_schema, result_code, save_rows, what_is_wrong
from edge_agent.store.schema import APPLICATION_ID, INCREMENTAL, copy_to, migrate, version

_log = logging.getLogger("edge_agent")
_BUSY_TIMEOUT_MS = 5000  # how long a write waits for another process's write
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class Database:
    """An open database; close it when done, or use it as a context manager. Raises `StorageError` if it cannot be used.

    `connection` replaces SQLite's own in tests that fail, or kill the process, at a statement.
    """

    def __init__(self, path: pathlib.Path, connection: type[sqlite3.Connection] | None = None) -> None:
        self.path, self._connection, self._marker = path, connection or Connection, Marker(path)
        self._writer: int | None = None  # the thread that is inside a transaction
        self._lock = threading.RLock()  # the threads of a process share the connection and take turns
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
        """Reopen the file if SQLite found it damaged; returns whether it did. The file is set aside, unless others use it.

        Raises `StorageError`.
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

        SQLite's errors become `StorageError`. A crash inside leaves the file as it was before.
        """
        with self._transaction() as db:
            yield db

    @contextlib.contextmanager
    def forgetting(self, wait: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction that deletes questions with everything that refers to them.

        Foreign keys are not checked inside it: each deleted question would cost a scan of every decision. Without
        `wait`, it fails at once while another process writes. Raises `StorageError`.
        """
        with self._lock:
            try:
                self._db.execute("PRAGMA foreign_keys = OFF")
                with self._busy_timeout(wait), self._transaction() as db:
                    yield db
            except sqlite3.Error as error:
                raise self._refused(error) from error
            finally:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("PRAGMA foreign_keys = ON")

    @contextlib.contextmanager
    def _busy_timeout(self, wait: bool) -> Iterator[None]:
        """Without `wait`, do not wait for other processes inside the block."""
        if wait:
            yield
            return
        self._db.execute("PRAGMA busy_timeout = 0")
        try:
            yield
        finally:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")

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
        """A pair that changes whenever anything is written, by this connection or another; costs no query."""
        try:
            with self._lock:  # not in the middle of another thread's transaction
                return self._db.execute("PRAGMA data_version").fetchone()[0], self._db.total_changes
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def check_writable(self) -> None:
        """Commit a change that changes nothing, or raise `StorageError`."""
        with self.transaction() as db:
            db.execute(f"PRAGMA user_version = {version(self._db)}")

    def pack(self, wait: bool = True) -> None:
        """Rewrite the file: no deleted byte stays in it, and all free space returns to the disk.

        Raises `StorageError`, also when another process keeps it locked; without `wait`, at once.
        """
        try:
            with self._lock, self._busy_timeout(wait):
                self._db.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")  # VACUUM also applies this to the file of an older version
                self._db.execute("VACUUM")
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # without WAL this does nothing
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def free_pages(self) -> int:
        """How many pages `shrink` could free: 0 for the file of an older version, which keeps its free pages for new rows."""
        if self.rows("PRAGMA auto_vacuum")[0]["auto_vacuum"] != INCREMENTAL:
            return 0
        return int(self.rows("PRAGMA freelist_count")[0]["freelist_count"])

    def shrink(self, n_pages: int) -> None:
        """Return at most `n_pages` to the disk, and in WAL mode the space of the log, without waiting for other processes.

        One transaction of SQLite's own: a crash leaves the file as it was before. Raises `StorageError`.
        """
        vacuum = f"PRAGMA incremental_vacuum({n_pages});" if self.free_pages() else ""
        try:
            with self._lock, self._busy_timeout(False):
                self._db.executescript(f"{vacuum} PRAGMA wal_checkpoint(TRUNCATE)")  # execute() would stop after the first page
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def copy_to(self, path: pathlib.Path) -> None:
        """Copy the file as of one moment; the copy is complete or absent. Raises `StorageError`, OSError."""
        try:
            with self._lock:
                copy_to(self._db, path)
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def _refused(self, error: sqlite3.Error) -> StorageError:
        """Our exception for SQLite's error; if it puts the file in doubt, the next process to open it checks all of it."""
        if is_damage(error) or is_wrong_schema(error):
            self._damaged = True
            self._marker.mark_damaged()
        if is_damage(error):
            return StorageError(
                f"The database '{self.path}' is damaged ({error}); try again, and edge-agent sets it aside and starts a new one "
                "with the rows that it can save."
            )
        if is_wrong_schema(error):
            return StorageError(
                f"The database '{self.path}' does not have the tables of this edge-agent ({error}); try again to check the file."
            )
        if result_code(error) in _BUSY:
            return StorageError(f"The database '{self.path}' is in use by another program; try again.")
        return StorageError(f"The database '{self.path}' cannot be used: {error}; check the free disk space and the file's owner.")

    def _open(self) -> sqlite3.Connection:
        """Open the file: create it if it is missing; set it aside and start a new one if it is damaged and no other process has it."""
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
            raise StorageError(f"The database '{self.path}' cannot be used ({error}); check the folder and its free space.") from error
        return db

    def _open_sound(self, suspect: bool) -> sqlite3.Connection:
        db, wrong = self._connect(suspect, self._check(suspect))
        if wrong is None:
            return db
        db.close()
        if not self._marker.alone:
            raise StorageError(
                f"The database '{self.path}' is damaged ({wrong}); close the other programs that use it, then start this one again."
            )
        aside = set_aside(self.path)
        self._create()
        db, _ = self._connect(suspect=False, check=None)
        try:
            saved = save_rows(aside, db)
        except (sqlite3.Error, OSError) as error:
            saved, wrong = {}, f"{wrong}; nothing could be saved: {error}"
        counts = ", ".join(f"{n} {table.replace('_', ' ')}" for table, n in saved.items() if table not in ("clock", "spending", "marks"))
        _log.error("edge-agent: the database '%s' was damaged (%s). It was moved to '%s'; a new one starts with %s.",
                   self.path, wrong, aside, counts or "nothing")  # fmt: skip
        return db

    def _check(self, suspect: bool) -> str | None:
        """How to check the file: all of it if its last user did not close it, its indexes too if SQLite found it damaged."""
        if self._marker.marked_damaged:
            return "integrity_check"
        return "quick_check" if self._marker.alone and (suspect or self._marker.not_closed) else None

    def _connect(self, suspect: bool, check: str | None) -> tuple[sqlite3.Connection, str | None]:
        """A connection with all settings and the schema up to date, and what is wrong with the file, or None."""
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, factory=self._connection)
        try:
            db.row_factory = sqlite3.Row
            db.text_factory = lambda data: data.decode(errors="replace")  # a flipped bit in a text must not stop an answer
            db.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
            db.execute("PRAGMA trusted_schema = OFF")
            db.execute("PRAGMA cell_size_check = ON")
            db.execute("PRAGMA mmap_size = 0")
            db.execute("PRAGMA secure_delete = ON")  # overwrites what is deleted
            db.execute("PRAGMA synchronous = FULL")  # "queued" must survive a power cut
            wrong = what_is_wrong(db, check)
            if wrong is None and suspect and self._marker.alone:
                wrong = "it is empty" if not version(db) else None
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")  # everything else in the file is sound
            if wrong is None:
                migrate(db, self.path)  # before WAL, so that a crash leaves our mark in the file itself, not in a log beside it
                db.execute("PRAGMA foreign_keys = ON")
                db.execute(f"PRAGMA journal_mode = {journal_mode(sqlite3.sqlite_version_info)}")
                db.execute("PRAGMA journal_size_limit = 4194304")
        except sqlite3.Error as error:
            if not is_damage(error) and not is_wrong_schema(error):
                db.close()
                raise
            return db, str(error)
        except BaseException:
            db.close()
            raise
        return db, wrong

    def _create(self) -> None:
        """Create the file if it is missing; nobody but its owner may read it."""
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        with contextlib.suppress(OSError):  # some file systems have no modes
            if self.path.stat().st_mode & 0o077:  # a copy from elsewhere: what visitors typed is its owner's alone
                self.path.chmod(0o600)


def journal_mode(version: tuple[int, ...]) -> str:
    """WAL, or TRUNCATE for a version of SQLite whose WAL can damage the file.

    3.7.0 to 3.51.2 can corrupt a WAL database that two connections write or checkpoint at once; 3.44.6 and 3.50.7 have the
    fix too (https://www.sqlite.org/wal.html).
    """
    fixed = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    return "WAL" if fixed else "TRUNCATE"
