"""Records of pulled files: the hash that the first pull saw, which later pulls must match (trust on first use).

Owns `pulled.json` in the models folder. Does not use the network. Invariant: a record is written only for bytes that were
checked and have their final name. A damaged list is refused; starting a new one would trust any file.
"""

from __future__ import annotations

import json
import pathlib
import re
from dataclasses import asdict, dataclass, fields

from edge_agent.core.errors import StorageError
from edge_agent.core.files import lock, replacing

FILE = "pulled.json"
HUB = "hub:"  # the start of the source of every file from the Hub

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Pulled:
    """One pulled file.

    `source` is `hub:owner/name`, a URL, or `file`. `path` is the file's name there, and `revision` the commit on the Hub.
    `file` is its name in the models folder (None for a part of a checkpoint), and `alias` its catalogue name.
    """

    source: str
    path: str
    sha256: str
    bytes: int
    revision: str | None = None
    file: str | None = None
    alias: str | None = None
    pulled_at: str = ""


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


def put(folder: pathlib.Path, records: list[Pulled]) -> None:
    """Add records. Each replaces the records of the same path in its source and of the same file. Raises `StorageError`.

    The whole list is replaced by a rename, so a crash leaves the old list or the new one.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f".{FILE}.lock").open("w") as held:
            lock(held)
            places, files = {(r.source, r.path) for r in records}, {r.file for r in records if r.file}
            kept = [old for old in load(folder) if (old.source, old.path) not in places and old.file not in files]
            with replacing(folder / FILE, "w") as file:
                json.dump([asdict(record) for record in [*kept, *records]], file, indent=1)
    except OSError as error:
        raise StorageError(f"Cannot write to the folder '{folder}' ({error.strerror}); check its permissions and free space.") from error


def find(folder: pathlib.Path, source: str) -> dict[str, Pulled]:
    """The records of one source, by path."""
    return {record.path: record for record in load(folder) if record.source == source}


def _checked(row: object) -> Pulled:
    """A record from JSON. Raises ValueError or TypeError for anything else."""
    if not isinstance(row, dict):
        raise TypeError("an entry is not an object")
    record = Pulled(**row)
    texts = [getattr(record, field.name) for field in fields(record) if field.name != "bytes"]
    if not all(text is None or isinstance(text, str) for text in texts) or not isinstance(record.bytes, int):
        raise TypeError("an entry has a value of the wrong type")
    if not _SHA256.fullmatch(record.sha256):
        raise ValueError(f"{record.sha256!r:.70} is not a sha256")
    if record.file is not None and pathlib.PurePath(record.file).name != record.file:
        raise ValueError(f"{record.file!r:.70} is not a file name")
    return record
