"""Atomic writes of whole files, and locks between processes.

Owns temporary files and folders, the rename that gives them their name, what a new file may replace, fsync, and `flock`. Knows nothing
about their contents. Invariants: a name always belongs to a complete file; a crash leaves the old file or the new one, and perhaps a
hidden temporary beside it. Only a regular file is replaced: a rename onto a device or a pipe would destroy it. A temporary is locked
while its writer lives, so whoever writes in the same folder next removes what nobody holds.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from edge_agent.core.errors import StorageError

DOWNLOAD_KEPT_S = 14 * 86_400.0  # an unfinished download can be continued for this long (by the wall clock)
_DOWNLOAD = re.compile(r"\.[0-9a-f]{16}\.part")  # the folder of an unfinished download; its file `lock` is held by the writer
_TEMPORARY = re.compile(r"\.edge-agent-[0-9a-f]{16}\.part")


def put_in_place(part: pathlib.Path, target: pathlib.Path) -> None:
    """Rename a finished file to `target`, replacing any older one; both must be on one file system. Raises OSError.

    The bytes are on the disk before the rename, so a power cut leaves the old file or the new one.
    """
    _check_replaceable(target)
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(target)
    sync_folder(target.parent)


def check_output(path: pathlib.Path, others: Mapping[pathlib.Path, str]) -> None:
    """Refuse a file to write that cannot be written, or that would destroy another one. Opens and writes nothing.

    `others` are the files that must stay, each with what it holds ("the questions"), whether they exist or not. They are compared as
    files, so a link to one is that file. Raises `StorageError`.
    """
    try:
        _check_replaceable(path)
        if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
            raise OSError(errno.EACCES, "its folder is missing, or it may not be written")
        same = next((what for other, what in others.items() if _is_same(path, other)), None)
    except (OSError, ValueError) as error:
        raise StorageError(f"Cannot write '{path}' ({getattr(error, 'strerror', None) or error}); choose another file.") from error
    if same:
        raise StorageError(f"'{path}' holds {same}; write to another file.")


def check_output_folder(path: pathlib.Path) -> None:
    """Refuse a folder to write into that cannot be made or written. Makes nothing. Raises `StorageError`."""
    there = next((each for each in (path, *path.absolute().parents) if os.path.lexists(each)), path)
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "it may not be written" if there.is_dir() else f"'{there}' is not a folder"
        raise StorageError(f"Cannot write into the folder '{path}' ({why}); choose another folder.")


def _is_same(path: pathlib.Path, other: pathlib.Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one of them is not there, or may not be looked at
        return path.resolve() == other.resolve()


def _check_replaceable(target: pathlib.Path) -> None:
    """Raise OSError if the name belongs to a folder, a device or a pipe, or to an open stream (`/dev/stdout`)."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return
    if target.is_symlink() and target.parent.resolve().parts[1:2] in (("dev",), ("proc",)):
        raise OSError(errno.EINVAL, "it is an open stream")
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, "it is a folder")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file")


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

    `mode` is "wb" or "w" (UTF-8). A `private` file is readable only by its owner. Only a regular file is replaced.
    Unless `durable`, a power cut may lose the new file, but never leaves half of one. Raises OSError.
    """

    def create(path: pathlib.Path) -> int:
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600 if private else 0o666)

    _check_replaceable(target)  # this also refuses a name that no file can have, before the work
    part, handle = _held(target.parent, create)
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
            part.replace(target)  # while it is still held
        if durable:
            sync_folder(target.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def temporary_folder(beside: pathlib.Path) -> Iterator[pathlib.Path]:
    """A hidden folder next to `beside`, on the same file system, removed at the end of the block. Raises OSError."""

    def create(path: pathlib.Path) -> int | None:
        path.mkdir(mode=0o700)
        try:
            return os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None

    folder, handle = _held(beside.parent, create)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _held(folder: pathlib.Path, create: Callable[[pathlib.Path], int | None]) -> tuple[pathlib.Path, int]:
    """A new temporary in `folder`, locked, and its open handle; leftovers there are removed first.

    The name is short whatever the target's name is: a file system allows 255 bytes. `create` returns None if another process
    swept the temporary at once; the same may happen until it is locked.
    """
    sweep_leftovers(folder)
    while True:
        path = folder / f".edge-agent-{secrets.token_hex(8)}.part"
        if (handle := create(path)) is None:
            continue
        try:
            with contextlib.suppress(OSError):  # without locks nothing is swept either
                lock(handle)
            if os.fstat(handle).st_ino == path.stat().st_ino:
                return path, handle
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def sweep_leftovers(folder: pathlib.Path) -> list[str]:
    """Remove what killed writers left in a folder, and return the names: each temporary that no process holds.

    An unfinished download is kept until nothing was added to it for `DOWNLOAD_KEPT_S`. Never raises: what cannot be removed stays.
    """
    swept = []
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            name = path.name
            if _TEMPORARY.fullmatch(name) or (_DOWNLOAD.fullmatch(name) and _is_old(path)):
                with contextlib.suppress(OSError):
                    if _remove_unheld(path, path / "lock" if _DOWNLOAD.fullmatch(name) else path):
                        swept.append(name)
    return swept


def _remove_unheld(path: pathlib.Path, held: pathlib.Path) -> bool:
    """Remove a temporary file or folder if no process holds the lock on `held`; returns whether it did. Raises OSError."""
    handle = os.open(held, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        if not try_lock(handle):
            return False
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    finally:
        os.close(handle)
    return True


def _is_old(download: pathlib.Path) -> bool:
    """Whether nothing was added to an unfinished download for long. A clock that was wrong costs at most the download."""
    newest = max((entry.stat().st_mtime for entry in download.iterdir()), default=0.0)
    return time.time() - newest > DOWNLOAD_KEPT_S


def not_written(target: pathlib.Path, error: OSError) -> StorageError:
    """The exception for a file that cannot be written."""
    hint = "give another name" if error.errno in (errno.EINVAL, errno.EISDIR) else "check the free disk space and the folder's owner"
    return StorageError(f"'{target}' cannot be written ({error.strerror or error}); {hint}.")


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


def unlock(file: int | IO[Any]) -> None:
    """Release the lock of an open file, also for forked children that have a copy of it."""
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_UN)


def lock(file: int | IO[Any]) -> None:
    """Take the exclusive lock of an open file, waiting for its holder. Raises OSError where the file system has no locks."""
    fcntl.flock(file, fcntl.LOCK_EX)


def share_lock(file: int | IO[Any], timeout_s: float) -> bool:
    """Take the shared lock of an open file, or turn an exclusive one into it; returns whether it came within the time.

    Raises OSError where the file system has no locks.
    """
    ends = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= ends:
                return False
            time.sleep(0.02)
        else:
            return True
