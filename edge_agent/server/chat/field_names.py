"""What a field of a schema is for, by its name: `final_answer`, `selectedOption`, `answer_letter`, `confidence_score`.

Owns the words. Pure. Invariant: a name with any other word in it, such as `answer_explanation`, is for nothing that we have.
"""

from __future__ import annotations

import re
from enum import StrEnum

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_FILLERS = {"final", "correct", "selected", "chosen", "predicted", "best", "right", "my", "your", "the", "model", "in", "of", "is"}
_ANSWER = {
    *("answer", "choice", "option", "selection", "prediction", "label", "category", "class", "classification"),
    *("result", "response", "output", "value", "decision"),
}
_SURE = {"confidence", "certainty", "probability", "prob"}
_PERCENT = {"percent", "percentage", "pct"}


class Purpose(StrEnum):
    """What a field gets."""

    ANSWER = "answer"  # the letter, unless its type or its enum says more
    LETTER = "letter"
    TEXT = "text"
    INDEX = "index"
    CONFIDENCE = "confidence"
    PERCENT = "percent"  # a confidence from 0 to 100


def purpose(name: str) -> Purpose | None:
    """What a field with this name gets; None if that is unknown."""
    words = {word.lower() for word in _WORD.findall(name[:80])} - _FILLERS
    if words & _SURE and words <= _SURE | _ANSWER | _PERCENT | {"score", "level"}:
        return Purpose.PERCENT if words & _PERCENT else Purpose.CONFIDENCE
    if words == {"score"}:
        return Purpose.CONFIDENCE
    special = words - _ANSWER
    if not special:
        return Purpose.ANSWER if words else None
    if len(special) > 1:
        return None
    found = {"letter": Purpose.LETTER, "key": Purpose.LETTER, "text": Purpose.TEXT, "index": Purpose.INDEX, "idx": Purpose.INDEX}
    return found.get(special.pop())
