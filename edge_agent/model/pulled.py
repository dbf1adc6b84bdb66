"""Records of pulled files: the hash that the first pull saw, which later pulls must match (trust on first use).

Owns `pulled.json` in the models folder. Does not use the network. Invariant: a record is written only for bytes that were
checked, just before they get their name; so after a crash a record may have no file yet, but no pulled file lacks its record.
A damaged list is refused; starting a new one would trust any file.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import IO, Any

from edge_agent.core.errors import StorageError
from edge_agent.core.files import has_no_locks, lock, replacing

FILE = "pulled.json"
HUB = "hub:"  # the start of the source of every file from the Hub
INSIDE = "!"  # a record calls the model in a bundle BUNDLE!model.gguf

_SHA256 = re.compile(r"[0-9a-f]{64}")
_UNLOCKED_TRIES = 5

TakeLock = Callable[[IO[Any]], None]


@dataclass(frozen=True, slots=True)
class Pulled:
    """One pulled file.

    `source` is `hub:owner/name`, a URL, or `file`. `path` is the file's name there, and `revision` the commit on the Hub.
    `file` is its name in the models folder (None for a part of a checkpoint), and `alias` its catalogue name. `settings`
    is the JSON of what a downloaded bundle proposed.
    """

    source: str
    path: str
    sha256: str
    bytes: int
    revision: str | None = None
    file: str | None = None
    alias: str | None = None
    pulled_at: str = ""
    settings: str | None = None


def load(folder: pathlib.Path) -> list[Pulled]:
    """All records, oldest first. Raises `StorageError` if the list cannot be read."""
    path = folder / FILE
    try:
        return [_checked(row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError(f"Cannot read the list of pulled files '{path}' ({error.strerror}); check its permissions.") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise StorageError(
            f"The list of pulled files '{path}' is damaged ({error!s:.80}); remove it, and the next pull of each file is trusted again."
        ) from error


def put(folder: pathlib.Path, records: list[Pulled], take_lock: TakeLock = lock) -> None:
    """Add records. Each replaces the records of the same path in its source and of the same file. Raises `StorageError`.

    The whole list is replaced by a rename, so a crash leaves the old list or the new one.
    """
    places, files = {(r.source, r.path) for r in records}, {r.file for r in records if r.file}

    def added(old: list[Pulled]) -> list[Pulled]:
        return [*(one for one in old if (one.source, one.path) not in places and one.file not in files), *records]

    _change(folder, added, take_lock)


def remove(folder: pathlib.Path, file: str, take_lock: TakeLock = lock) -> None:
    """Forget what is known of a file, so that the next pull of it is trusted again. Raises `StorageError`."""

    def without(old: list[Pulled]) -> list[Pulled]:
        places = {(one.source, one.path.partition(INSIDE)[0]) for one in old if one.file == file}
        return [one for one in old if one.file != file and (one.file is not None or (one.source, one.path) not in places)]

    _change(folder, without, take_lock)


def _change(folder: pathlib.Path, change: Callable[[list[Pulled]], list[Pulled]], take_lock: TakeLock) -> None:
    """Replace the list by what `change` makes of it, while no other process does; `change` twice is the same as once.

    Without locks, what another process wrote in between may replace it, so it is read and done again.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, take_lock) as is_locked:
            for _ in range(1 if is_locked else _UNLOCKED_TRIES):
                changed = change(load(folder))
                with replacing(folder / FILE, "w") as file:
                    json.dump([asdict(record) for record in changed], file, indent=1)
                if change(now := load(folder)) == now:
                    break
    except OSError as error:
        raise StorageError(f"Cannot write to the folder '{folder}' ({error.strerror}); check its permissions and free space.") from error


@contextlib.contextmanager
def _locked(folder: pathlib.Path, take_lock: TakeLock) -> Iterator[bool]:
    """Alone among processes, if the file system has locks; yields whether it has. Raises OSError."""
    with (folder / f".{FILE}.lock").open("w") as held:
        try:
            take_lock(held)
        except OSError as error:
            if not has_no_locks(error):
                raise
            yield False
        else:
            yield True


def find(folder: pathlib.Path, source: str) -> dict[str, Pulled]:
    """The records of one source, by path."""
    return {record.path: record for record in load(folder) if record.source == source}


def _checked(row: object) -> Pulled:
    """A record from JSON. Raises ValueError or TypeError for anything else."""
    if not isinstance(row, dict):
        raise TypeError("an entry is not an object")
    known = {field.name for field in fields(Pulled)}
    record = Pulled(**{key: value for key, value in row.items() if key in known})  # a later version may have added something
    texts = [getattr(record, field.name) for field in fields(record) if field.name != "bytes"]
    if not all(text is None or isinstance(text, str) for text in texts) or not isinstance(record.bytes, int):
        raise TypeError("an entry has a value of the wrong type")
    if not _SHA256.fullmatch(record.sha256):
        raise ValueError(f"{record.sha256!r:.70} is not a sha256")
    if record.file is not None and pathlib.PurePath(record.file).name != record.file:
        raise ValueError(f"{record.file!r:.70} is not a file name")
    return record
