"""Atomic writes of whole files, and locks between processes.

Owns temporary files, the rename that gives them their name, fsync, and `flock`. Knows nothing about their contents.
Invariant: a name always belongs to a complete file. A crash leaves the old file or the new one, and perhaps a hidden
temporary beside it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from edge_agent.core.errors import StorageError


def put_in_place(part: pathlib.Path, target: pathlib.Path) -> None:
    """Rename a finished file to `target`, replacing any older one; both must be on one file system. Raises OSError.

    The bytes are on the disk before the rename, so a power cut leaves the old file or the new one.
    """
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(target)
    sync_folder(target.parent)


def sync_folder(folder: pathlib.Path) -> None:
    """Flush the names in a folder to the disk. A file system that cannot do this is not an error."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def replacing(target: pathlib.Path, mode: str = "wb", private: bool = True, durable: bool = True) -> Iterator[IO[Any]]:
    """A new file that takes the place of `target` when the block ends without an exception.

    `mode` is "wb" or "w" (UTF-8). A `private` file is readable only by its owner.
    Unless `durable`, a power cut may lose the new file, but never leaves half of one. Raises OSError.
    """
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    handle = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600 if private else 0o666)
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        if durable:
            put_in_place(part, target)
        else:
            part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def temporary_folder(beside: pathlib.Path) -> Iterator[pathlib.Path]:
    """A hidden folder next to `beside`, on the same file system, removed at the end of the block. Raises OSError."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=beside.parent, prefix=f".{beside.name}.", suffix=".part"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def not_written(target: pathlib.Path, error: OSError) -> StorageError:
    """The exception for a file that cannot be written."""
    return StorageError(f"'{target}' cannot be written ({error.strerror or error}); check the free disk space and the folder's owner.")


def has_no_locks(error: OSError) -> bool:
    """Whether a lock failed because this file system has none (some network and FUSE mounts), and not because something is wrong."""
    return error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


def try_lock(file: int | IO[Any]) -> bool:
    """Take the exclusive lock of an open file without waiting; returns whether it was free. Closing the file releases it.

    Raises OSError where the file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock(file: int | IO[Any]) -> None:
    """Take the exclusive lock of an open file, waiting for its holder. Raises OSError where the file system has no locks."""
    fcntl.flock(file, fcntl.LOCK_EX)


def share_lock(file: int | IO[Any]) -> None:
    """Take the shared lock of an open file, waiting while another holds it exclusively; an exclusive lock becomes shared."""
    fcntl.flock(file, fcntl.LOCK_SH)
