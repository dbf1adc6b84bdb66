"""Base + adapters to GGUF files: the one place where the workshop's parts meet.

Owns the order of work: check everything, let llama.cpp choose the types, then read the checkpoint once, a slab of rows at
a time: merge in float32, quantize to every type that is wanted, append to every file. Invariant: nothing is written before
the checkpoint and every adapter were checked, no tensor is ever in memory as a whole, and no intermediate file is made.
"""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType

from convert import architectures, imatrix, lora, vocab
from convert.architectures import EMBEDDING, HEAD, Architecture
from convert.checkpoint import Array, Tensor, read_json, read_tensors
from convert.output import ALIGNMENT, Output, header
from convert.quantize import FILE_TYPES, Bytes, TypeChoice, choose_types, n_bytes, needs_importance, quantized
from edge_agent.core.errors import ConvertError
from edge_agent.model.profile import default_profile, gguf_keys

_SLAB_WEIGHTS = 1 << 21  # 8 MB as float32: small against a process, large against what a call costs


@dataclass(frozen=True, slots=True)
class Written:
    """A GGUF that was made; `fallbacks` say in words which tensors took another type than their quantization's."""

    path: pathlib.Path
    quantization: str
    sha256: str
    bytes: int
    fallbacks: list[str]


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint that was checked, with its adapters: the tensors by their names in the GGUF."""

    folder: pathlib.Path
    config: dict[str, Any]
    architecture: Architecture
    tensors: dict[str, lora.Merged]

    @property
    def n_weights(self) -> int:
        """How many weights there are."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())


def open_model(source: pathlib.Path, adapters: Sequence[pathlib.Path] = ()) -> Model:
    """The checkpoint in the folder `source` with `adapters` to be merged in order; raises `ConvertError`."""
    config, tensors = read_json(source / "config.json"), read_tensors(source)
    architecture = architectures.of(config)
    architectures.check_complete(architecture, config, {name: tensor.shape for name, tensor in tensors.items()})
    tied = architectures.is_tied(architecture, config)
    base = _with_head(tensors, tied)
    opened = [lora.open_adapter(folder, base) for folder in adapters]
    merged = lora.merged(base, opened, (EMBEDDING, HEAD) if tied else ())
    if tied and _same(merged[EMBEDDING], merged[HEAD]):
        del merged[HEAD]
    names = architectures.tensor_names(architecture, config, merged)
    ordered = sorted(merged, key=lambda name: _place(names[name]))
    return Model(source, config, architecture, {names[name]: merged[name] for name in ordered})


def metadata(model: Model, name: str, answer_kind: str) -> dict[str, Any]:
    """All that a GGUF of `model` says beside its tensors and its file type; raises `ConvertError`."""
    architecture = model.architecture
    writer = gguf.GGUFWriter(None, architecture.name)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name.encode("utf-8", "replace").decode())
    writer.add_size_label(gguf.size_label(model.n_weights, model.n_weights, 0, 0))
    architecture.hyper_parameters(writer, model.config)
    vocab.write(writer, model.folder, model.tensors["token_embd.weight"].shape[0], architecture, model.config)
    for key, value in gguf_keys(default_profile(architecture.name, answer_kind)).items():
        add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)]
        add(key, value)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    return dict(writer.kv_data[0])


