"""Converts a base checkpoint with its adapters to GGUF files: the one place where the parts of `convert` meet.

Owns the order of work: check everything, let llama.cpp choose the tensor types, then read the checkpoint once, one slab of
rows at a time. Each slab is merged in float32, quantized to every requested type and appended to every file. Invariant:
nothing is written before the checkpoint and all adapters are checked; no tensor is ever in memory as a whole; there are no
intermediate files.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType

from convert import architectures, imatrix, lora, names, vocab
from convert.architectures import EMBEDDING, HEAD, Architecture
from convert.checkpoint import Array, Tensor, read_json, read_tensors, slabs
from convert.output import ALIGNMENT, Output, check_name, default_name, header, remove_unfinished
from convert.quantize import FILE_TYPES, Bytes, TypeChoice, choose_types, n_bytes, needs_importance, quantized
from convert.tokenizer_files import has_tokenizer
from edge_agent.core.errors import ConvertError, EdgeAgentError
from edge_agent.model.gguf import read_header
from edge_agent.model.profile import ADAPTERS_KEY, Profile, default_profile, from_metadata, gguf_keys, held_adapters

STATED = "foggen"
"""The key of config.json for the `foggen.*` metadata of the GGUF that a checkpoint was made from."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """What to convert: the checkpoint in the folder `source`, with `adapters` merged in order, at each of `quantizations`.

    The files are called NAME-QUANTIZATION.gguf; without a `name` they take those of the folders. `answer_kind` is what the model
    is made for; without one it is what the checkpoint states, or else letters, or for the architectures of plain models a plain model.
    `matrix` is the file of an importance matrix.
    Raises `ConvertError` for an unknown quantization or a name with slashes.
    """

    source: pathlib.Path
    adapters: Sequence[pathlib.Path] = ()
    quantizations: Sequence[str] = ("Q8_0",)
    name: str = ""
    answer_kind: str = ""
    matrix: pathlib.Path | None = None

    def __post_init__(self) -> None:
        known = ", ".join(FILE_TYPES)
        wanted = tuple(dict.fromkeys(name.upper() for name in self.quantizations))
        if not wanted:
            raise ConvertError(f"No quantization is given; give one or more of {known}.")
        if unknown := [name for name in wanted if name not in FILE_TYPES]:
            raise ConvertError(f"The quantization '{unknown[0]}' is unknown; use one of {known}.")
        object.__setattr__(self, "quantizations", wanted)
        object.__setattr__(self, "name", check_name(self.name or default_name((self.source, *self.adapters))))


@dataclass(frozen=True, slots=True)
class Reports:
    """Where progress goes: `step` gets each step in words, `weights` the number of weights that are done and their total."""

    step: Callable[[str], None] = lambda step: None
    weights: Callable[[int, int], None] = lambda done, total: None


@dataclass(frozen=True, slots=True)
class Written:
    """A finished GGUF. `fallbacks` say in words which tensors have another type than their quantization asks for."""

    path: pathlib.Path
    quantization: str
    sha256: str
    bytes: int
    fallbacks: list[str]


@dataclass(frozen=True, slots=True)
class Model:
    """A checked checkpoint with its adapters: the tensors by their names in the GGUF.

    `stated` is the `foggen.*` metadata of the GGUF that the checkpoint was made from, if it was.
    """

    folder: pathlib.Path
    config: dict[str, Any]
    architecture: Architecture
    tensors: dict[str, lora.Merged]
    adapters: tuple[lora.Adapter, ...] = ()
    stated: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_weights(self) -> int:
        """The number of weights."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())


def open_model(source: pathlib.Path, adapters: Sequence[pathlib.Path] = ()) -> Model:
    """Open and check the checkpoint in the folder `source`, with `adapters` to merge in order. Raises `ConvertError`."""
    config, tensors = read_json(source / "config.json"), names.of_base(read_tensors(source), source)
    architecture = architectures.of(config)
    architectures.check_complete(architecture, config, {name: tensor.shape for name, tensor in tensors.items()})
    tied = architectures.is_tied(architecture, config)
    base = _with_head(tensors, tied)
    opened = [lora.open_adapter(folder, base) for folder in adapters]
    stated = _stated(source, config)
    _check_different(opened, held_adapters(stated))
    merged = lora.merged(base, opened, (EMBEDDING, HEAD) if tied else ())
    if tied and _same(merged[EMBEDDING], merged[HEAD]):
        del merged[HEAD]
    in_file = architectures.tensor_names(architecture, config, merged)
    ordered = sorted(merged, key=lambda name: _file_order(in_file[name]))
    return Model(source, config, architecture, {in_file[name]: merged[name] for name in ordered}, tuple(opened), stated)


