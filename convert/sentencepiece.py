"""Reads a SentencePiece model (`tokenizer.model`): its pieces with their scores and kinds.

Owns the small part of protobuf's wire format that this needs, so that one file needs no library. Invariant: every length
is checked against the available bytes. Format: https://github.com/google/sentencepiece, `sentencepiece_model.proto`;
https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

import math
import pathlib
import struct
from collections.abc import Iterator
from typing import NamedTuple

from edge_agent.core.errors import ConvertError

# Fields of ModelProto, SentencePiece, TrainerSpec
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_TEXT, _SCORE, _KIND = 1, 2, 3
_MODEL_TYPE, _BPE = 3, 2
_CHARACTER_MAP, _ADD_SPACE, _REMOVE_SPACES, _ESCAPE_SPACES = 2, 3, 4, 5  # of NormalizerSpec; the last three are on by default

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_BYTES = 100_000_000

NORMAL = 1


class Piece(NamedTuple):
    """A token: its text, its score (higher scores merge earlier), and its kind, with the same numbers as in llama.cpp."""

    text: bytes
    score: float
    kind: int


class _Rules(NamedTuple):
    """What a model does to text before it splits it: whether it adds a space in front, removes doubled ones, writes spaces as
    U+2581, and maps characters.
    """

    adds_space: bool = True
    removes_spaces: bool = True
    escapes_spaces: bool = True
    maps_characters: bool = False

    @classmethod
    def of(cls, spec: dict[int, int | bytes]) -> _Rules:
        adds, removes, escapes = (bool(spec.get(field, True)) for field in (_ADD_SPACE, _REMOVE_SPACES, _ESCAPE_SPACES))
        return cls(adds, removes, escapes, bool(spec.get(_CHARACTER_MAP)))


_GEMMA = _Rules(adds_space=False, removes_spaces=False)


def read_pieces(path: pathlib.Path) -> list[Piece]:
    """The pieces by id. Raises `ConvertError` for a damaged file, or for a model that is not BPE or treats spaces otherwise."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("too large")
        pieces, merges, rules = [], False, _Rules()
        for field, value in _fields(path.read_bytes()):
            if field == _PIECES and isinstance(value, bytes):
                pieces.append(_piece(value))
            elif field == _TRAINER and isinstance(value, bytes):
                merges = (_MODEL_TYPE, _BPE) in _fields(value)
            elif field == _NORMALIZER and isinstance(value, bytes):
                rules = _Rules.of(dict(_fields(value)))
    except (OSError, ValueError, struct.error, IndexError) as error:
        raise ConvertError(f"The file '{path}' is not an intact SentencePiece model ({error!s:.60}); download it again.") from error
    if not pieces or not merges:
        raise ConvertError(f"The SentencePiece model '{path}' is not BPE, as Gemma's is; check the checkpoint.")
    if rules != _GEMMA:
        raise ConvertError(
            f"The SentencePiece model '{path}' changes spaces or characters before it splits text, as Gemma's does not, so the GGUF "
            "would make other tokens; check the checkpoint."
        )
    return pieces


def _piece(data: bytes) -> Piece:
    text, score, kind = b"", 0.0, NORMAL
    for field, value in _fields(data):
        if field == _TEXT and isinstance(value, bytes):
            text = value
        elif field == _SCORE and isinstance(value, bytes):
            score = struct.unpack("<f", value)[0]
        elif field == _KIND and isinstance(value, int):
            kind = value
    if not 1 <= kind <= 6 or not math.isfinite(score):
        raise ValueError(f"a piece of kind {kind} and score {score}")
    return Piece(text, score, kind)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The number and value of each field: an integer for a varint, bytes for everything else."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if length > len(data) - at:
            raise ValueError("a field ends after the end of the file")
        yield tag >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError("a number is too long")