def export(
    source: pathlib.Path,
    adapters: Sequence[pathlib.Path],
    quantizations: Sequence[str],
    out: pathlib.Path,
    name: str | None = None,
    progress: Callable[[str], None] = lambda step: None,
    answer_kind: str = "letter",
    on_weights: Callable[[int, int], None] = lambda done, total: None,
    matrix: pathlib.Path | None = None,
) -> list[Written]:
    """Convert the checkpoint in `source`, with `adapters` merged in order, to `out`/NAME-QUANTIZATION.gguf each.

    `progress` is told each step in words, `on_weights` how many weights were done, of how many; `matrix` is the file of an
    importance matrix. Raises `ConvertError`.
    """
    quantizations = _checked(quantizations)
    name = name or source.resolve().name
    if pathlib.PurePath(name).name != name:
        raise ConvertError(f"The name '{name}' is no plain file name; give one without slashes.")
    model = open_model(source, adapters)
    fields, importance = metadata(model, name, answer_kind), _importance(matrix, model)
    if matrix:
        fields |= _provenance(matrix, importance)
    choices = choose_types(lambda path: _write_sparse(path, model), quantizations, has_importance=bool(importance))
    for choice in choices.values():
        _check_importance(choice, importance)
    heads = {q: _header(model, fields, q, choice) for q, choice in choices.items()}
    progress(f"converting {len(model.tensors)} tensors with {len(adapters)} adapters to {', '.join(quantizations)}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        _check_room(out, sum(len(heads[q]) + _data_bytes(model, choices[q]) for q in quantizations))
        with contextlib.ExitStack() as stack:
            outputs = {q: stack.enter_context(Output(out / f"{name}-{q}.gguf", heads[q])) for q in quantizations}
            _stream(model, {q: (outputs[q], choices[q].types) for q in quantizations}, importance, on_weights)
            hashes = {q: output.finish() for q, output in outputs.items()}
    except OSError as error:
        raise ConvertError(f"Writing to '{out}' failed ({error.strerror or error}); check the folder and its space.") from error
    return [Written(outputs[q].target, q, hashes[q], outputs[q].n_bytes, choices[q].fallbacks) for q in quantizations]


def _place(name: str) -> tuple[int, str]:
    """Where a tensor stands in the file, as llama.cpp's quantizer orders them: what is in no block, then block by block."""
    parts = name.split(".")
    return (int(parts[1]) if parts[0] == "blk" else -1), name


def _checked(quantizations: Sequence[str]) -> list[str]:
    if not quantizations:
        raise ConvertError(f"No quantization is named; name one or more of {', '.join(FILE_TYPES)}.")
    if unknown := [q for q in quantizations if q not in FILE_TYPES]:
        raise ConvertError(f"The quantization '{unknown[0]}' is unknown; known are {', '.join(FILE_TYPES)}.")
    return list(dict.fromkeys(quantizations))


def _with_head(tensors: dict[str, Tensor], tied: bool) -> dict[str, Tensor]:
    """The tensors, with the output head even where it is the embedding; a tied checkpoint with another head is refused."""
    if not tied:
        if HEAD not in tensors:
            raise ConvertError(f"The checkpoint says that its head is not tied, and lacks '{HEAD}'; download it again.")
        return tensors
    head = tensors.get(HEAD, tensors[EMBEDDING])
    if not _same(lora.Merged(head), lora.Merged(tensors[EMBEDDING])):
        raise ConvertError(f"The checkpoint says that its head is tied, but '{HEAD}' differs from '{EMBEDDING}'.")
    return {**tensors, HEAD: tensors[EMBEDDING]}


def _same(one: lora.Merged, other: lora.Merged) -> bool:
    """Whether two tensors are the same numbers; two that adapters add to are not, since they do so from two sides."""
    if one.pairs or other.pairs or one.shape != other.shape:
        return False
    if one.start is other.start:
        return True
    return all(np.array_equal(one.start.load(*rows), other.start.load(*rows)) for rows in _slabs(one.shape))


def _slabs(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Cuts a tensor between rows: from one row up to another."""
    step = max(1, _SLAB_WEIGHTS // math.prod(shape[1:]))
    return ((start, min(start + step, shape[0])) for start in range(0, shape[0], step))


def _header(model: Model, fields: Mapping[str, Any], quantization: str, choice: TypeChoice) -> bytes:
    writer = gguf.GGUFWriter(None, model.architecture.name)
    writer.add_file_type(FILE_TYPES[quantization])
    missing = [name for name in model.tensors if name not in choice.types]
    if missing:
        raise ConvertError(f"llama.cpp chose no type for '{missing[0]}'; this version of llama-cpp-python is not known here.")
    tensors = ((name, tensor.shape, choice.types[name]) for name, tensor in model.tensors.items())
    return header({**fields, **writer.kv_data[0]}, model.architecture.name, tensors)


def _write_sparse(path: pathlib.Path, model: Model) -> int:
    """For llama.cpp's choice: a header of float32 tensors without any vocabulary."""
    writer = gguf.GGUFWriter(None, model.architecture.name)
    model.architecture.hyper_parameters(writer, model.config)
    data = header(writer.kv_data[0], model.architecture.name, ((n, t.shape, GGMLQuantizationType.F32) for n, t in model.tensors.items()))
    path.write_bytes(data)
    return len(data) + sum(n_bytes(t.shape, GGMLQuantizationType.F32) + ALIGNMENT for t in model.tensors.values())


def _data_bytes(model: Model, choice: TypeChoice) -> int:
    return sum(n_bytes(tensor.shape, choice.types[name]) + ALIGNMENT for name, tensor in model.tensors.items())


def _importance(matrix: pathlib.Path | None, model: Model) -> dict[str, Array]:
    if matrix is None:
        return {}
    importance = imatrix.load(matrix)
    imatrix.check_fit(importance, {name: tensor.shape for name, tensor in model.tensors.items()})
    return importance


def _provenance(matrix: pathlib.Path, importance: Mapping[str, Array]) -> dict[str, Any]:
    """That a matrix was used, in the keys of llama.cpp's own quantizer."""
    writer = gguf.GGUFWriter(None, "")
    writer.add_string("quantize.imatrix.file", matrix.name.encode("utf-8", "replace").decode())
    writer.add_uint32("quantize.imatrix.entries_count", len(importance))
    return {key: value for key, value in writer.kv_data[0].items() if key.startswith("quantize.")}


def _check_importance(choice: TypeChoice, importance: Mapping[str, Array]) -> None:
    for name, kind in choice.types.items():
        if needs_importance(kind) and name not in importance:
            raise ConvertError(f"The importance matrix has nothing for '{name}', which {kind.name} needs; collect it from this model.")


def _check_room(out: pathlib.Path, needed: int) -> None:
    if (free := shutil.disk_usage(out).free) < needed:
        raise ConvertError(
            f"The files take {needed / 1e6:,.0f} MB and '{out}' has {free / 1e6:,.0f} MB left; make room, or give another --out."
        )


def _stream(
    model: Model,
    outputs: Mapping[str, tuple[Output, Mapping[str, GGMLQuantizationType]]],
    importance: Mapping[str, Array],
    on_weights: Callable[[int, int], None],
) -> None:
    """Read, merge, quantize and append every tensor, in order; some slabs are on their way at once."""
    done, total = 0, model.n_weights
    n_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    under_way: deque[tuple[str, tuple[int, int], Future[dict[GGMLQuantizationType, Bytes | None]]]] = deque()
    pool = ThreadPoolExecutor(n_threads)

    def append_first() -> None:
        nonlocal done
        name, (start, stop), future = under_way.popleft()
        made, shape = future.result(), model.tensors[name].shape
        for output, types in outputs.values():
            data = made[types[name]]
            if data is None:
                raise ConvertError(
                    f"The tensor '{name}' has a value that is no number, or too large for {types[name].name}; wrong adapter?"
                )
            output.write(data.data)
            if stop == shape[0]:
                output.end_tensor()
        done += (stop - start) * math.prod(shape[1:])
        on_weights(done, total)

    try:
        for name, tensor in model.tensors.items():
            kinds = {types[name] for _, types in outputs.values()}
            rows, shift = tensor.opened(), architectures.shift(model.architecture, name)
            for place in _slabs(tensor.shape):
                under_way.append((name, place, pool.submit(_made, rows, place, shift, kinds, importance.get(name))))
                if len(under_way) > n_threads + 1:
                    append_first()
        while under_way:
            append_first()
    finally:
        pool.shutdown(cancel_futures=True)


def _made(
    rows: lora.Rows, place: tuple[int, int], shift: float, kinds: set[GGMLQuantizationType], importance: Array | None
) -> dict[GGMLQuantizationType, Bytes | None]:
    """One slab at every type that is wanted."""
    with np.errstate(all="ignore"):  # what overflows is no number, and refused below
        slab: Array = rows(*place)
    if shift:
        slab = slab + np.float32(shift)
    if not np.isfinite(slab).all():
        return dict.fromkeys(kinds)
    slab = slab.reshape(1, -1) if slab.ndim == 1 else slab
    return {kind: quantized(slab, kind, importance) for kind in kinds}
