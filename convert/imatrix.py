"""An importance matrix: how large the inputs of each column of each weight are when the model answers real questions.

Owns its collection and its file. llama.cpp calls back before and after every operation. For each multiplication by a weight
of a block, the squares of the inputs are summed per column, over every token that a decision evaluates. The file has
llama.cpp's own format for such matrices. Invariant: the layout of ggml's structs that is declared here is checked against
ggml itself before any memory is read.

    python -m convert.imatrix MODEL.gguf QUESTIONS.jsonl --out MATRIX.gguf
"""

from __future__ import annotations

import ctypes
import json
import pathlib
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import click
import gguf
import llama_cpp
import numpy as np
from gguf import GGMLQuantizationType
from llama_cpp import _ggml
from tqdm import tqdm

from convert.checkpoint import Array
from convert.output import Output, header
from edge_agent.core.errors import ConvertError, EdgeAgentError
from edge_agent.core.question import Question
from edge_agent.core.terminal import plain
from edge_agent.model.gguf import read_header

_WEIGHT = re.compile(rb"(?:[^#]*#)?(?P<name>blk\.\d+\.\w+\.weight)(?:#.*)?")
_SUMS, _COUNTS = ".in_sum2", ".counts"
_MAX_BYTES = 1 << 28


class _Tensor(ctypes.Structure):
    """`struct ggml_tensor` of ggml.h."""


_Tensor._fields_ = [
    ("type", ctypes.c_int), ("buffer", ctypes.c_void_p), ("ne", ctypes.c_int64 * 4), ("nb", ctypes.c_size_t * 4), ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16), ("flags", ctypes.c_int32), ("src", ctypes.POINTER(_Tensor) * 10), ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t), ("data", ctypes.c_void_p), ("name", ctypes.c_char * 64), ("extra", ctypes.c_void_p),
    ("padding", ctypes.c_char * 8),
]  # fmt: skip


class _InitParams(ctypes.Structure):
    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


def _bound(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_ggml.libggml, name)
    function.restype, function.argtypes = result, arguments
    return function


_TensorPointer = ctypes.POINTER(_Tensor)
_op_name = _bound("ggml_op_name", ctypes.c_char_p, ctypes.c_int)
_tensor_get = _bound("ggml_backend_tensor_get", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)


