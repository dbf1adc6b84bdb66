"""A question with its gold answer, and the names and numbers beside it.

Owns the record and the checks of its small fields. Reads no file. Invariant: every `Labelled` can be asked and graded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge_agent.core.errors import BadData
from edge_agent.core.question import Question

CHOICE, TEXT, SQUAD, NUMBER, TRUTHFUL = "choice", "text", "squad", "number", "truthful"  # the grading rules
NO_DOMAIN = "-"
MAX_NAME_CHARS = 100
MAX_DIFFICULTY = 1000


@dataclass(frozen=True, slots=True)
class Labelled:
    """A question with its gold answer: `answer` is the letter of an option, "" for an open question.

    An open question accepts the texts `golds`, by its `rule` (see `grading`); `wrong` are known wrong answers, which only TruthfulQA
    has. Without a domain in the file, `domain` is "-"; without a difficulty, `difficulty` is None. `id` is the file's own id or
    the number of the line or entry. `folded` says that an option had a line break, which is a space now.
    """

    question: Question
    answer: str
    domain: str
    difficulty: int | None
    id: str
    folded: bool = False
    golds: tuple[str, ...] = ()
    rule: str = CHOICE
    wrong: tuple[str, ...] = ()


def checked_difficulty(value: Any) -> int | None:
    """A whole number, or None if there is none. A CSV file has it as a text. Raises `BadData`."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 5:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_DIFFICULTY:
        raise BadData(f"the difficulty {value!r:.80} is not a whole number from 0 to {MAX_DIFFICULTY}; correct it or leave it out.")
    return value


def checked_name(field: str, value: Any, default: str) -> str:
    """A short text on one line, because it becomes a row of a table. Only an id may be a number. Raises `BadData`."""
    if value is None:
        return default
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) and field == "id" else value
    if not isinstance(text, str) or not text.isprintable() or not 0 < len(text) <= MAX_NAME_CHARS:
        raise BadData(f"the {field} {value!r:.80} is not one line of 1 to {MAX_NAME_CHARS} characters; correct it or leave it out.")
    return text
