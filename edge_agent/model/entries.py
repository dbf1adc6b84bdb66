"""A JSON file in the data folder with an entry for each model file, by its sha256.

Owns how it is read and written. Does not know what an entry holds. Invariant: what cannot be understood counts as not there.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
from typing import Any

from edge_agent.core.files import not_written, replacing

_MAX_BYTES = 1 << 20


def read(path: pathlib.Path, sha256: str) -> dict[str, Any] | None:
    """The entry of a model file; None if there is none."""
    entry = _all(path).get(sha256)
    return entry if isinstance(entry, dict) else None


def put(path: pathlib.Path, sha256: str, entry: dict[str, Any]) -> None:
    """Write the entry of a model file; the others stay. Raises `StorageError`."""
    entries = _all(path) | {sha256: entry}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, "w") as file:
            json.dump(entries, file, indent=1)
    except OSError as error:
        raise not_written(path, error) from error


def _all(path: pathlib.Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        if path.is_file() and path.stat().st_size <= _MAX_BYTES:  # opening a pipe would wait for ever
            data = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(data, dict):
                return data
    return {}
