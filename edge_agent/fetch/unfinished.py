"""The unfinished file of a download: where it is, which process owns it, and which version of the file its bytes belong to.

Owns the hidden folder next to the target, its lock, and the comparison of two replies about one file. Makes no request.
Invariants: one process at a time writes to an unfinished file, also on a file system without locks; bytes of two versions
never come together in one file, also after a power cut.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import json
import os
import pathlib
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import IO, Any

from edge_agent.core.errors import DownloadFailed
from edge_agent.core.files import has_no_locks

TryLock = Callable[[IO[Any]], bool]
_VERSION = "version"  # the file beside the unfinished one


@contextlib.contextmanager
def unfinished(target: pathlib.Path, key: str, try_lock: TryLock) -> Iterator[pathlib.Path]:
    """The folder of the unfinished file for `key`, which no other process uses meanwhile. Raises `DownloadFailed` and OSError.

    A file system without locks gets a folder for each process; what a dead process of this machine left is taken over.
    """
    folder = target.parent / f".{key}.part"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            if not try_lock(lock):
                raise DownloadFailed(f"Another process is fetching '{target.name}' right now; wait for it.")
        except OSError as error:
            if not has_no_locks(error):
                raise
            with contextlib.suppress(OSError):
                (folder / "lock").unlink()
                folder.rmdir()
            folder = _own_folder(target.parent, key)
        else:
            if not os.fstat(lock.fileno()).st_nlink:  # it finished a moment ago, and removed the folder with the lock
                raise DownloadFailed(f"Another process has just fetched '{target.name}'; run the same command again.")
        try:
            yield folder
        finally:
            part = folder / target.name
            if not part.exists() or part.stat().st_size == 0:
                shutil.rmtree(folder, ignore_errors=True)


def _own_folder(parent: pathlib.Path, key: str) -> pathlib.Path:
    """The folder for `key` of this process alone."""
    machine = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]  # the folder may be shared between machines
    own = parent / f".{key}.{machine}-{os.getpid()}.part"
    for left in parent.glob(f".{key}.{machine}-*.part"):
        process = left.name.removesuffix(".part").rpartition("-")[2]
        if process.isdigit() and not _is_alive(int(process)) and not own.exists():
            with contextlib.suppress(OSError):  # another process was faster
                left.rename(own)
    own.mkdir(exist_ok=True)
    return own


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


@dataclass(frozen=True, slots=True)
class Version:
    """What a server said about a file: its strong ETag, the time of its last change, and its size; None where it did not.

    Either of the first two tells whether bytes that come later belong to the same file (RFC 9110, 8.8.2 and 13.1.5). `tag` is any
    ETag without its W/: a weak one does not say that two files are the same, but another one says that they differ.
    """

    etag: str | None = None
    modified: str | None = None
    bytes: int | None = None
    tag: str | None = None

    @property
    def condition(self) -> str | None:
        """The value for If-Range; None if the server said nothing that can be relied on."""
        return self.etag or self.modified

    def is_continued_by(self, later: Version) -> bool:
        """Whether a part of a file that was sent `later` is certainly of this version."""
        if self.bytes is not None and later.bytes is not None and self.bytes != later.bytes:
            return False
        if self.tag and later.tag and self.tag != later.tag:
            return False
        return self.etag == later.etag if self.etag else self.modified is not None and self.modified == later.modified


def version_of(status: int, headers: Mapping[str, str]) -> Version:
    """The version of the file that a reply sends, from its status (200 or 206) and headers (their names in any case)."""
    etag, modified = headers.get("etag", ""), headers.get("last-modified", "")
    size = _number(headers.get("content-range", "").rpartition("/")[2] if status == 206 else headers.get("content-length", ""))
    return Version(
        etag if etag.startswith('"') and etag.isascii() else None,  # W/"..." allows other bytes
        modified if modified.isascii() and _is_old(modified, headers.get("date", "")) else None,
        size,
        etag.removeprefix("W/") or None,
    )


def start_of(headers: Mapping[str, str]) -> int | None:
    """Where the bytes of a 206 start."""
    unit, _, rest = headers.get("content-range", "").partition(" ")
    return _number(rest.partition("-")[0]) if unit.lower() == "bytes" else None


def load_version(part: pathlib.Path) -> Version | None:
    """The version that the bytes in `part` belong to, or None if that is not known."""
    try:
        fields = json.loads((part.parent / _VERSION).read_bytes())
        return Version(**fields) if isinstance(fields, dict) else None
    except (OSError, ValueError, TypeError):
        return None


def begin(part: pathlib.Path, file: IO[bytes], version: Version) -> None:
    """Empty the file and note the version of what comes now, in this order on the disk too. Raises OSError."""
    file.truncate(0)
    file.seek(0)
    os.fsync(file.fileno())
    with (part.parent / _VERSION).open("w") as noted:
        json.dump(asdict(version), noted)
        noted.flush()
        os.fsync(noted.fileno())


def _is_old(modified: str, date: str) -> bool:
    """Whether the file was last changed a second or more before the reply: within one second it could change unseen."""
    try:
        age = email.utils.parsedate_to_datetime(date) - email.utils.parsedate_to_datetime(modified)
    except (ValueError, TypeError, OverflowError):
        return False
    return age.total_seconds() >= 1


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
