"""The one SQLite file, open: runs transactions on it, and copies, packs and shrinks it.

Owns the connection, who may use it (threads in turn; a forked child never), and when it is opened again. Knows nothing about the
tables, or how the file is opened and repaired (`opening.py`). Invariants: a write happens inside `transaction()`, from BEGIN
EXCLUSIVE to COMMIT, so a crash leaves all of it or nothing; a thread that waits for another program's lock does not keep its turn at
the connection, so no thread waits behind another one's wait.

Why plain `sqlite3`: there are few statements, each says its transaction, and every import makes a recalled answer slower
(docs/decisions.md).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pathlib
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any, Self

from edge_agent.core.errors import StorageError, StorageForeign
from edge_agent.store.file import opening
from edge_agent.store.file.marker import Marker
from edge_agent.store.file.opening import Opening
from edge_agent.store.file.salvage import is_busy, is_damage, is_wrong_schema, refused
from edge_agent.store.schema import INCREMENTAL, copy_to, version

_OPEN_AGAIN_S = 30.0  # a database that could not be opened is tried again after this time
_NAPS_S = (0.001, 0.1)  # between two looks at another program's lock: the first one, and the longest


class Patience:
    """How long one piece of work may still wait for another program's lock, all its steps together: `left_s` seconds."""

    def __init__(self, left_s: float | None = None) -> None:
        self.left_s = opening.BUSY_TIMEOUT_MS / 1000 if left_s is None else left_s

    @property
    def is_over(self) -> bool:
        """Whether the next step must not wait."""
        return self.left_s <= 0


