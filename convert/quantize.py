"""Quantizes with llama.cpp itself, one slab of rows at a time, and lets it choose the type of each tensor.

Owns two calls: `ggml_quantize_chunk`, which llama.cpp's quantizer uses too, and a `dry_run` of `llama_model_quantize` on a
file that has only a header. In the dry run llama.cpp logs the type that it would use for each tensor. It runs in a child
process (`python -m convert.quantize`), because llama.cpp may abort on a bad header. Invariant: the bytes of a slab do not
depend on where a tensor is split, as long as it is split between rows.
"""

from __future__ import annotations

import ctypes
import math
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gguf
import llama_cpp
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType
from llama_cpp import _ggml

from convert.checkpoint import Array
from edge_agent.core.errors import ConvertError
from edge_agent.engine import child
from edge_agent.model.gguf import QUANTIZATIONS

FILE_TYPES = {name: file_type for file_type, name in QUANTIZATIONS.items()}
Bytes = npt.NDArray[np.uint8]

_DRY_RUN_SECONDS = 120
_TYPE = re.compile(r"\[ *\d+/ *\d+\] (?P<name>\S+) +- \[.*?\], type = +f32, size = .*?(?:\((?P<type>\w+)\))?")
_FALLBACK = re.compile(
    r"warning: (?P<name>\S+) +- ncols +(?P<columns>\d+) .*\(required for type +(?P<wanted>\w+)\).*-> falling back to +(?P<taken>\w+)"
)
_NEEDS_IMATRIX = "will require an imatrix"

_quantize_chunk: Any = _ggml.libggml.ggml_quantize_chunk
_quantize_chunk.restype = ctypes.c_size_t
_quantize_chunk.argtypes = [
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
]  # fmt: skip
_is_valid: Any = _ggml.libggml.ggml_validate_row_data
_is_valid.restype, _is_valid.argtypes = ctypes.c_bool, [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]


_needs_importance: Any = _ggml.libggml.ggml_quantize_requires_imatrix
_needs_importance.restype, _needs_importance.argtypes = ctypes.c_bool, [ctypes.c_int]


@dataclass(frozen=True, slots=True)
class TypeChoice:
    """llama.cpp's choice for one quantization: the type of each tensor, and in words which ones got a fallback type."""

    types: dict[str, GGMLQuantizationType]
    fallbacks: list[str]


def n_bytes(shape: Sequence[int], kind: GGMLQuantizationType) -> int:
    """The size in bytes of a tensor of this shape."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return math.prod(shape) // int(block) * int(size)


def needs_importance(kind: GGMLQuantizationType) -> bool:
    """Whether quantizing to this type needs an importance matrix."""
    return bool(_needs_importance(int(kind)))


def quantized(slab: Array, kind: GGMLQuantizationType, importance: Array | None = None) -> Bytes | None:
    """The rows of `slab` (rows, columns) as bytes of type `kind`; None if a value is not a finite number in that type.

    `importance` (columns,) weighs the columns; types below 3 bits need it. Releases the interpreter lock.
    """
    slab = np.ascontiguousarray(slab, dtype=np.float32)
    columns = slab.shape[-1]
    if importance is not None and importance.shape != (columns,):
        raise ValueError(f"importance {importance.shape} for {columns} columns")
    out = np.empty(n_bytes(slab.shape, kind), np.uint8)
    weights = None if importance is None else importance.ctypes.data
    done = _quantize_chunk(int(kind), slab.ctypes.data, out.ctypes.data, 0, slab.size // columns, columns, weights)
    return out if done == out.nbytes and _is_valid(int(kind), out.ctypes.data, out.nbytes) else None


def choose_types(header: Callable[[pathlib.Path], int], quantizations: Sequence[str], has_importance: bool) -> dict[str, TypeChoice]:
    """The types that llama.cpp chooses for the tensors, for each of `quantizations`.

    `header` writes the header of a float32 GGUF to a path and returns the size in bytes that the whole file would have.
    Raises `ConvertError`, also if a quantization needs an importance matrix and there is none.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="convert-") as folder:
            path = pathlib.Path(folder) / "header.gguf"
            claimed = header(path)
            with path.open("rb+") as file:
                file.truncate(claimed)  # a sparse file: the data takes no disk space
            log = _dry_runs(path, [FILE_TYPES[name] for name in quantizations], has_importance)
    except OSError as error:
        raise ConvertError(f"Cannot use the temporary folder ({error.strerror or error}); set TMPDIR to another folder.") from error
    return {name: _choice(name, lines) for name, lines in zip(quantizations, log, strict=True)}


def _dry_runs(path: pathlib.Path, file_types: Sequence[int], has_importance: bool) -> list[list[str]]:
    command = [sys.executable, "-m", "convert.quantize", str(path), str(int(has_importance)), *map(str, file_types)]
    root = pathlib.Path(__file__).parent.parent
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=_DRY_RUN_SECONDS, cwd=root,
            env=child.environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ConvertError(f"llama.cpp did not finish with this configuration within {_DRY_RUN_SECONDS} s; check config.json.") from error
    parts = done.stderr.split(_MARK)
    if done.returncode != 0 or len(parts) != len(file_types) + 1:
        lines = [line for line in done.stderr.splitlines() if line.strip() and line != _MARK] or ["no reason given"]
        raise ConvertError(f"llama.cpp cannot use this config.json (status {done.returncode}: {lines[-1]:.200}); check it.")
    return [part.splitlines() for part in parts[1:]]


def _choice(quantization: str, lines: list[str]) -> TypeChoice:
    if any(_NEEDS_IMATRIX in line for line in lines):
        raise ConvertError(f"{quantization} needs an importance matrix; give one with --imatrix.")
    types, fallen = {}, []
    for line in lines:
        if found := _TYPE.fullmatch(line):
            types[found["name"]] = GGMLQuantizationType[(found["type"] or "F32").upper()]
        elif found := _FALLBACK.search(line):
            fallen.append((int(found["columns"]), found["wanted"].upper(), found["taken"].upper()))
    return TypeChoice(types, _in_words(fallen, len(types)))


def _in_words(fallen: list[tuple[int, str, str]], n_tensors: int) -> list[str]:
    lines = []
    for wanted, taken in sorted({(wanted, taken) for _, wanted, taken in fallen}):
        columns = [n for n, *types in fallen if types == [wanted, taken]]
        lengths = ", ".join(str(n) for n in sorted(set(columns)))
        lines.append(f"{len(columns)} of {n_tensors} tensors are {taken}, because {wanted} cannot hold rows of {lengths} weights")
    return lines


_MARK = "--- dry run ---\n"


def _child(path: str, has_importance: str, *file_types: str) -> int:
    """Do the dry runs. llama.cpp logs to stderr; a mark precedes each run."""
    nothing = (llama_cpp.llama_model_imatrix_data * 1)()  # an empty list: llama.cpp only checks that there is a matrix
    for file_type in file_types:
        sys.stderr.write(_MARK)
        sys.stderr.flush()
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype, params.dry_run = int(file_type), True
        if int(has_importance):
            params.imatrix = nothing
        status: int = llama_cpp.llama_model_quantize(path.encode(), b"", ctypes.byref(params))
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(_child(*sys.argv[1:]))
