"""What the first pull of each file saw, so that a later one must see the same: trust on first use.

Owns `pulled.json` in the models folder. Knows nothing of the network. Invariant: a record is written only for bytes that
were checked and have their final name; a damaged list is refused rather than begun anew, since that would trust anybody.
"""

from __future__ import annotations

import json
import pathlib
import re
from dataclasses import asdict, dataclass, fields

from edge_agent.core.errors import StorageError
from edge_agent.core.files import lock, replacing

FILE = "pulled.json"
HUB = "hub:"  # how the source of what the Hub publishes begins

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Pulled:
    """One file that was fetched.

    `source` is `hub:owner/name`, an address, or `file`; `path` is its name there, `revision` the Hub's commit. `file` is
    the model's name in the models folder (None: a part of a checkpoint), `alias` the catalogue name that means it.
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
    """All records, oldest first; raises `StorageError` if the list cannot be read."""
    path = folder / FILE
    try:
        return [_checked(row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError(f"The list of what was pulled, '{path}', cannot be read ({error.strerror}); check who owns it.") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise StorageError(
            f"The list of what was pulled, '{path}', is damaged ({error!s:.80}); remove it, and what is pulled next is trusted anew."
        ) from error


def put(folder: pathlib.Path, records: list[Pulled]) -> None:
    """Add records; each takes the place of those for the same path of its source, and for the same file. Raises `StorageError`.

    The list is replaced whole by a rename: a crash leaves the old one or the new one.
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
        raise StorageError(f"The folder '{folder}' cannot be written ({error.strerror}); check its space and who owns it.") from error


def find(folder: pathlib.Path, source: str) -> dict[str, Pulled]:
    """The records of one source, by path."""
    return {record.path: record for record in load(folder) if record.source == source}


def _checked(row: object) -> Pulled:
    """A record from JSON; anything odd is a ValueError or TypeError."""
    if not isinstance(row, dict):
        raise TypeError("an entry is no object")
    record = Pulled(**row)
    texts = [getattr(record, field.name) for field in fields(record) if field.name != "bytes"]
    if not all(text is None or isinstance(text, str) for text in texts) or not isinstance(record.bytes, int):
        raise TypeError("an entry has a value of the wrong kind")
    if not _SHA256.fullmatch(record.sha256):
        raise ValueError(f"{record.sha256!r:.70} is no sha256")
    if record.file is not None and pathlib.PurePath(record.file).name != record.file:
        raise ValueError(f"{record.file!r:.70} is no plain file name")
    return record
