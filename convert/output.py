"""A GGUF while it is written: header first, then one tensor after the other, straight into its place.

Owns the file under its unfinished name. Invariant: a file has its final name only when it is whole and on the disk; the
unfinished one is hidden beside it and locked; the next conversion to the same name writes over what a killed one left.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import pathlib
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import gguf
from gguf import GGMLQuantizationType as Kind
from gguf.gguf_writer import WriterState

from convert.quantize import n_bytes
from edge_agent.core.errors import ConvertError

ALIGNMENT: int = gguf.GGUF_DEFAULT_ALIGNMENT


def header(fields: Mapping[str, Any], architecture: str, tensors: Iterable[tuple[str, tuple[int, ...], Kind]]) -> bytes:
    """A GGUF up to the first tensor's data: the `fields` of a `GGUFWriter`, and each tensor's name, shape and type."""
    writer = gguf.GGUFWriter(None, architecture)
    writer.kv_data = [{**writer.kv_data[0], **fields}]
    for name, shape, kind in tensors:
        writer.add_tensor_info(name, shape, None, n_bytes(shape, kind), raw_dtype=kind)
    data = io.BytesIO()
    writer.fout, writer.state = [data], WriterState.EMPTY
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.write_padding(data, data.tell())
    return data.getvalue()


class Output:
    """`target` being written; as a context manager, what was not finished is removed."""

    def __init__(self, target: pathlib.Path, head: bytes) -> None:
        self.target = target
        self._part = target.with_name(f".{target.name}.part")
        self._hash = hashlib.sha256()
        self.n_bytes = 0
        self._file = self._part.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not (self._part.exists() and os.path.samestat(os.fstat(self._file.fileno()), self._part.stat())):
                raise BlockingIOError  # it was finished, or given up, in the moment before: what is locked has another name now
        except BlockingIOError as error:
            self._file.close()
            raise ConvertError(f"Another conversion is writing '{target}'; wait for it, or give another name.") from error
        try:
            self._file.truncate(0)
            self.write(head)
        except BaseException:
            self.discard()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.discard()

    def write(self, data: bytes | memoryview) -> None:
        """Append to the tensor under way."""
        self._file.write(data)
        self._hash.update(data)
        self.n_bytes += memoryview(data).nbytes

    def end_tensor(self) -> None:
        """The next tensor begins at an aligned place."""
        self.write(bytes(-self.n_bytes % ALIGNMENT))

    def finish(self) -> str:
        """Bring everything to the disk and give the file its name; returns its sha256."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._part.replace(self.target)  # before the lock ends with the file: nobody may begin anew in what is finished
        self._file.close()
        with contextlib.suppress(OSError):  # the name is there; that it outlives a power cut is as much as can be asked
            folder = os.open(self.target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Remove the unfinished file; does nothing once it is finished."""
        if self._file.closed:
            return  # what has the unfinished name now is another's
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a full disk refuses what is still buffered
            self._file.close()
