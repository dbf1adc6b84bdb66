"""A question's prompt as tokens, of which no text of a person makes a special one.

Owns the cutting of text around added tokens. Knows a tokenizer only as three functions. Invariant: the special tokens
of a prompt are those of its profile's segments, whatever the person wrote.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from edge_agent.core.errors import ModelRefused
from edge_agent.model.profile import Segment, SegmentKind


class Tokenizer(Protocol):
    """What is needed of a tokenizer; `Llama` has it."""

    def tokenize(self, text: str, parse_special: bool = False) -> list[int]:
        """Tokens of `text`."""

    def piece(self, token: int) -> bytes:
        """The text of one token."""

    def is_added(self, token: int) -> bool:
        """Whether it is a control token or a user-defined one."""


def tokens(tokenizer: Tokenizer, segments: Sequence[Segment]) -> list[int]:
    """The tokens of a whole prompt; raises `ModelRefused` if the vocabulary lacks a special token."""
    return [token for segment in segments for token in _segment_tokens(tokenizer, segment)]


def prefix(segments: Sequence[Segment]) -> Sequence[Segment]:
    """The beginning that is the same for every question."""
    return segments[: next(i for i, segment in enumerate(segments) if segment.kind is SegmentKind.PERSON)]


def _segment_tokens(tokenizer: Tokenizer, segment: Segment) -> list[int]:
    if segment.kind is SegmentKind.SPECIAL:
        special = tokenizer.tokenize(segment.text, parse_special=True)
        if len(special) != 1:
            raise ModelRefused(f"The model's vocabulary has no token '{segment.text}'; it cannot be asked this way.")
        return special
    if segment.kind is SegmentKind.MODEL:
        return tokenizer.tokenize(segment.text)
    return _plain_tokens(tokenizer, segment.text)


def _plain_tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    """Tokens of a stranger's text, none of them an added one.

    llama.cpp leaves control tokens alone with `parse_special=False`, but still makes one token of user-defined
    ones such as `</think>`. Where that happens the text is cut behind the token's first character. Tokens of
    white space alone (Gemma has some) are ordinary text and stay.
    """
    found, parts = [], deque([text])
    while parts:
        part = parts.popleft()
        part_tokens = tokenizer.tokenize(part)
        added = next((piece for token in part_tokens if (piece := _added_piece(tokenizer, token))), None)
        if added is None:
            found += part_tokens
            continue
        pieces = part.split(added)
        if len(pieces) == 1:  # the token is not spelled as its text: it could not be cut apart
            raise ModelRefused(f"The model's tokenizer makes {added!r:.40} of other text; it cannot be asked safely.")
        for i, piece in reversed(list(enumerate(pieces))):
            head = added[1:] if i else ""
            tail = added[0] if i < len(pieces) - 1 else ""
            parts.appendleft(head + piece + tail)
    return found


def _added_piece(tokenizer: Tokenizer, token: int) -> str | None:
    if not tokenizer.is_added(token):
        return None
    piece = tokenizer.piece(token).decode("utf-8", errors="replace")
    return piece if len(piece) > 1 and not piece.isspace() else None
