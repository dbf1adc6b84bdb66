"""Reads the header of an untrusted GGUF and checks its bounds before llama.cpp opens the file.

Owns the outer file format: magic, counts, metadata and the position of each tensor. Never reads weights, and checks every
length against the size of the file first. Invariant: `read_header` returns or raises `ModelRefused` in time linear in the
size of the header. Format: ggml's docs/gguf.md, version 3.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pathlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edge_agent.core.errors import ModelMissing, ModelRefused
from edge_agent.model.profile import held_adapters

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_MAX_ITEMS = 1 << 20  # metadata pairs or tensors; real files have a few hundred
_MAX_KEY_BYTES = 1 << 16
_MAX_TEXT_BYTES = 1 << 26  # of all strings together; a tokenizer and a template take a few megabytes, which must fit on a Pi
_MAX_DIMENSIONS = 4
_START_BYTES = 1 << 16  # writers put what a file is before its vocabulary

# ggml type -> (weights in a block, bytes in a block)
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66),
}  # fmt: skip

# llama_ftype of llama.cpp -> its usual name
QUANTIZATIONS = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
    19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL",
    26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16",
}  # fmt: skip


class TensorPlace(NamedTuple):
    """Where the data of a tensor lies in the file: its ggml type, its shape with the row length first, and the first byte."""

    kind: int
    shape: tuple[int, ...]
    offset: int


class ArrayPlace(NamedTuple):
    """Where the items of an array lie in the file: their type, their number and the first byte."""

    item: int
    n_items: int
    offset: int


@dataclass(frozen=True, slots=True)
class Header:
    """The metadata of a GGUF (scalars and strings; an array is checked and skipped), and where its tensors and arrays lie."""

    metadata: dict[str, Any]
    n_tensors: int
    tensors: dict[str, TensorPlace] = field(default_factory=dict)
    arrays: dict[str, ArrayPlace] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        """llama.cpp's name for the architecture, or "unknown"."""
        return str(self.metadata.get("general.architecture", "unknown"))

    @property
    def quantization(self) -> str:
        """llama.cpp's name for the file type, or "unknown"."""
        file_type = self.metadata.get("general.file_type")
        return QUANTIZATIONS.get(file_type, "unknown") if isinstance(file_type, int) else "unknown"

    @property
    def is_adapter(self) -> bool:
        """Whether the file is an adapter (a LoRA) and not a model."""
        return self.metadata.get("general.type") == "adapter"

    @property
    def base_model(self) -> str | None:
        """What the file calls the model that it was made from; None if it does not say."""
        found = [self.metadata.get(f"general.base_model.0.{key}") for key in ("repo_url", "name")]
        return next((text.strip().removeprefix("https://huggingface.co/")[:100] for text in found if isinstance(text, str) and text), None)


