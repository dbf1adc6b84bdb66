"""Writes a file of JSON lines that is either complete or not there.

Owns the temporary file beside it and the rename; knows nothing of what the lines mean. Invariant: a file that was
there before stays as it was until the new one is on the disk.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
from types import TracebackType
from typing import IO, Any, Self

from edge_agent.core.errors import StorageError
from edge_agent.core.files import replacing


def check_apart(out: pathlib.Path, source: str) -> None:
    """Raises `StorageError` if `out`, which is to be written, is the file that is read."""
    with contextlib.suppress(OSError):  # one of them is not there, or cannot be: they are apart
        if out.samefile(source):
            raise StorageError(f"'{out}' holds the questions; choose another file to write.")


class RowsFile:
    """A context manager: `write` objects, and leaving without an exception puts the file in its place.

    The temporary file is created on entering, so an unwritable folder is reported before the work, not after it.
    Raises `StorageError`.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._stack = contextlib.ExitStack()
        self._file: IO[str]

    def __enter__(self) -> Self:
        try:
            if self.path.exists() and not self.path.is_file():  # a rename onto /dev/null would replace the device
                raise ValueError("it is not a regular file")
            self._file = self._stack.enter_context(replacing(self.path, "w", private=False))
        except (OSError, ValueError) as error:
            raise self._refused(error) from error
        return self

    def write(self, row: dict[str, Any]) -> None:
        """Append one object as one line."""
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
        return StorageError(f"The rows cannot be written to '{self.path}' ({reason}); choose another file.")
