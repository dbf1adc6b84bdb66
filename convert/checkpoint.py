"""Reads the folder of a transformers checkpoint: its configuration and, one at a time, its tensors.

Owns safetensors (bf16, f16, f32; one file, or shards with an index). Never holds more than one tensor. Invariant: every
offset is checked against the size of the file before a byte is read, and the name of a shard never leads out of the folder.
Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.core.errors import ConvertError

Array = npt.NDArray[np.float32]

_DTYPES = {"F32": 4, "F16": 2, "BF16": 2}
_STORED: dict[str, npt.DTypeLike] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_MAX_HEADER_BYTES = 16_000_000  # enough for a hundred thousand tensors; the limit of safetensors itself would fill the memory of a Pi
_MAX_NAME_CHARS = 512
_MAX_JSON_BYTES = 100_000_000
_SLAB_WEIGHTS = 1 << 21  # 8 MB as float32: small beside a process, and large beside the cost of a call


@dataclass(frozen=True, slots=True)
class Tensor:
    """The location of one tensor. `load` reads it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: pathlib.Path
    offset: int

    def load(self, start: int = 0, stop: int | None = None) -> Array:
        """The rows from `start` up to `stop` (all of them by default) as float32; bf16 and f16 convert exactly."""
        stop = self.shape[0] if stop is None else min(stop, self.shape[0])
        row = math.prod(self.shape[1:])
        n = (stop - start) * row
        try:
            raw = np.fromfile(self.path, dtype=_STORED[self.dtype], count=n, offset=self.offset + start * row * _DTYPES[self.dtype])
        except OSError as error:
            raise ConvertError(f"Cannot read the file '{self.path}' ({error.strerror or error}); check the disk.") from error
        if raw.size != n:
            raise ConvertError(f"The file '{self.path}' ends inside the tensor '{self.name}'; download it again.")
        if self.dtype == "BF16":
            raw = (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return raw.astype(np.float32, copy=False).reshape(stop - start, *self.shape[1:])


def slabs(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Split a tensor between rows into parts of a few megabytes: (first row, row after the last)."""
    step = max(1, _SLAB_WEIGHTS // math.prod(shape[1:]))
    return ((start, min(start + step, shape[0])) for start in range(0, shape[0], step))


def read_tensors(folder: pathlib.Path, stem: str = "model") -> dict[str, Tensor]:
    """All tensors in `folder`, by name: from `STEM.safetensors` or from the shards in `STEM.safetensors.index.json`."""
    index = folder / f"{stem}.safetensors.index.json"
    places: dict[str, str] = {}
    if index.is_file():
        found = read_json(index).get("weight_map")
        if not isinstance(found, dict) or not found or not all(isinstance(place, str) for place in found.values()):
            raise ConvertError(f"The file '{index}' has no weight_map; download it again.")
        places = found
    files = sorted({_inside(folder, place) for place in places.values()}) or [folder / f"{stem}.safetensors"]
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= {tensor.name: tensor for tensor in _read_header(file)}
    if lost := sorted(set(places) - set(tensors)):
        raise ConvertError(f"The index '{index}' lists the tensor '{lost[0]}', but no shard has it; download it again.")
    return tensors


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Read a JSON object from a file. Raises `ConvertError`."""
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ConvertError(f"The file '{path}' is larger than {_MAX_JSON_BYTES:,} bytes; check the folder.")
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConvertError(f"There is no file '{path}'; give the folder of a transformers checkpoint.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ConvertError(f"Cannot read the file '{path}' as JSON ({error}); download it again.") from error
    if not isinstance(data, dict):
        raise ConvertError(f"The file '{path}' is not a JSON object; download it again.")
    return data


def _read_header(path: pathlib.Path) -> Iterator[Tensor]:
    damaged = ConvertError(f"The file '{path}' is not an intact safetensors file; download it again.")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(_MAX_HEADER_BYTES, size - 8):
                raise damaged
            header = json.loads(file.read(length))
        for name, entry in header.items():
            if name != "__metadata__":
                yield _tensor(path, size - 8 - length, 8 + length, name, entry)
    except FileNotFoundError as error:
        raise ConvertError(f"There is no file '{path}'; only safetensors are supported, so convert other formats first.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged from error


def _tensor(path: pathlib.Path, data_bytes: int, data_at: int, name: str, entry: dict[str, Any]) -> Tensor:
    if len(name) > _MAX_NAME_CHARS or not name.isprintable():
        raise ValueError(name)
    dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if dtype not in _DTYPES:
        raise ConvertError(f"The tensor '{name}' in '{path}' is {dtype!r:.20}; only F32, F16 and BF16 are supported.")
    whole = all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end))
    if not whole or 0 in shape or end - begin != math.prod(shape) * _DTYPES[dtype] or end > data_bytes:
        raise ValueError(name)
    return Tensor(name, dtype, shape, path, data_at + begin)


def _inside(folder: pathlib.Path, name: str) -> pathlib.Path:
    if pathlib.PurePath(name).name != name or "\\" in name or name in ("", ".", ".."):
        raise ConvertError(f"The index in '{folder}' lists the shard {name!r}, which is not a file name; download it again.")
    return folder / name
