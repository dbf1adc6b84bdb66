"""Writes a file of JSON lines, either completely or not at all.

Owns the temporary file next to it and the rename. Does not know what the lines mean. Invariant: an existing file does not
change until the new one is on disk.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
from types import TracebackType
from typing import IO, Any, Self

from edge_agent.core.errors import StorageError
from edge_agent.core.files import replacing


class RowsFile:
    """A context manager: `write` adds objects, and leaving without an exception puts the file in place.

    The temporary file is created at the start, so an unwritable folder is reported before the work. Raises `StorageError`.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._stack = contextlib.ExitStack()
        self._file: IO[str]

    def __enter__(self) -> Self:
        try:
            self._file = self._stack.enter_context(replacing(self.path, "w", private=False))
        except (OSError, ValueError) as error:
            raise self._refused(error) from error
        return self

    def write(self, row: dict[str, Any]) -> None:
        """Write one object as one line."""
        try:
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
        except OSError as error:
            raise self._refused(error) from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._stack.__exit__(kind, error, trace)
        except OSError as failed:
            raise self._refused(failed) from failed

    def _refused(self, error: OSError | ValueError) -> StorageError:
        reason = getattr(error, "strerror", None) or error
        return StorageError(f"Cannot write the rows to '{self.path}' ({reason}); choose another file.")
