"""Reads the folder of a transformers checkpoint: its configuration and, one at a time, its tensors.

Owns safetensors (bf16, f16, f32; one file, or shards), and the rule which files of a folder count. Never holds more than one
tensor. Invariants: every offset is checked against the size of the file before a byte is read; the name of a shard never leads
out of the folder; a tensor has one place, or the folder is refused.
Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import pathlib
import re
from collections import Counter
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
    """All tensors in `folder`, by name: from `STEM.safetensors`, or from shards, with or without an index.

    Raises `ConvertError` for a folder of which two readings are possible, and names both.
    """
    places = _index(folder, stem)
    files = _files(folder, stem, {folder / place for place in places.values()})
    tensors: dict[str, Tensor] = {}
    for file in files:
        for tensor in _read_header(file):
            if (first := tensors.setdefault(tensor.name, tensor)) is not tensor:
                raise ConvertError(
                    f"The tensor '{tensor.name}' is in both '{first.path.name}' and '{file.name}' of '{folder}'; remove the file that does "
                    "not belong there."
                )
    is_current = any(folder / place in files for place in places.values())
    if is_current and (lost := sorted(set(places) - set(tensors))):
        raise ConvertError(f"The index '{_index_file(folder, stem)}' lists the tensor '{lost[0]}', but no shard has it; download it again.")
    return tensors


def _index_file(folder: pathlib.Path, stem: str) -> pathlib.Path:
    return folder / f"{stem}.safetensors.index.json"


def _index(folder: pathlib.Path, stem: str) -> dict[str, str]:
    """The file name of each tensor, as the index lists them; nothing if there is no index."""
    index = _index_file(folder, stem)
    if not index.is_file():
        return {}
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(place, str) for place in places.values()):
        raise ConvertError(f"The file '{index}' has no weight_map; download it again.")
    for place in places.values():
        if pathlib.PurePath(place).name != place or "\\" in place or place in ("", ".", ".."):
            raise ConvertError(f"The index in '{folder}' lists the shard {place!r}, which is not a file name; download it again.")
    return places


def _files(folder: pathlib.Path, stem: str, indexed: set[pathlib.Path]) -> list[pathlib.Path]:
    """The files that hold the tensors; the index lists `indexed`. An old index, of which no file is left, does not count."""
    single, listed = folder / f"{stem}.safetensors", sorted(indexed)
    there = [file for file in listed if file.is_file()]
    sets = _numbered(folder, stem)
    if listed and there == listed:
        complete = [single] if single.is_file() else []
        complete += [file for shards, missing in sets if not missing for file in shards]
        if beside := [file for file in complete if file not in indexed]:
            one, other = beside[0].name, listed[0].name
            raise ConvertError(f"'{folder}' has both '{one}' and '{other}'; remove the older weights, and their index.")
        return listed
    if len(sets) > 1:
        raise ConvertError(f"'{folder}' has both '{sets[0][0][0].name}' and '{sets[1][0][0].name}'; remove the older shards.")
    shards, missing = sets[0] if sets else ([], [])
    others = there or ([] if missing else shards)
    if single.is_file() and others:
        raise ConvertError(f"'{folder}' has both '{single.name}' and '{others[0].name}'; remove the older weights, and their index.")
    if listed and (there or not (others or single.is_file())):
        lost = next(file for file in listed if not file.is_file())
        raise ConvertError(f"The index '{_index_file(folder, stem)}' lists the shard '{lost.name}', which is not there; download it again.")
    if missing and not single.is_file():
        raise ConvertError(f"The shard '{missing[0]}' is not there, though '{shards[0].name}' is; download it again.")
    return others or [single]


def _numbered(folder: pathlib.Path, stem: str) -> list[tuple[list[pathlib.Path], list[pathlib.Path]]]:
    """Each set of shards that are numbered by their names, such as model-00001-of-00003.safetensors, and those missing from it."""
    found: dict[str, list[pathlib.Path]] = {}
    for path in sorted(folder.glob(f"{stem}-*-of-*.safetensors")):
        if match := re.fullmatch(r"\d{5}-of-(\d{5})", path.name.removeprefix(f"{stem}-").removesuffix(".safetensors")):
            found.setdefault(match[1], []).append(path)
    sets = []
    for total, shards in found.items():
        wanted = [folder / f"{stem}-{n + 1:05d}-of-{total}.safetensors" for n in range(int(total))]
        sets.append((shards, sorted(set(wanted) - set(shards))))
    return sets


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Read a JSON object from a file. Raises `ConvertError`."""
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ConvertError(f"The file '{path}' is larger than {_MAX_JSON_BYTES:,} bytes; check the folder.")
        data = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_doubles)
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
            header = json.loads(file.read(length), object_pairs_hook=_without_doubles)
        for name, entry in header.items():
            if name != "__metadata__":
                yield _tensor(path, size - 8 - length, 8 + length, name, entry)
    except FileNotFoundError as error:
        raise ConvertError(_no_weights(path)) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged from error


def _no_weights(path: pathlib.Path) -> str:
    if pickles := sorted([*path.parent.glob("*.bin"), *path.parent.glob("*.pt"), *path.parent.glob("*.pth")]):
        return f"'{path.parent}' has '{pickles[0].name}' but not '{path.name}'; only safetensors are supported, so save it as such first."
    return f"There is no file '{path}', nor any shards of it; give the folder with the weights."


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {name!r:.40} twice")
    return found


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