def metadata(model: Model, name: str, answer_kind: str, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """All metadata of a GGUF of `model` except its file type. `say` gets what a person should know. Raises `ConvertError`."""
    architecture = model.architecture
    writer = gguf.GGUFWriter(None, architecture.name)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name.encode("utf-8", "replace").decode())
    writer.add_size_label(gguf.size_label(model.n_weights, model.n_weights, 0, 0))
    architecture.hyper_parameters(writer, model.config)
    vocab.write(writer, _vocabulary(model, say))
    profile = _profile(model, answer_kind, say)
    for key, value in {**(gguf_keys(profile) if profile else {}), **held(model.adapters, held_adapters(model.stated))}.items():
        add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)]
        add(key, value)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    return dict(writer.kv_data[0])


def held(adapters: Sequence[lora.Adapter], before: Iterable[str] = ()) -> dict[str, str]:
    """The metadata that says which adapters a file holds; `before` are the hashes of those that the checkpoint already held.

    It has no names, so that the same input gives the same file anywhere.
    """
    hashes = [*sorted(before), *(sha256 for adapter in adapters for sha256 in adapter.hashes)]
    return {ADAPTERS_KEY: json.dumps(hashes)} if hashes else {}


def _stated(source: pathlib.Path, config: dict[str, Any]) -> dict[str, Any]:
    """The `foggen.*` metadata in a config.json that `convert.dequantize` wrote; nothing in any other."""
    stated = config.get(STATED, {})
    if not isinstance(stated, dict):
        raise ConvertError(f"'{STATED}' in the config.json of '{source}' is {stated!r:.40}; it must be an object.")
    return {f"foggen.{key}": value for key, value in stated.items()}


def _profile(model: Model, answer_kind: str, say: Callable[[str], None]) -> Profile | None:
    """The profile that the checkpoint states, or the default one; None for a plain model, about which a file says nothing."""
    name = model.architecture.name
    try:
        stated = from_metadata({"general.architecture": name, **model.stated})
    except EdgeAgentError as error:
        raise ConvertError(f"'{STATED}' in the config.json of '{model.folder}' is wrong: {error}") from error
    if stated.is_plain and not answer_kind:
        say("this is a plain model, which prints no confidence; if FogGen's recipe trained it, give --answer-kind")
        return None
    if not stated.is_plain and answer_kind in ("", stated.answer_kind):
        return stated
    if model.stated:
        say(f"the answer kind is {answer_kind}, though the checkpoint states {stated.answer_kind}; the system message is the default one")
    return default_profile(name, answer_kind)


def say_replaced(target: pathlib.Path, adapters: Sequence[lora.Adapter], say: Callable[[str], None]) -> None:
    """Say that a file will be replaced, and whether it holds something else."""
    if not target.exists():
        return
    try:
        there = held_adapters(read_header(target).metadata)
    except EdgeAgentError:
        say(f"replacing '{target}', which is not a GGUF")
        return
    known = {sha256 for adapter in adapters for sha256 in adapter.hashes}
    same = there <= known and all(there.intersection(adapter.hashes) for adapter in adapters)
    what = "which holds the same adapters" if same and there else "which holds no adapter" if not there else "which holds other adapters"
    say(f"replacing '{target}', {what}")


def _vocabulary(model: Model, say: Callable[[str], None]) -> vocab.Vocabulary:
    """The tokenizer of the checkpoint, or that of the last adapter which has one of its own."""
    n_rows = model.tensors["token_embd.weight"].shape[0]
    found = vocab.read(model.folder, n_rows, model.architecture, model.config)
    for adapter in model.adapters:
        if has_tokenizer(adapter.folder):
            later = found.followed_by(vocab.read(adapter.folder, n_rows, model.architecture, model.config, found))
            if later.differs_from(found):
                say(f"the tokenizer is that of the adapter {later}, which differs from that of {found}")
            found = later
    for line in found.notes():
        say(line)
    return found