def read_header(path: pathlib.Path) -> Header:
    """Read and check the header of the GGUF at `path`. Raises `ModelMissing` or `ModelRefused`."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelRefused(f"'{path}' is not a GGUF file; give a .gguf file, or make one with `python -m convert`.")
            size = os.fstat(file.fileno()).st_size
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(data, size, path).header()
    except FileNotFoundError as error:
        raise ModelMissing(f"There is no model file '{path}'; check the path.") from error
    except OSError as error:
        raise ModelMissing(f"Cannot read the model file '{path}' ({error.strerror}); check its permissions.") from error


def read_texts(path: pathlib.Path, header: Header, key: str) -> Iterator[bytes]:
    """The strings of an array in the metadata of the GGUF at `path`, one at a time. Raises KeyError if there is none."""
    place = header.arrays[key]
    if place.item != _STRING:
        raise KeyError(key)
    with path.open("rb") as file:
        file.seek(place.offset)
        for _ in range(place.n_items):
            yield file.read(int.from_bytes(file.read(8), "little"))


def read_start(data: bytes) -> Header:
    """The metadata in the first bytes of a GGUF, as far as they go; none if the bytes are anything else. `n_tensors` is 0."""
    reader = _Reader(data, len(data), pathlib.Path())
    if data.startswith(b"GGUF"):
        with contextlib.suppress(ModelRefused):
            reader.header()
    return Header({key: value for key, value in reader.metadata.items() if value is not None}, 0)


def peek(path: pathlib.Path) -> Header:
    """What the start of the file says, in one small read; nothing if it is no GGUF or cannot be read."""
    try:
        with path.open("rb") as file:
            return read_start(file.read(_START_BYTES))
    except OSError:
        return Header({}, 0)


def read_model(path: pathlib.Path) -> Header:
    """Like `read_header`, and refuses an adapter, which only runs on top of a model."""
    header = read_header(path)
    if header.is_adapter:
        base = f" ({header.base_model})" if header.base_model else ""
        raise ModelRefused(f"'{path}' is an adapter, not a model; give it with --adapter, and its base model{base} with --model.")
    return header


def read_adapter(path: pathlib.Path, model: Header | None = None, held: Iterable[str] = ()) -> Header:
    """Read and check the header of a GGUF adapter (a LoRA), for `model` if it is given. Raises `ModelMissing` or `ModelRefused`.

    `held` are the hashes of adapters that the model is known to hold, beside those that it names.
    """
    header = read_header(path)
    if not header.is_adapter or header.metadata.get("adapter.type") != "lora":
        raise ModelRefused(f"'{path}' is not an adapter; make one with `python -m convert --adapter-gguf`.")
    if model and header.architecture != model.architecture:
        raise ModelRefused(f"The adapter '{path}' is for {header.architecture!r:.40}, not for this {model.architecture!r:.40} model.")
    known = held_adapters(model.metadata) | set(held) if model else set()
    if twice := sorted(held_adapters(header.metadata) & known):
        raise ModelRefused(
            f"The model already holds the adapter '{path}' (sha256 {twice[0][:12]}...), which would count twice; leave the adapter out, "
            "or give the model without it."
        )
    return header


class _Reader:
    """A cursor in the mapped file. It checks every length before it moves."""

    def __init__(self, data: mmap.mmap | bytes, size: int, path: pathlib.Path) -> None:
        self.data, self.size, self.path, self.at, self.text_bytes = data, size, path, 4, 0
        self.arrays: dict[str, ArrayPlace] = {}
        self.metadata: dict[str, Any] = {}

    def header(self) -> Header:
        version = self.scalar("<I")
        if version not in (2, 3):
            raise self.refused(f"has GGUF version {version}, but only 2 and 3 are supported")
        n_tensors, n_pairs = self.scalar("<Q"), self.scalar("<Q")
        if n_tensors > _MAX_ITEMS or n_pairs > _MAX_ITEMS:
            raise self.refused(f"claims {n_tensors} tensors and {n_pairs} metadata entries")
        metadata = self.metadata
        for _ in range(n_pairs):
            key = self.text(_MAX_KEY_BYTES)
            if key in metadata:
                raise self.refused(f"has the metadata key {key!r:.80} twice")
            metadata[key] = self.value(key, self.scalar("<I"))
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self.refused(f"has the alignment {alignment!r:.40}")
        places = [self.tensor(alignment) for _ in range(n_tensors)]
        start = -(-self.at // alignment) * alignment
        if places and start + max(end for end, _, _ in places) > self.size:
            name = max(places)[1]
            raise self.refused(f"is truncated or damaged: the tensor {name!r:.80} ends after the end of the file")
        scalars = {key: value for key, value in metadata.items() if value is not None}
        tensors = {name: place._replace(offset=start + place.offset) for _, name, place in places}
        return Header(scalars, n_tensors, tensors, self.arrays)

    def tensor(self, alignment: int) -> tuple[int, str, TensorPlace]:
        """Where the data of one tensor ends in the data section, its name, and its place in that section."""
        name = self.text(_MAX_KEY_BYTES)
        n_dimensions = self.scalar("<I")
        if not 1 <= n_dimensions <= _MAX_DIMENSIONS:
            raise self.refused(f"has {n_dimensions} dimensions in the tensor {name!r:.80}")
        shape = [self.scalar("<Q") for _ in range(n_dimensions)]
        block = _BLOCKS.get(kind := self.scalar("<I"))
        offset = self.scalar("<Q")
        if block is None:
            raise self.refused(f"has the unknown type {kind} in the tensor {name!r:.80}")
        weights = 1
        for length in shape:
            weights *= length
        if min(shape) == 0 or shape[0] % block[0] or offset % alignment:
            raise self.refused(f"has an impossible shape or position for the tensor {name!r:.80}")
        return offset + weights // block[0] * block[1], name, TensorPlace(kind, tuple(shape), offset)

    def value(self, key: str, kind: int) -> Any:
        """One metadata value. An array is checked and skipped; its value is None."""
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.text(_MAX_TEXT_BYTES)
        if kind != _ARRAY:
            raise self.refused(f"has a metadata value of the unknown type {kind}")
        if key.startswith("foggen.") or key == "tokenizer.chat_template":  # skipped, it would count as not there
            raise self.refused(f"has a list as {key!r:.80}, where one value is meant")
        item, count = self.scalar("<I"), self.scalar("<Q")
        self.arrays[key] = ArrayPlace(item, count, self.at)
        if item in _SCALARS:
            self.skip(count * struct.calcsize(_SCALARS[item]))
        elif item == _STRING:
            self.skip_texts(count)
        else:
            raise self.refused(f"has an array of the unknown type {item}")
        return None

    def skip_texts(self, count: int) -> None:
        """Skip `count` strings. The loop is minimal, because a vocabulary has about 150,000 of them."""
        if count * 8 > self.size:
            raise self.refused(f"claims an array of {count} strings")
        unpack, data, at, last = struct.Struct("<Q").unpack_from, self.data, self.at, self.size - 8
        for _ in range(count):
            if at > last:
                break
            at += 8 + unpack(data, at)[0]
        self.skip(at - self.at)

    def scalar(self, form: str) -> Any:
        at = self.at
        self.skip(struct.calcsize(form))
        return struct.unpack_from(form, self.data, at)[0]

    def text(self, limit: int) -> str:
        length = self.scalar("<Q")
        self.text_bytes += length
        if length > limit or self.text_bytes > _MAX_TEXT_BYTES:
            raise self.refused(f"has a string of {length} bytes, and strings of {self.text_bytes} bytes so far")
        at = self.at
        self.skip(length)
        return self.data[at : self.at].decode("utf-8", errors="replace")

    def skip(self, n_bytes: int) -> None:
        if n_bytes > self.size - self.at:
            raise self.refused("is truncated or damaged: its header is longer than the file")
        self.at += n_bytes

    def refused(self, what: str) -> ModelRefused:
        return ModelRefused(f"The model file '{self.path}' {what}; fetch or convert it again.")