def check_layout() -> None:
    """Read a product that ggml itself describes. Raises `ConvertError` if it does not read as that product."""
    init = _bound("ggml_init", ctypes.c_void_p, _InitParams)
    new = _bound("ggml_new_tensor_2d", _TensorPointer, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    multiply = _bound("ggml_mul_mat", _TensorPointer, ctypes.c_void_p, _TensorPointer, _TensorPointer)
    set_name = _bound("ggml_set_name", _TensorPointer, _TensorPointer, ctypes.c_char_p)
    context = init(_InitParams(1 << 16, None, True))
    try:
        weight, values = (new(context, int(GGMLQuantizationType.F32), 32, rows) for rows in (5, 7))
        set_name(weight, b"blk.0.attn_q.weight")
        product = multiply(context, weight, values).contents
        found = (
            _op_name(product.op), product.src[0].contents.name, list(product.src[1].contents.ne), product.src[1].contents.type,
            list(product.src[1].contents.nb)[:2], bool(product.src[2]), _bound("ggml_tensor_overhead", ctypes.c_size_t)() - 32,
        )  # fmt: skip
    finally:
        _bound("ggml_free", None, ctypes.c_void_p)(context)
    if found != (b"MUL_MAT", b"blk.0.attn_q.weight", [32, 7, 1, 1], int(GGMLQuantizationType.F32), [4, 128], False, ctypes.sizeof(_Tensor)):
        raise ConvertError("This llama-cpp-python has another tensor layout; install the pinned version.")


class Collector:
    """Sums the squares of the inputs of each weight. `callback` is for llama.cpp's `cb_eval`."""

    def __init__(self) -> None:
        check_layout()
        self.sums: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
        self.counts: dict[str, int] = {}
        self.error: Exception | None = None
        self.callback = llama_cpp.ggml_backend_sched_eval_callback(self._on_tensor)

    def _on_tensor(self, address: int, asks: bool, _: int | None) -> bool:
        """Called before an operation (`asks`: is it wanted?) and again after it. Must not raise."""
        try:
            tensor = _Tensor.from_address(address)
            if _op_name(tensor.op) != b"MUL_MAT":
                return not asks
            weight, values = tensor.src[0].contents, tensor.src[1].contents
            match = _WEIGHT.fullmatch(weight.name)
            if match is None or values.type != int(GGMLQuantizationType.F32) or values.nb[0] != 4:
                return not asks
            if not asks:
                self._add(match["name"].decode(), values, ctypes.cast(tensor.src[1], ctypes.c_void_p))
        except Exception as error:  # reported by `check`, because ctypes would only print it
            self.error = error
        return True

    def _add(self, name: str, values: _Tensor, pointer: ctypes.c_void_p) -> None:
        columns, *rest = values.ne
        rows = np.empty((int(np.prod(rest)), columns), np.float32)
        if list(values.nb)[1:] != [4 * columns, 4 * columns * rest[0], 4 * columns * rest[0] * rest[1]]:
            raise ConvertError(f"llama.cpp multiplies '{name}' by a view, which is not supported; install the pinned llama-cpp-python.")
        _tensor_get(pointer, rows.ctypes.data, 0, rows.nbytes)
        squares = np.einsum("ij,ij->j", rows, rows, dtype=np.float64)
        self.sums[name] = self.sums.get(name, 0) + squares
        self.counts[name] = self.counts.get(name, 0) + len(rows)

    def check(self) -> None:
        """Raise `ConvertError` if collecting failed or saw no weight."""
        if self.error or not self.sums:
            raise ConvertError(f"Cannot collect an importance matrix ({self.error or 'no weight was used'}); check the model file.")


def collect(path: pathlib.Path, questions: Iterable[Question]) -> Collector:
    """Let the model at `path` read `questions` as the agent does. Raises `ConvertError` and what the engine raises."""
    from edge_agent.engine.local_model import LocalModel  # here, because a conversion with a matrix opens no model

    collector = Collector()
    with LocalModel(path, on_tensor=collector.callback) as model:
        for question in questions:
            model.read(question)
    collector.check()
    return collector


def save(collector: Collector, target: pathlib.Path, source: str) -> None:
    """Write the matrix in the format of llama.cpp's tools. `source` names the questions it comes from."""
    writer = gguf.GGUFWriter(None, "imatrix")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", [source])
    writer.add_uint32("imatrix.chunk_count", 1)
    writer.add_uint32("imatrix.chunk_size", max(collector.counts.values()))
    tensors: dict[str, Array] = {}
    for name in sorted(collector.sums):
        tensors[name + _SUMS] = collector.sums[name].astype(np.float32).reshape(1, -1)
        tensors[name + _COUNTS] = np.array([[collector.counts[name]]], np.float32)
    head = header(writer.kv_data[0], "imatrix", ((name, data.shape, GGMLQuantizationType.F32) for name, data in tensors.items()))
    with Output(target, head) as output:
        for data in tensors.values():
            output.write(data.data)
            output.end_tensor()
        output.finish()


def load(path: pathlib.Path) -> dict[str, Array]:
    """The importance (columns,) of each weight, from a file that `save` or llama.cpp wrote. Raises `ConvertError`."""
    refused = ConvertError(f"'{path}' is not an importance matrix in GGUF; make one with `python -m convert.imatrix`.")
    try:
        if read_header(path).metadata.get("general.type") != "imatrix" or path.stat().st_size > _MAX_BYTES:
            raise refused
        found = {tensor.name: np.array(tensor.data, dtype=np.float32) for tensor in gguf.GGUFReader(path).tensors}
    except EdgeAgentError as error:
        raise ConvertError(str(error)) from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise refused from error
    matrix = {}
    for name in (name.removesuffix(_SUMS) for name in found if name.endswith(_SUMS)):
        sums, counts = found[name + _SUMS].reshape(-1), found.get(name + _COUNTS, np.zeros(0)).reshape(-1)
        if counts.size != 1 or not counts[0] > 0 or not np.isfinite(sums).all():
            raise ConvertError(f"The importance matrix '{path}' has no valid counts for '{name:.80}'; collect it again.")
        matrix[name] = sums / counts[0]
    if not matrix:
        raise refused
    return matrix


def check_fit(matrix: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `ConvertError` unless `matrix` fits a model whose tensors have these shapes."""
    for name, importance in matrix.items():
        if name not in shapes or shapes[name][-1] != importance.size:
            has = list(shapes[name]) if name in shapes else "none"
            raise ConvertError(
                f"The importance matrix is for another model: it has {importance.size} columns for '{name:.80}', the model has {has}."
            )


@click.command()
@click.argument("model", type=click.Path(path_type=pathlib.Path, exists=True, dir_okay=False))
@click.argument("questions", type=click.Path(path_type=pathlib.Path, exists=True, dir_okay=False))
@click.option("--out", required=True, type=click.Path(path_type=pathlib.Path, dir_okay=False), help="The matrix to write.")
@click.option("--limit", type=click.IntRange(1), help="Use only so many questions: always the same sample, drawn evenly from all domains.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def main(model: pathlib.Path, questions: pathlib.Path, out: pathlib.Path, limit: int | None, as_json: bool) -> None:
    """Collect an importance matrix from MODEL.gguf (best in BF16 or Q8_0) while it answers QUESTIONS, one JSON object a line."""
    from edge_agent.measure.sets import loading

    try:
        for source in (model, questions):
            if out.exists() and out.samefile(source):
                raise ConvertError(f"'{out}' is an input; write the matrix to another file.")
        asked = [row.question for row in loading.load(questions, limit).rows]
        collector = collect(model, tqdm(asked, unit=" questions", disable=None, delay=0.5, leave=False))
        save(collector, out, questions.name)
    except EdgeAgentError as error:
        click.echo(f"imatrix: {plain(str(error))}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        click.echo(f"imatrix: cannot write '{out}' ({error.strerror or error}); check the folder and its free space", err=True)
        sys.exit(65)
    facts = {"path": str(out), "questions": len(asked), "tensors": len(collector.sums), "tokens": max(collector.counts.values())}
    said = json.dumps(facts) if as_json else f"{out}  {len(asked):,} questions, {facts['tokens']:,} tokens, {facts['tensors']} tensors"
    click.echo(said)


if __name__ == "__main__":
    main(prog_name="python -m convert.imatrix")