def export(job: Conversion, out: pathlib.Path, reports: Reports | None = None) -> list[Written]:
    """Write one GGUF for each quantization of `job` into the folder `out`. Raises `ConvertError`."""
    reports = reports or Reports()
    model = open_model(job.source, job.adapters)
    fields, importance = metadata(model, job.name, job.answer_kind, reports.step), _importance(job.matrix, model)
    if job.matrix:
        fields |= _provenance(job.matrix, importance)
    choices = choose_types(lambda path: _write_sparse(path, model), job.quantizations, has_importance=bool(importance))
    for choice in choices.values():
        _check_importance(choice, importance)
    heads = {quantization: _header(model, fields, quantization, choice) for quantization, choice in choices.items()}
    reports.step(f"converting {len(model.tensors)} tensors with {len(job.adapters)} adapters to {', '.join(choices)}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        _check_space(out, sum(len(heads[q]) + _data_bytes(model, choice) for q, choice in choices.items()))
        for quantization in heads:
            say_replaced(_target(job, out, quantization), model.adapters, reports.step)
        with contextlib.ExitStack() as stack:
            outputs = {q: stack.enter_context(Output(_target(job, out, q), head)) for q, head in heads.items()}
            _stream(model, {q: (output, choices[q].types) for q, output in outputs.items()}, importance, reports.weights)
            hashes = {q: output.finish() for q, output in outputs.items()}
    except KeyboardInterrupt:
        for quantization in heads:
            remove_unfinished(_target(job, out, quantization))
        raise
    except OSError as error:
        raise ConvertError(f"Cannot write to '{out}' ({error.strerror or error}); check the folder and its free space.") from error
    return [Written(outputs[q].target, q, hashes[q], outputs[q].n_bytes, choice.fallbacks) for q, choice in choices.items()]


def _target(job: Conversion, out: pathlib.Path, quantization: str) -> pathlib.Path:
    return out / f"{job.name}-{quantization}.gguf"


def _file_order(name: str) -> tuple[int, str]:
    """The position of a tensor in the file, in the order of llama.cpp's quantizer: outside of any block first, then by block."""
    parts = name.split(".")
    return (int(parts[1]) if parts[0] == "blk" else -1), name


def _check_different(adapters: Sequence[lora.Adapter], before: set[str]) -> None:
    """Refuse an adapter that is given twice, or that the checkpoint already holds (`before`)."""
    found: dict[str, lora.Adapter] = {}
    for adapter in adapters:
        if before.intersection(adapter.hashes):
            raise ConvertError(f"The checkpoint already holds the adapter '{adapter.folder}', which would count twice; leave it out.")
        for sha256 in adapter.hashes:
            if (first := found.setdefault(sha256, adapter)) is not adapter:
                raise ConvertError(f"The adapters '{first.folder}' and '{adapter.folder}' have the same weights; give each adapter once.")


def _with_head(tensors: dict[str, Tensor], tied: bool) -> dict[str, Tensor]:
    """The tensors with the output head, even if it is the embedding. Refuses a tied checkpoint with another head."""
    if not tied:
        if HEAD not in tensors:
            raise ConvertError(f"The checkpoint has an untied output head but no tensor '{HEAD}'; download it again.")
        return tensors
    head = tensors.get(HEAD, tensors[EMBEDDING])
    if not _same(lora.Merged(head), lora.Merged(tensors[EMBEDDING])):
        raise ConvertError(f"The checkpoint has a tied output head, but '{HEAD}' differs from '{EMBEDDING}'; download it again.")
    return {**tensors, HEAD: tensors[EMBEDDING]}


def _same(one: lora.Merged, other: lora.Merged) -> bool:
    """Whether two tensors hold the same numbers. Two tensors that adapters change count as different."""
    if one.pairs or other.pairs or one.shape != other.shape:
        return False
    if one.start is other.start:
        return True
    return all(np.array_equal(one.start.load(*rows), other.start.load(*rows)) for rows in slabs(one.shape))


def _header(model: Model, fields: Mapping[str, Any], quantization: str, choice: TypeChoice) -> bytes:
    writer = gguf.GGUFWriter(None, model.architecture.name)
    writer.add_file_type(FILE_TYPES[quantization])
    missing = [name for name in model.tensors if name not in choice.types]
    if missing:
        raise ConvertError(f"llama.cpp chose no type for '{missing[0]}'; install the pinned version of llama-cpp-python.")
    tensors = ((name, tensor.shape, choice.types[name]) for name, tensor in model.tensors.items())
    return header({**fields, **writer.kv_data[0]}, model.architecture.name, tensors)


def _write_sparse(path: pathlib.Path, model: Model) -> int:
    """Write the header for llama.cpp's choice of types: float32 tensors and no vocabulary. Returns the full file size."""
    writer = gguf.GGUFWriter(None, model.architecture.name)
    model.architecture.hyper_parameters(writer, model.config)
    tensors = ((name, tensor.shape, GGMLQuantizationType.F32) for name, tensor in model.tensors.items())
    data = header(writer.kv_data[0], model.architecture.name, tensors)
    path.write_bytes(data)
    return len(data) + sum(n_bytes(tensor.shape, GGMLQuantizationType.F32) + ALIGNMENT for tensor in model.tensors.values())


def _data_bytes(model: Model, choice: TypeChoice) -> int:
    return sum(n_bytes(tensor.shape, choice.types[name]) + ALIGNMENT for name, tensor in model.tensors.items())


def _importance(matrix: pathlib.Path | None, model: Model) -> dict[str, Array]:
    if matrix is None:
        return {}
    importance = imatrix.load(matrix)
    imatrix.check_fit(importance, {name: tensor.shape for name, tensor in model.tensors.items()})
    return importance


def _provenance(matrix: pathlib.Path, importance: Mapping[str, Array]) -> dict[str, Any]:
    """The metadata that says which matrix was used, under the keys of llama.cpp's own quantizer."""
    writer = gguf.GGUFWriter(None, "")
    writer.add_string("quantize.imatrix.file", matrix.name.encode("utf-8", "replace").decode())
    writer.add_uint32("quantize.imatrix.entries_count", len(importance))
    return {key: value for key, value in writer.kv_data[0].items() if key.startswith("quantize.")}


def _check_importance(choice: TypeChoice, importance: Mapping[str, Array]) -> None:
    for name, kind in choice.types.items():
        if needs_importance(kind) and name not in importance:
            raise ConvertError(f"The importance matrix has no entry for '{name}', and {kind.name} needs one; collect it from this model.")


def _check_space(out: pathlib.Path, needed: int) -> None:
    if (free := shutil.disk_usage(out).free) < needed:
        raise ConvertError(
            f"The files need {needed / 1e6:,.0f} MB, and '{out}' has {free / 1e6:,.0f} MB free; free some space or give another --out."
        )


def _stream(
    model: Model,
    outputs: Mapping[str, tuple[Output, Mapping[str, GGMLQuantizationType]]],
    importance: Mapping[str, Array],
    on_weights: Callable[[int, int], None],
) -> None:
    """Read, merge, quantize and append every tensor, in order. Several slabs are in progress at once."""
    done, total = 0, model.n_weights
    n_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    in_progress: deque[tuple[str, tuple[int, int], Future[dict[GGMLQuantizationType, Bytes | None]]]] = deque()
    pool = ThreadPoolExecutor(n_threads)

    def append_first() -> None:
        nonlocal done
        name, (start, stop), future = in_progress.popleft()
        slab, shape = future.result(), model.tensors[name].shape
        for output, types in outputs.values():
            data = slab[types[name]]
            if data is None:
                raise ConvertError(
                    f"The tensor '{name}' has a value that is not a number or is too large for {types[name].name}; check the adapter."
                )
            output.write(data.data)
            if stop == shape[0]:
                output.end_tensor()
        done += (stop - start) * math.prod(shape[1:])
        on_weights(done, total)

    try:
        for name, tensor in model.tensors.items():
            kinds = {types[name] for _, types in outputs.values()}
            rows_in_order = architectures.reordered(tensor.opened(), architectures.row_order(model.architecture, model.config, name))
            slab = _SlabMaker(rows_in_order, architectures.shift(model.architecture, name), kinds, importance.get(name))
            for rows in slabs(tensor.shape):
                in_progress.append((name, rows, pool.submit(slab.quantize, *rows)))
                if len(in_progress) > n_threads + 1:
                    append_first()
        while in_progress:
            append_first()
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _SlabMaker:
    """Makes the slabs of one tensor: its rows, what is added to them, the requested types, and the columns' importance."""

    rows: architectures.Rows
    shift: float
    kinds: set[GGMLQuantizationType]
    importance: Array | None

    def quantize(self, start: int, stop: int) -> dict[GGMLQuantizationType, Bytes | None]:
        """The rows from `start` up to `stop` at every type; None where a value is not a finite number."""
        with np.errstate(all="ignore"):  # an overflow gives inf, which is refused below
            slab: Array = self.rows(start, stop)
        if self.shift:
            slab = slab + np.float32(self.shift)
        if not np.isfinite(slab).all():
            return dict.fromkeys(self.kinds)
        slab = slab.reshape(1, -1) if slab.ndim == 1 else slab
        return {kind: quantized(slab, kind, self.importance) for kind in self.kinds}
