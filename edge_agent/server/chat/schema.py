"""The fields of a JSON schema that describes one flat object, as pydantic and the SDKs write it.

Owns which parts of JSON Schema are understood. Pure. Invariants: `$ref` is followed a few steps and never in a circle; what is not
understood is refused with a sentence (`BadSchema`), never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edge_agent.core.errors import BadData

_MOST_FIELDS = 32
_MOST_STEPS = 8  # of references
_SIMPLE = ("string", "number", "integer", "boolean")
_KEPT_BY_NOBODY = ("format", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "not", "if")


class BadSchema(BadData):
    """A schema that cannot be filled; the message says why."""


@dataclass(frozen=True)
class SchemaField:
    """One property: its name, its schema without references and null, and whether it must be there and may be null."""

    name: str
    schema: Mapping[str, Any]
    required: bool = True
    nullable: bool = False

    @property
    def type(self) -> str | None:
        """The one type of JSON that it has; None if that is not clear."""
        found = self.schema.get("type")
        if found is None and self.enum:
            kinds = {_kind(value) for value in self.enum}
            found = kinds.pop() if len(kinds) == 1 else None
        return found if isinstance(found, str) and found in _SIMPLE else None

    @property
    def enum(self) -> list[Any] | None:
        """The allowed values, if they are listed."""
        found = self.schema.get("enum")
        return [value for value in found if value is not None] if isinstance(found, list) else None

    @property
    def texts(self) -> tuple[str, ...] | None:
        """The allowed values if they are listed and are texts of one line."""
        found = self.enum
        if not found or not all(isinstance(value, str) and value.strip() and "\n" not in value for value in found):
            return None
        return tuple(found)

    @property
    def const(self) -> Any:
        """The only value that it may have, if there is one."""
        return self.schema.get("const")

    def range(self, highest: float | None) -> tuple[float, float | None]:
        """The lowest and the highest value: 0 and `highest` unless the schema says more; None if there is no highest."""
        low, high = self.schema.get("minimum", 0), self.schema.get("maximum", highest)
        known = [value is None or (isinstance(value, (int, float)) and abs(value) < 1e9) for value in (low, high)]
        return (low, high) if all(known) and low is not None and (high is None or high > low) else (0, None)

    def allows(self, text: str) -> bool:
        """Whether the limits of a text allow this one."""
        shortest, longest, pattern = (self.schema.get(key) for key in ("minLength", "maxLength", "pattern"))
        return (
            not (isinstance(shortest, int) and len(text) < shortest)
            and not (isinstance(longest, int) and len(text) > longest)
            and (pattern is None or re.search(pattern, text) is not None)
        )


def fields_of(schema: Mapping[str, Any]) -> Iterator[SchemaField]:
    """The properties of an object. Raises `BadSchema` for another schema."""
    root, _ = _resolved(schema, schema)
    properties, required = root.get("properties"), root.get("required", [])
    if root.get("type", "object") != "object" or not isinstance(properties, dict) or not properties:
        raise _refused("is not one object with properties")
    if len(properties) > _MOST_FIELDS:
        raise _refused(f"has {len(properties)} properties, and {_MOST_FIELDS} are allowed")
    for name, described in properties.items():
        one, nullable = _resolved(described, schema)
        limits = [limit for limit in _KEPT_BY_NOBODY if limit in one]
        if "pattern" in one and not _is_letter_pattern(one["pattern"]):
            limits.append("pattern")
        if limits:
            raise BadSchema(f"The schema has '{limits[0]}' in the field '{name:.60}', which is not supported; leave it out.")
        yield SchemaField(name, one, isinstance(required, list) and name in required, nullable)


def _resolved(described: Any, root: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """A schema without references and without null, and whether it allows null."""
    nullable = False
    for _ in range(_MOST_STEPS):
        if not isinstance(described, dict):
            raise _refused("has a property that is not described by an object")
        if "$ref" in described:
            described = _followed(described["$ref"], root)
            continue
        choices = next((described[key] for key in ("anyOf", "oneOf", "allOf") if key in described), None)
        if choices is None:
            break
        if not isinstance(choices, list):
            raise _refused("has a list of choices that is not a list")
        real = [choice for choice in choices if not (isinstance(choice, dict) and choice.get("type") == "null")]
        nullable = nullable or len(real) < len(choices)
        if len(real) != 1:
            raise _refused("has a property of several types, and one is supported (and null beside it)")
        described = real[0]
    else:
        raise _refused("refers to itself, or too far")
    kinds = described.get("type")
    if isinstance(kinds, list):
        nullable = nullable or "null" in kinds
        real_kinds = [kind for kind in kinds if kind != "null"]
        described = {**described, "type": real_kinds[0] if len(real_kinds) == 1 else None}
    return described, nullable


def _followed(reference: Any, root: Mapping[str, Any]) -> Any:
    found: Any = root
    if not isinstance(reference, str) or not reference.startswith("#/"):
        raise _refused("refers to something outside itself")
    for part in reference[2:].split("/"):
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found


def _is_letter_pattern(pattern: Any) -> bool:
    return isinstance(pattern, str) and re.fullmatch(r"\^?\(?\[A-[A-Z]\]\)?\$?", pattern) is not None


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return {str: "string", int: "integer", float: "number"}.get(type(value), "other")


def _refused(why: str) -> BadSchema:
    return BadSchema(f"The schema {why}; send one flat object such as {{answer: string, confidence: number}}.")
