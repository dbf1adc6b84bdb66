"""Whether a value is valid under a JSON schema.

Owns which keywords of JSON Schema are understood. Pure. Invariants: a keyword that is not understood is refused with a sentence
(`BadSchema`), never passed over; `$ref` is followed a few steps and never in a circle; a stranger's pattern is never run, but one that
allows one letter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from edge_agent.core.errors import BadData

MOST_STEPS = 12  # of references and choices inside each other
_MOST_LOOKS = 200_000  # at keywords and listed values, for all answers together
_SAYS_NOTHING = {
    *("title", "description", "default", "example", "examples", "deprecated", "readOnly", "writeOnly", "nullable"),
    *("$schema", "$id", "$comment", "$defs", "definitions"),
}
_LETTER_PATTERN = re.compile(r"\^?\(?\[A-([A-Z])\]\)?\$?")


class BadSchema(BadData):
    """A schema that cannot be filled; the message says why."""


class Validator:
    """Checks values against a schema and its parts. `root` is what references refer to."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self.root = root
        self._n_left = _MOST_LOOKS

    def refusal(self, schema: Any, value: Any, steps: int = MOST_STEPS) -> str | None:
        """The keyword that refuses the value; None if it is valid. Raises `BadSchema` for a schema that is not understood."""
        if isinstance(schema, bool):
            return None if schema else "false"
        if not isinstance(schema, dict):
            raise refused("has a property that is not described by an object")
        if not steps:
            raise refused("refers to itself, or too far")
        if "type" in schema and not _has_type(value, schema["type"]):
            return "type"
        for key, limit in schema.items():
            if key == "type" or key in _SAYS_NOTHING or key.startswith("x-"):
                continue
            self._n_left -= len(limit) if isinstance(limit, list) else 1
            if self._n_left < 0:
                raise refused("takes too long to check")
            found = self._refused_by(key, limit, schema, value, steps - 1)
            if found:
                return found
        return None

    def _refused_by(self, key: str, limit: Any, schema: Mapping[str, Any], value: Any, steps: int) -> str | None:
        """The keyword that refuses the value: `key` itself, or one inside it."""
        if key == "$ref":
            return self.refusal(followed(limit, self.root), value, steps)
        if key in ("anyOf", "oneOf", "allOf"):
            if not isinstance(limit, list) or not limit:
                raise refused("has a list of choices that is not a list")
            n_valid = [self.refusal(choice, value, steps) for choice in limit].count(None)
            return None if (n_valid == len(limit) if key == "allOf" else n_valid == 1 if key == "oneOf" else n_valid) else key
        if key == "properties":
            if not isinstance(limit, dict):
                raise refused("has properties that are not an object")
            inside = (self.refusal(limit[name], one, steps) for name, one in _items(value) if name in limit)
            return next((found for found in inside if found), None)
        if key == "additionalProperties":
            known = schema.get("properties", {})
            others = (self.refusal(limit, one, steps) for name, one in _items(value) if isinstance(known, dict) and name not in known)
            return key if any(others) else None
        check = _CHECKS.get(key)
        if check is None:
            raise BadSchema(f"The schema has '{key:.60}', which is not supported; leave it out.")
        try:
            return None if check(limit, value) else key
        except TypeError as error:
            raise BadSchema(f"The schema has '{key:.60}' with the value {limit!r:.40}, which cannot be; correct it.") from error


def followed(reference: Any, root: Mapping[str, Any]) -> Any:
    """What a `$ref` refers to. Raises `BadSchema` if that is not in the schema."""
    found: Any = root
    if reference == "#":
        return root
    if not isinstance(reference, str) or not reference.startswith("#/"):
        raise refused("refers to something outside itself")
    for part in reference[2:].split("/"):
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal in JSON: true is not 1, and 1 is 1.0."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def refused(why: str) -> BadSchema:
    """An error about the whole schema."""
    return BadSchema(f"The schema {why}; send one flat object such as {{answer: string, confidence: number}}.")


def _has_type(value: Any, kinds: Any) -> bool:
    names = kinds if isinstance(kinds, list) else [kinds]
    if not all(isinstance(name, str) and name in _TYPES for name in names):
        raise BadSchema(f"The schema has the type {kinds!r:.40}, which JSON Schema does not know; correct it.")
    return any(_TYPES[name](value) for name in names)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "number": _is_number,
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
    "null": lambda value: value is None,
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
}


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []


def _number(limit: Any) -> float:
    if not _is_number(limit):
        raise TypeError
    found: float = limit
    return found


def _matches(limit: Any, value: Any) -> bool:
    found = _LETTER_PATTERN.fullmatch(limit) if isinstance(limit, str) else None
    if found is None:
        raise BadSchema(f"The schema has the pattern {limit!r:.40}, and only one letter is supported ('^[A-D]$'); leave it out.")
    return not isinstance(value, str) or (len(value) == 1 and "A" <= value <= found[1])


def _listed(limit: Any, value: Any) -> bool:
    if not isinstance(limit, list):
        raise TypeError
    return any(same(one, value) for one in limit)


def _has_all(limit: Any, value: Any) -> bool:
    if not isinstance(limit, list):
        raise TypeError
    return not isinstance(value, dict) or all(name in value for name in limit)


_CHECKS: dict[str, Callable[[Any, Any], bool]] = {
    "enum": _listed,
    "const": same,
    "minimum": lambda limit, value: not _is_number(value) or value >= _number(limit),
    "maximum": lambda limit, value: not _is_number(value) or value <= _number(limit),
    "exclusiveMinimum": lambda limit, value: not _is_number(value) or value > _number(limit),
    "exclusiveMaximum": lambda limit, value: not _is_number(value) or value < _number(limit),
    "minLength": lambda limit, value: not isinstance(value, str) or len(value) >= _number(limit),
    "maxLength": lambda limit, value: not isinstance(value, str) or len(value) <= _number(limit),
    "pattern": _matches,
    "required": _has_all,
    "minProperties": lambda limit, value: not isinstance(value, dict) or len(value) >= _number(limit),
    "maxProperties": lambda limit, value: not isinstance(value, dict) or len(value) <= _number(limit),
}