class Database:
    """An open database; close it when done, or use it as a context manager.

    Raises `StorageError` if it cannot be used; without `must_open` every call raises it instead, until `renew` can open the file.
    A file that is not ours raises `StorageForeign` at once: then a setting is wrong.
    `connection` replaces SQLite's own in tests that fail, or kill the process, at a statement.
    """

    def __init__(self, path: pathlib.Path, connection: type[sqlite3.Connection] | None = None, must_open: bool = True) -> None:
        self.path, self._connection, self._marker = path, connection, Marker(path)
        self._writer: int | None = None  # the thread that is inside a transaction
        self._lock = threading.RLock()  # the threads of a process share the connection and take turns
        self._here = threading.local()  # the `Patience` of what this thread does
        self._must_reopen = False  # the file is damaged, or not at its path any more
        self._connected: sqlite3.Connection | None = None
        self.n_opened = 0  # how often a file was opened: ids of an earlier one may mean nothing now
        self._why_not = StorageError(f"The database '{path}' is closed; open it again.")
        self._tried_at: float | None = None  # when the file could not be opened; None if it is not to be tried again
        try:
            self._connect_now()
        except StorageError as error:
            if must_open or isinstance(error, StorageForeign):
                raise
        _here.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether the file is open in this process."""
        return self._connected is not None

    @property
    def why_not_open(self) -> str | None:
        """Why the file is not open; None if it is."""
        return None if self.is_open else str(self._why_not)

    def close(self) -> None:
        """Close the file, once no other thread is in the middle of using it; closing twice is fine."""
        with self._lock:  # SQLite crashes the process if a connection is closed while another thread uses it
            self._tried_at = None
            if self._connected is not None:
                self._connected.close()
                self._connected = None
                self._why_not = StorageError(f"The database '{self.path}' is closed; open it again.")
            self._marker.release()

    def renew(self) -> bool:
        """Reopen the file if SQLite found it damaged or moved away, or if it could not be opened some time ago; returns whether it did.

        A damaged file is replaced, unless others use it. Raises `StorageError`.
        """
        with self._lock:
            if self._connected is None:
                if self._tried_at is None or time.monotonic() - self._tried_at < _OPEN_AGAIN_S:
                    return False
            elif not self._must_reopen:
                return False
            else:
                self._connected.close()
                self._connected = None
                self._marker.release()
            self._connect_now()
        return True

    def _connect_now(self) -> None:
        try:
            self._connected = Opening(self.path, self._marker, self._connection).open()
            self._must_reopen, self._tried_at = False, None
            self.n_opened += 1
        except StorageError as error:
            self._why_not, self._tried_at = error, time.monotonic()
            raise

    @property
    def _db(self) -> sqlite3.Connection:
        """The connection. Raises `StorageError` if there is none."""
        if self._connected is None:
            raise type(self._why_not)(str(self._why_not))
        return self._connected

    def left_behind(self) -> None:
        """In a forked child: let go of the file. SQLite's connection is neither used nor closed there."""
        if self._connected is not None:
            _parents.append(self._connected)
            self._connected = None
            self._why_not = StorageError(
                f"The database '{self.path}' was opened before this process was forked; open it again in this process."
            )
        self._tried_at, self._writer, self._lock = None, None, threading.RLock()
        self._marker.forget()

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[bool]:
        """Wait until no thread is inside a transaction, and let none begin; False if one stays inside for very long."""
        held = self._lock.acquire(timeout=2 * opening.BUSY_TIMEOUT_MS / 1000)
        try:
            yield held
        finally:
            if held:
                self._lock.release()

    @contextlib.contextmanager
    def waiting_once(self, patience: Patience | None = None) -> Iterator[Patience]:
        """In the block, all steps of this thread share one `Patience` with another program's lock, and the block gets it.

        A person waits for an answer, and each step would otherwise wait for seconds. Threads that work together share a `patience`;
        without one, this thread keeps the one that it has, or gets a new one.
        """
        before: Patience | None = getattr(self._here, "patience", None)
        self._here.patience = now = patience or before or Patience()
        try:
            yield now
        finally:
            self._here.patience = before

    @property
    def must_not_wait(self) -> bool:
        """Whether this thread's patience with another program's lock is over."""
        patience: Patience | None = getattr(self._here, "patience", None)
        return patience is not None and patience.is_over

    @contextlib.contextmanager
    def _turn(self, sql: str, parameters: tuple[Any, ...] = ()) -> Iterator[sqlite3.Cursor]:
        """This thread's turn at the connection, begun with a statement that another program's lock may refuse.

        While it waits for that lock, other threads have their turns.
        """
        patience: Patience = getattr(self._here, "patience", None) or Patience()
        nap_s, longest_s = _NAPS_S
        while True:
            with self._lock:
                try:
                    cursor = self._db.execute(sql, parameters)
                except sqlite3.Error as error:
                    if not is_busy(error) or patience.is_over or self.in_transaction:
                        raise
                else:
                    yield cursor
                    return
            began = time.monotonic()
            time.sleep(min(nap_s, patience.left_s))
            patience.left_s -= time.monotonic() - began
            nap_s = min(2 * nap_s, longest_s)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One write, all or nothing: BEGIN EXCLUSIVE, then COMMIT, or ROLLBACK and the exception.

        Only its beginning may have to wait for another program: without WAL, a COMMIT would have to wait for those that read, and
        the threads of this process behind it. SQLite's errors become `StorageError`. A crash inside leaves the file as it was before.
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
                with self.waiting_once(None if wait else Patience(0)), self._transaction() as db:
                    yield db
            except sqlite3.Error as error:
                raise self._refused(error) from error
            finally:
                with contextlib.suppress(sqlite3.Error, StorageError):
                    self._db.execute("PRAGMA foreign_keys = ON")

    @contextlib.contextmanager
    def _busy_timeout(self, wait: bool) -> Iterator[None]:
        """In the block, SQLite itself waits for other programs, and this process's threads wait behind it; only if `wait`."""
        if not wait:
            yield
            return
        db = self._db
        db.execute(f"PRAGMA busy_timeout = {opening.BUSY_TIMEOUT_MS}")
        try:
            yield
        finally:  # the file may be closed by now, if an interrupt left the block unfinished
            with contextlib.suppress(sqlite3.Error):
                db.execute("PRAGMA busy_timeout = 0")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._turn("BEGIN EXCLUSIVE"):
                db = self._db
                self._writer = threading.get_ident()
                try:
                    yield db
                    db.execute("COMMIT")
                except GeneratorExit:  # an interrupt left the block unfinished; the file may be closed by now
                    with contextlib.suppress(sqlite3.Error):
                        db.execute("ROLLBACK")
                    raise
                except BaseException:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
                    raise
                finally:
                    self._writer = None
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def rows(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        """The rows of a query, as dictionaries; reads only."""
        try:
            with self._turn(sql, parameters) as found:
                return [dict(row) for row in found]
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
            with self._turn("PRAGMA data_version") as found:  # not in the middle of another thread's transaction
                return found.fetchone()[0], self._db.total_changes
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
            with self._lock:
                self._db.executescript(f"{vacuum} PRAGMA wal_checkpoint(TRUNCATE)")  # execute() would stop after the first page
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def copy_to(self, path: pathlib.Path) -> None:
        """Copy the file as of one moment; the copy is complete or absent. Raises `StorageError`, OSError."""
        try:
            with self._lock, self._busy_timeout(True):
                copy_to(self._db, path)
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def _refused(self, error: sqlite3.Error) -> StorageError:
        """Our exception for SQLite's error; if it puts the file in doubt, the next process to open it checks all of it."""
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_DBMOVED:  # another file has its path, or none
            self._must_reopen = True
        if is_damage(error) or is_wrong_schema(error):
            self._must_reopen = True
            self._marker.mark_damaged()
        return refused(self.path, error)


# A fork copies a connection, but neither the locks that it holds nor SQLite's knowledge of who holds them. So nothing is forked in the
# middle of a transaction, and the child lets go of what its parent has open.
_here: weakref.WeakSet[Database] = weakref.WeakSet()
_parents: list[sqlite3.Connection] = []  # never closed: closing would touch the parent's files
_forking: dict[int, contextlib.ExitStack] = {}


def _before_fork() -> None:
    stack = _forking[threading.get_ident()] = contextlib.ExitStack()
    for database in list(_here):
        stack.enter_context(database.standing_still())


def _after_fork_in_parent() -> None:
    _forking.pop(threading.get_ident()).close()


def _after_fork_in_child() -> None:
    _forking.clear()
    for database in list(_here):
        database.left_behind()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


@atexit.register
def _close_all() -> None:
    """Close what is still open when the interpreter ends: a daemon thread inside SQLite would crash it."""
    for database in list(_here):
        with database.standing_still() as still:
            if still:
                database.close()
