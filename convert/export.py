"""Base + adapters to GGUF files: the one place where the workshop's parts meet.

Owns the order of work: check everything, stream and merge into one float32 GGUF beside the output, quantize it to
each level, remove it. Invariant: nothing is written before the checkpoint and every adapter were checked, and a file
has its final name only when it is whole.
"""

from __future__ import annotations

import hashlib
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gguf
import numpy as np

from convert import architectures, lora, vocab
from convert.architectures import Architecture
from convert.checkpoint import Tensor, read_json, read_tensors
from convert.quantize import FILE_TYPES, quantize
from edge_agent.errors import ConvertError
from edge_agent.profile import default_profile, gguf_keys

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True, slots=True)
class Written:
    """A GGUF that was made; `fallbacks` are llama.cpp's lines about tensors that took another type."""

    path: pathlib.Path
    quantization: str
    sha256: str
    bytes: int
    fallbacks: list[str]


def export(
    source: pathlib.Path,
    adapters: Sequence[pathlib.Path],
    quantizations: Sequence[str],
    out: pathlib.Path,
    name: str | None = None,
    progress: Callable[[str], None] = lambda step: None,
    answer_kind: str = "letter",
) -> list[Written]:
    """Convert the checkpoint in `source`, with `adapters` merged in order, to `out`/NAME-QUANTIZATION.gguf each.

    `progress` is told each step. Raises `ConvertError`.
    """
    if not quantizations:
        raise ConvertError(f"No quantization is named; name one or more of {', '.join(FILE_TYPES)}.")
    if unknown := [q for q in quantizations if q not in FILE_TYPES]:
        raise ConvertError(f"The quantization '{unknown[0]}' is unknown; known are {', '.join(FILE_TYPES)}.")
    if not source.is_dir():
        raise ConvertError(f"There is no folder '{source}'; give a folder with a transformers checkpoint.")
    name = name or source.resolve().name
    if pathlib.PurePath(name).name != name:
        raise ConvertError(f"The name '{name}' is no plain file name; give one without slashes.")
    config, tensors = read_json(source / "config.json"), read_tensors(source)
    architecture = architectures.of(config)
    architectures.check_complete(architecture, config, {name: tensor.shape for name, tensor in tensors.items()})
    tensors = _without_duplicate_head(tensors, bool(config.get("tie_word_embeddings")))
    names = {name: architectures.tensor_name(architecture, config, name) for name in tensors}
    opened = [lora.open_adapter(folder, tensors) for folder in adapters]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".convert-", dir=out) as scratch:
            merged = pathlib.Path(scratch) / "merged.gguf"
            progress(f"merging {len(tensors)} tensors, {len(opened)} adapters")
            _write_merged(merged, source, config, architecture, tensors, names, opened, name, answer_kind)
            return [_quantized(merged, out / f"{name}-{q}.gguf", q, progress) for q in quantizations]
    except OSError as error:
        raise ConvertError(f"Writing to '{out}' failed ({error.strerror or error}); check the folder and its space.") from error


def _quantized(merged: pathlib.Path, target: pathlib.Path, quantization: str, progress: Callable[[str], None]) -> Written:
    progress(f"quantizing to {quantization}")
    fallbacks = quantize(merged, target, quantization)
    with target.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Written(target, quantization, sha256, target.stat().st_size, fallbacks)


def _without_duplicate_head(tensors: dict[str, Tensor], tied: bool) -> dict[str, Tensor]:
    """The tensors less an `lm_head` that only repeats the embedding; a tied checkpoint with another head is refused."""
    if not tied or _HEAD not in tensors:
        return tensors
    if not np.array_equal(tensors[_HEAD].load(), tensors[_EMBEDDING].load()):
        raise ConvertError(f"The checkpoint says that its head is tied, but '{_HEAD}' differs from '{_EMBEDDING}'.")
    return {name: tensor for name, tensor in tensors.items() if name != _HEAD}


def _write_merged(
    path: pathlib.Path,
    source: pathlib.Path,
    config: dict[str, object],
    architecture: Architecture,
    tensors: dict[str, Tensor],
    names: dict[str, str],
    adapters: Sequence[lora.Adapter],
    name: str,
    answer_kind: str,
) -> None:
    """The merged model as a float32 GGUF, one tensor in memory at a time."""
    writer = gguf.GGUFWriter(path, architecture.name)
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES["F32"])
    architecture.hyper_parameters(writer, config)
    vocab.write(writer, source, tensors[_EMBEDDING].shape[0], architecture.pre)
    for key, value in gguf_keys(default_profile(architecture.name, answer_kind)).items():
        add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)]
        add(key, value)
    for tensor in tensors.values():
        writer.add_tensor_info(names[tensor.name], tensor.shape, np.dtype(np.float32), 4 * int(np.prod(tensor.shape)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors.values():
        weight = tensor.load()
        for adapter in adapters:
            weight = adapter.merge(tensor.name, weight)
        writer.write_tensor_data(np.ascontiguousarray(weight, dtype=np.float32))
    writer.close()
