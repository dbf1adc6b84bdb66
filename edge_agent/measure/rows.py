"""Writes a file of JSON lines that is either complete or not there.

Owns the temporary file beside it and the rename; knows nothing of what the lines mean. Invariant: a file that was
there before stays as it was until the new one is on the disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from types import TracebackType
from typing import IO, Any, Self

from edge_agent.core.errors import StorageError


def check_apart(out: pathlib.Path, source: str) -> None:
    """Raises `StorageError` if `out`, which is to be written, is the file that is read."""
    with contextlib.suppress(OSError):  # one of them is not there, or cannot be: they are apart
        if out.samefile(source):
            raise StorageError(f"'{out}' holds the questions; choose another file to write.")


class RowsFile:
    """A context manager: `write` objects, and leaving without an exception puts the file in its place.

    The temporary file is made on entering, so that a folder that cannot be written is known before the work, not
    after it. Raises `StorageError`.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._temporary: pathlib.Path
        self._file: IO[str]

    def __enter__(self) -> Self:
        try:
            if self.path.exists() and not self.path.is_file():  # a rename onto /dev/null would replace the device
                raise ValueError("it is no plain file")
            self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
            self._file = self._temporary.open("x", encoding="utf-8")
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
            with self._file:
                if kind is None:
                    self._file.flush()
                    os.fsync(self._file.fileno())
            if kind is None:
                self._temporary.replace(self.path)
        except OSError as failed:
            raise self._refused(failed) from failed
        finally:
            self._temporary.unlink(missing_ok=True)

    def _refused(self, error: OSError | ValueError) -> StorageError:
        reason = getattr(error, "strerror", None) or error
        return StorageError(f"The rows cannot be written to '{self.path}' ({reason}); choose another file.")
