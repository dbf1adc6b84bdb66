"""Whether a database is ours, and whether the last process closed it.

Owns the marker beside the database, `edge-agent.db.open`. Every process that has the database open holds a lock on it, and the
operating system releases the lock when the process ends. Knows nothing about the tables. Invariants: a foreign file and a
damaged one of ours are told apart without changing a byte of either; only a process that is alone replaces a database.

The marker says whether the file was closed, and which file (device and inode) it was. So we recognise our
file even without its header.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
import threading
import time

from edge_agent.core.errors import StorageBusy, StorageForeign
from edge_agent.core.files import share_lock, try_lock
from edge_agent.store.file.replacement import BESIDE
from edge_agent.store.schema import APPLICATION_ID

WAIT_S = 5.0  # for another process that checks or repairs the file
_MAGIC = b"SQLite format 3\0"
_LOOK_BYTES = 1 << 20
_TABLES = (b"CREATE TABLE questions (", b"CREATE TABLE readings (", b"CREATE TABLE decisions (")

# Closing any other descriptor of a database file drops the locks that this process holds on it
# (https://www.sqlite.org/howtocorrupt.html, 2.2): a file that is open here is never read as a plain file.
_open_here: dict[str, int] = {}
_open_here_lock = threading.Lock()


class Marker:
    """The marker of one database: `take` before opening it, `release` after closing it."""

    def __init__(self, database: pathlib.Path) -> None:
        self._database = database
        self._path = database.with_name(database.name + ".open")
        self._handle: int | None = None
        self._shared = False
        self.alone = False
        self.not_closed = self.marked_damaged = False

    def is_ours(self) -> bool:
        """Whether the marker names the file at the database's path."""
        with contextlib.suppress(OSError, ValueError):
            _, *identity = self._path.read_text().split()
            return identity == identity_of(self._database)
        return False

    def take(self, wait_s: float = WAIT_S) -> None:
        """Hold the marker. `alone` says whether no other process does; only then `not_closed` and `marked_damaged` are known.

        Waits while a process that is alone checks the file. Raises `StorageBusy` if that takes longer than `wait_s`, OSError.
        """
        self._handle = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
        self.alone = try_lock(self._handle)
        if not self.alone and not share_lock(self._handle, wait_s):
            self.forget()
            raise self._busy()
        words = os.pread(self._handle, 200, 0).split()
        journal = any(_size(self._database.with_name(self._database.name + end)) for end in BESIDE[:2])
        self.marked_damaged = self.alone and words[:1] == [b"damaged"]
        self.not_closed = self.marked_damaged or (self.alone and (journal or words[:1] == [b"open"]))

    def share(self, wait_s: float = WAIT_S) -> None:
        """Record that the database is open, and let others open it too. Raises `StorageBusy`, OSError."""
        assert self._handle is not None
        if self.alone:
            self._write("open")
            if not share_lock(self._handle, wait_s):  # changing a lock frees it for a moment
                raise self._busy()
        self._shared = True
        with _open_here_lock:
            _open_here[str(self._database)] = _open_here.get(str(self._database), 0) + 1

    def mark_damaged(self) -> None:
        """Record that the next process that is alone must check the whole file."""
        if self._handle is not None:
            self._write("damaged")

    def release(self, in_order: bool = True) -> None:
        """Release the marker; the last process records that the file was closed."""
        if self._handle is None:
            return
        with contextlib.suppress(OSError):
            if try_lock(self._handle) and in_order and os.pread(self._handle, 200, 0).split()[:1] != [b"damaged"]:
                self._write("closed")
        self.forget()

    def forget(self) -> None:
        """Release the marker and record nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
            if self._shared:
                self._shared = False
                with _open_here_lock:
                    _open_here[str(self._database)] -= 1

    def _busy(self) -> StorageBusy:
        return StorageBusy(f"Another process is checking or repairing the database '{self._database}'; try again in a moment.")

    def _write(self, what: str) -> None:
        assert self._handle is not None
        with contextlib.suppress(OSError):  # a full disk: the next start checks the file without need
            text = f"{what} {' '.join(identity_of(self._database))}\n".encode()
            os.pwrite(self._handle, text, 0)
            os.ftruncate(self._handle, len(text))


def refuse_foreign(path: pathlib.Path, marker: Marker) -> bool:
    """Raise `StorageForeign` if the file is not ours, without changing a byte of it; returns True if ours looks damaged."""
    if not path.exists():
        return False
    known = marker.is_ours()
    if path.stat().st_size == 0:
        return known
    for _ in range(3):
        with contextlib.suppress(sqlite3.DatabaseError):
            with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
                if db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID:
                    return False
        if not known and not _is_open_here(path):
            break
        time.sleep(0.02)  # another process may be inside a COMMIT: an immutable read takes no locks
    if known or _is_open_here(path) or _resembles_ours(path):
        return True
    raise StorageForeign(
        f"The file '{path}' is not a database of edge-agent and was not changed; move it or choose another EDGE_AGENT_HOME."
    )


def _is_open_here(path: pathlib.Path) -> bool:
    with _open_here_lock:
        return _open_here.get(str(path), 0) > 0


def _resembles_ours(path: pathlib.Path) -> bool:
    """Whether a damaged file still shows that it is ours: by our mark, or by the text of our tables."""
    with path.open("rb") as file:  # not open here, so closing it drops no lock
        data = file.read(_LOOK_BYTES)
    named = sum(a == b for a, b in zip(data, _MAGIC, strict=False)) >= len(_MAGIC) - 2
    marked = data[68:72] == APPLICATION_ID.to_bytes(4, "big")
    return (named and marked) or ((named or marked) and sum(table in data for table in _TABLES) >= 2)


def identity_of(path: pathlib.Path) -> list[str]:
    """The device and inode of a file, as text. Raises OSError."""
    status = path.stat()
    return [str(status.st_dev), str(status.st_ino)]


def _size(path: pathlib.Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
