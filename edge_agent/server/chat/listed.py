"""A field of a schema that lists its values: as the options of a question, and as the answer in it.

Owns how options and listed values belong together; `wanted.py` says which are asked. Pure. Invariant: a list in a text stands for the
listed values only if it has one option for each of them.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Sequence
from typing import Any

from edge_agent.core.question import LETTERS
from edge_agent.server.chat.field_names import Purpose, purpose
from edge_agent.server.chat.schema import SchemaField
from edge_agent.server.chat.validity import BadSchema

_YES_NO, _TRUE_FALSE = ("yes", "no"), ("true", "false")


def listing(fields: Sequence[SchemaField]) -> SchemaField | None:
    """The one field that lists two values or more; without one, the one that is true or false."""
    lists = [one for one in fields if one.enum is not None and len(one.enum) > 1]
    switches = [one for one in fields if one.enum is None and one.const is None and one.type == "boolean"]
    return lists[0] if len(lists) == 1 else switches[0] if not lists and len(switches) == 1 else None


def options(one: SchemaField) -> tuple[str, ...]:
    """The listed values as the options of a question, in their order. Raises `BadSchema` if they cannot be."""
    allowed = _allowed(one)
    texts = [_text(value) for value in allowed]
    name = f"The field '{one.name:.60}' of the schema"
    if len(texts) > len(LETTERS):
        raise BadSchema(f"{name} lists {len(texts)} values, and a question has 2 to {len(LETTERS)} options; ask /v1/systemone for more.")
    found = [text for text in texts if text and "\n" not in text and "\r" not in text]
    if len(found) < len(texts):
        raise BadSchema(f"{name} lists a value that cannot be an option; list texts of one line, numbers, true and false.")
    if len({unicodedata.normalize("NFC", text) for text in found}) < len(found):
        raise BadSchema(f"{name} lists two values that look the same; make every value different.")
    return tuple(found)


def values(one: SchemaField, texts: list[str]) -> list[Any] | None:
    """The listed value for each option, by its text, its letter or as `B. 19`; None unless each option has one.

    No value may be left over, because then the list is not that of these options. Only a field that is called a letter may allow more
    letters than there are options.
    """
    allowed, letters = _allowed(one), list(LETTERS[: len(texts)])
    if len(allowed) > len(LETTERS):
        return None
    if all(isinstance(value, bool) for value in allowed):
        found = booleans(texts)
        return found if found and len(allowed) == 2 else None
    both = [f"{letter}. {text}" for letter, text in zip(letters, texts, strict=True)]
    by_name = [found for each in (texts, letters, both) if (found := _matched(each, allowed))]
    whole = [found for found in by_name if len(found) == len(allowed) or _names_letters(one, found)]
    return whole[0] if whole and all(found == whole[0] for found in whole) else None


def are_letters(one: SchemaField) -> bool:
    """Whether the listed values are A, B, C, ... from the first letter on."""
    allowed = _allowed(one)
    return [str(value).upper() for value in allowed] == list(LETTERS[: len(allowed)]) and all(isinstance(value, str) for value in allowed)


def booleans(texts: list[str]) -> list[Any] | None:
    """The options as true and false; None unless they are yes and no."""
    said = [text.strip().casefold() for text in texts]
    return [text in (_YES_NO[0], _TRUE_FALSE[0]) for text in said] if tuple(sorted(said, reverse=True)) in (_YES_NO, _TRUE_FALSE) else None


def _allowed(one: SchemaField) -> list[Any]:
    return one.enum if one.enum is not None else [True, False]


def _names_letters(one: SchemaField, found: list[Any]) -> bool:
    return (
        purpose(one.name) is Purpose.LETTER and are_letters(one) and [str(value).upper() for value in found] == list(LETTERS[: len(found)])
    )


def _text(value: Any) -> str:
    """A listed value as the model reads it; nothing if it cannot be read."""
    if isinstance(value, bool):
        return "Yes" if value else "No"
    if isinstance(value, (int, float)):
        return json.dumps(value) if isinstance(value, int) or math.isfinite(value) else ""
    return value.strip() if isinstance(value, str) else ""


def _matched(texts: list[str], allowed: list[Any]) -> list[Any] | None:
    """The allowed value for each text: the same, or the same without regard to case if only one is."""
    found = []
    for text in texts:
        same = [value for value in allowed if _text(value) == text]
        same = same or [value for value in allowed if _text(value).casefold() == text.casefold()]
        if len(same) != 1:
            return None
        found.append(same[0])
    return found if len(set(map(repr, found))) == len(found) else None
