"""Writes structured values (JSON) as plain text for a model to read: over several lines, or on one.

Owns the two forms. Knows nothing of questions or tokens; pure. Invariants: the same value always gives the same text, and the text on
one line has no line break.

Over several lines it looks like YAML: `key: value`, one a line, lists with `- `, two spaces for each level. FogGen models were trained
on questions in prose, so what they read should look like prose as far as it can: no quotes, no brackets, and nothing escaped in a text
that a person wrote. A ticket with two levels and a history took 166 tokens of Qwen's vocabulary this way, 178 as Python writes JSON,
143 as JSON without any spaces; a state is read once for all its questions, so that difference was not worth the escapes. What is lost
is the type of a scalar: the number 1 and the text "1" look the same, and a reader does not need to know.
"""

from __future__ import annotations

import json
import math

from edge_agent.core.errors import BadQuestion

EMPTY = '""'  # how an empty text is shown
MAX_DEPTH = 32  # levels of nesting; a person could not read more, either


def written(value: object, what: str) -> str:
    """The value over as many lines as it needs; "" for None, an empty text, object or list. Raises `BadQuestion`, which names `what`."""
    if isinstance(value, str):
        return value.strip()
    return "" if _is_empty(value) else "\n".join(_lines(value, what, 0))


def on_one_line(value: object, what: str) -> str:
    """The value on one line: `owns: invoices, refunds; hours: (from: 9; to: 17)`; "" if it is empty. Raises `BadQuestion`."""
    text = value if isinstance(value, str) else "" if _is_empty(value) else _inline(value, what, 0)
    return " ".join(text.split())


def _lines(value: object, what: str, depth: int) -> list[str]:
    _check_depth(depth, what)
    if isinstance(value, dict) and value:
        return [line for key, item in value.items() for line in _labelled(f"{_key(key, what)}:", item, what, depth)]
    if isinstance(value, list) and value:
        return [line for item in value for line in _dashed(item, what, depth)]
    return _text_lines(value, what)


def _labelled(label: str, item: object, what: str, depth: int) -> list[str]:
    """An item of an object: on the line of its key if it is short, else indented below."""
    lines = _lines(item, what, depth + 1)
    if len(lines) == 1 and not _nests(item):
        return [f"{label} {lines[0]}"]
    return [label, *(f"  {line}" for line in lines)]


def _dashed(item: object, what: str, depth: int) -> list[str]:
    first, *rest = _lines(item, what, depth + 1)
    return [f"- {first}", *(f"  {line}" for line in rest)]


def _inline(value: object, what: str, depth: int) -> str:
    _check_depth(depth, what)
    if isinstance(value, dict) and value:
        text = "; ".join(f"{_key(key, what)}: {_inline(item, what, depth + 1)}" for key, item in value.items())
    elif isinstance(value, list) and value:
        text = ", ".join(_inline(item, what, depth + 1) for item in value)
    else:
        return _scalar(value, what)
    return f"({text})" if depth and (isinstance(value, dict) or any(map(_nests, value))) else text


def _nests(value: object) -> bool:
    return isinstance(value, (dict, list)) and bool(value)


def _is_empty(value: object) -> bool:
    return value is None or value in ({}, [])


def _text_lines(value: object, what: str) -> list[str]:
    return _scalar(value, what).replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _scalar(value: object, what: str) -> str:
    """A text as it is, and anything else as JSON writes it."""
    if isinstance(value, str):
        return value or EMPTY
    if _is_empty(value) or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    raise BadQuestion(f"The {what} holds {value!r:.80}, which JSON cannot hold; give texts, numbers, lists and objects.")


def _key(key: object, what: str) -> str:
    if not isinstance(key, str):
        raise BadQuestion(f"The {what} holds an object with the key {key!r:.80}; a key must be a text.")
    return " ".join(key.split()) or EMPTY


def _check_depth(depth: int, what: str) -> None:
    if depth > MAX_DEPTH:
        raise BadQuestion(f"The {what} is nested deeper than {MAX_DEPTH} levels; make it flatter.")
