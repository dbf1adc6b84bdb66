"""Writes a GGUF: the header first, then one tensor after another, each directly in its place.

Owns the unfinished file. Invariant: a file gets its final name only when it is complete and on disk. Until then it is a
hidden, locked file in the same folder; the next conversion to the same name overwrites what a killed one left behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import gguf
from gguf import GGMLQuantizationType
from gguf.gguf_writer import WriterState

from convert.quantize import n_bytes
from edge_agent.core.errors import ConvertError
from edge_agent.core.files import put_in_place, try_lock

ALIGNMENT: int = gguf.GGUF_DEFAULT_ALIGNMENT
_MAX_NAME_BYTES = 120  # a file system allows 255, and more is added to the name


def check_name(name: str) -> str:
    """The name of a file to write. Raises `ConvertError` if it is a path."""
    if pathlib.PurePath(name).name != name:
        raise ConvertError(f"'{name}' cannot be a file name; give a name without slashes.")
    return name


def default_name(folders: Sequence[pathlib.Path]) -> str:
    """The name of a file made from a checkpoint and adapters: that of each folder, as BASE+ADAPTER; of many, the first and last."""
    names = [folder.resolve().name for folder in folders]
    if len("+".join(names).encode()) > _MAX_NAME_BYTES and len(names) > 2:
        names = [names[0], f"{len(names) - 2}-more", names[-1]]
    return "+".join(name for name in names if name)


def header(fields: Mapping[str, Any], architecture: str, tensors: Iterable[tuple[str, tuple[int, ...], GGMLQuantizationType]]) -> bytes:
    """The start of a GGUF, up to the data: `fields` are those of a `GGUFWriter`, `tensors` are (name, shape, type)."""
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


def remove_unfinished(target: pathlib.Path) -> None:
    """Remove the unfinished file of `target` if no conversion is writing it: one that was interrupted while it was created."""
    part = _part_of(target)
    with contextlib.suppress(OSError), part.open("rb") as file:
        if try_lock(file):
            part.unlink(missing_ok=True)


def _part_of(target: pathlib.Path) -> pathlib.Path:
    return target.with_name(f".{target.name}.part")


class Output:
    """The file `target` while it is written. As a context manager it removes an unfinished file."""

    def __init__(self, target: pathlib.Path, head: bytes) -> None:
        self.target = target
        self._part = _part_of(target)
        self._hash = hashlib.sha256()
        self.n_bytes = 0
        self._file = self._part.open("ab")
        is_mine: bool | None = None
        try:
            is_mine = self._is_mine()
            if not is_mine:
                raise ConvertError(f"Another conversion is writing '{target}'; wait for it or give another name.")
            self._file.truncate(0)
            self.write(head)
        except BaseException:
            if is_mine or (is_mine is None and self._is_mine()):  # None: interrupted on the way to the lock
                self.discard()
            self._file.close()
            raise

    def _is_mine(self) -> bool:
        return try_lock(self._file) and self._still_has_its_name()

    def _still_has_its_name(self) -> bool:
        """Whether the locked file is still the unfinished one; the conversion that held the lock may have renamed or removed it."""
        return self._part.exists() and os.path.samestat(os.fstat(self._file.fileno()), self._part.stat())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.discard()

    def write(self, data: bytes | memoryview) -> None:
        """Append to the current tensor."""
        self._file.write(data)
        self._hash.update(data)
        self.n_bytes += memoryview(data).nbytes

    def end_tensor(self) -> None:
        """Pad, so that the next tensor starts at an aligned position."""
        self.write(bytes(-self.n_bytes % ALIGNMENT))

    def finish(self) -> str:
        """Sync the file to disk, give it its final name, and return its sha256."""
        self._file.flush()
        put_in_place(self._part, self.target)  # while locked: no other conversion may start to write a finished file
        self._file.close()
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Remove the unfinished file. Does nothing once the file is finished."""
        if self._file.closed:
            return  # the unfinished name may belong to another conversion now
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a full disk cannot take what is still buffered
            self._file.close()
