"""The prompt of a question as tokens. User text never becomes a special token.

Owns the splitting of text around added tokens. Knows a tokenizer only as three functions. Invariant: the special tokens of
a prompt are those of its profile's segments, whatever the user wrote.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from edge_agent.core.errors import ModelRefused
from edge_agent.model.shapes import Segment, SegmentKind


class Tokenizer(Protocol):
    """The functions of a tokenizer that a prompt needs. `Llama` has them."""

    def tokenize(self, text: str, parse_special: bool = False) -> list[int]:
        """The tokens of `text`."""

    def piece(self, token: int) -> bytes:
        """The text of one token."""

    def is_added(self, token: int) -> bool:
        """Whether this is a control token or a user-defined token."""

    def bos(self) -> list[int]:
        """The token that the vocabulary puts before every text; none if it puts none."""


def tokens(tokenizer: Tokenizer, segments: Sequence[Segment]) -> list[int]:
    """The tokens of a whole prompt. Raises `ModelRefused` if the vocabulary lacks a special token."""
    return [token for segment in segments for token in _segment_tokens(tokenizer, segment)]


def prefix(segments: Sequence[Segment]) -> Sequence[Segment]:
    """The start of the prompt, which is the same for every question."""
    return segments[: next(i for i, segment in enumerate(segments) if segment.kind is SegmentKind.PERSON)]


def puts_a_space(tokenizer: Tokenizer) -> bool:
    """Whether the vocabulary puts a space before the first word of every text, as some of SentencePiece do."""
    return tokenizer.piece(tokenizer.tokenize("a")[0]).startswith(b" ")


def continued(tokenizer: Tokenizer, text: str, puts_space: bool | None = None) -> list[int]:
    """The tokens of user text that follows other text, such as an answer after a prompt, so that no space is put before it.

    `puts_space` is what `puts_a_space` returns, for who asks often.
    """
    found = plain_tokens(tokenizer, text)
    if not (puts_a_space(tokenizer) if puts_space is None else puts_space):
        return found
    line, after = tokenizer.tokenize("\n"), plain_tokens(tokenizer, "\n" + text)
    return after[len(line) :] if after[: len(line)] == line else found


def _segment_tokens(tokenizer: Tokenizer, segment: Segment) -> list[int]:
    if segment.kind is SegmentKind.BOS:
        return tokenizer.bos()
    if segment.kind is SegmentKind.SPECIAL:
        special = tokenizer.tokenize(segment.text, parse_special=True)
        if len(special) != 1:
            raise ModelRefused(
                f"The vocabulary of the model has no token '{segment.text}', which its prompt needs; use another model, or for a plain "
                "one name another --chat-shape."
            )
        return special
    if segment.kind is SegmentKind.MODEL:
        return tokenizer.tokenize(segment.text)
    return plain_tokens(tokenizer, segment.text)


def plain_tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of user text, without any added token.

    With `parse_special=False`, llama.cpp does not make control tokens, but it still makes user-defined tokens such as
    `</think>`. There the text is split after the first character of the token. Tokens of white space only (Gemma has some)
    are ordinary text and stay.
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
        if len(pieces) == 1:  # the token is not spelled like its text, so it cannot be split
            raise ModelRefused(f"The tokenizer of the model makes {added!r:.40} from other text, which is not safe; use another model.")
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
