"""A GGUF while it is written: header first, then one tensor after the other, straight into its place.

Owns the file under its unfinished name. Invariant: a file has its final name only when it is whole and on the disk; the
unfinished one is hidden beside it and locked; the next conversion to the same name writes over what a killed one left.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pathlib
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import gguf
from gguf import GGMLQuantizationType
from gguf.gguf_writer import WriterState

from convert.quantize import n_bytes
from edge_agent.core.errors import ConvertError
from edge_agent.core.files import put_in_place, try_lock

ALIGNMENT: int = gguf.GGUF_DEFAULT_ALIGNMENT


def header(fields: Mapping[str, Any], architecture: str, tensors: Iterable[tuple[str, tuple[int, ...], GGMLQuantizationType]]) -> bytes:
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
        if not (try_lock(self._file) and self._still_has_its_name()):
            self._file.close()
            raise ConvertError(f"Another conversion is writing '{target}'; wait for it, or give another name.")
        try:
            self._file.truncate(0)
            self.write(head)
        except BaseException:
            self.discard()
            raise

    def _still_has_its_name(self) -> bool:
        """False if the conversion that held the lock has just finished or given up: the locked file then has another name."""
        return self._part.exists() and os.path.samestat(os.fstat(self._file.fileno()), self._part.stat())

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
        put_in_place(self._part, self.target)  # before the lock ends with the file: no other conversion may start in a finished file
        self._file.close()
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Remove the unfinished file; does nothing once it is finished."""
        if self._file.closed:
            return  # what has the unfinished name now is another's
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a full disk refuses what is still buffered
            self._file.close()
