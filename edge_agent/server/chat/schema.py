"""The fields of a JSON schema that describes one flat object, as pydantic and the SDKs write it.

Owns what is read out of a schema; `validity.py` says whether a value is valid under it. Pure. Invariant: what is read here only proposes
values, so a limit that is not seen here can never be broken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edge_agent.server.chat.validity import MOST_STEPS, BadSchema, Validator, followed, refused, same

_MOST_FIELDS = 32
_SIMPLE = ("string", "number", "integer", "boolean")


@dataclass(frozen=True)
class SchemaField:
    """One property: its name, its schema without references and null, and whether it must be there and may be null.

    `described` is its schema as it came, and `validator` knows what that refers to.
    """

    name: str
    schema: Mapping[str, Any]
    required: bool = True
    nullable: bool = False
    described: Any = True
    validator: Validator | None = None

    def allows(self, value: Any) -> bool:
        """Whether a value is valid in this field. Raises `BadSchema` for a schema that is not understood."""
        return self.validator is None or _refusal(self.validator, self.name, self.described, value) is None

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
    def const(self) -> Any:
        """The only value that it may have, if there is one."""
        return self.schema.get("const")

    def range(self, highest: float | None) -> tuple[float, float | None]:
        """The lowest and the highest value: 0 and `highest` unless the schema says more; None if there is no highest."""
        low, high = self.schema.get("minimum", 0), self.schema.get("maximum", highest)
        known = [value is None or (isinstance(value, (int, float)) and abs(value) < 1e9) for value in (low, high)]
        return (low, high) if all(known) and low is not None and (high is None or high > low) else (0, None)


def fields_of(schema: Mapping[str, Any]) -> Iterator[SchemaField]:
    """The properties of an object. Raises `BadSchema` for another schema."""
    root = _resolved(schema, schema)
    properties, required = root.get("properties"), root.get("required", [])
    if root.get("type", "object") != "object" or not isinstance(properties, dict) or not properties:
        raise refused("is not one object with properties")
    if len(properties) > _MOST_FIELDS:
        raise refused(f"has {len(properties)} properties, and {_MOST_FIELDS} are allowed")
    validator = Validator(schema)
    for name, described in properties.items():
        must = isinstance(required, list) and name in required
        nullable = _refusal(validator, name, described, None) is None
        yield SchemaField(name, _resolved(described, schema), must, nullable, described, validator)


def _refusal(validator: Validator, name: str, described: Any, value: Any) -> str | None:
    try:
        return validator.refusal(described, value)
    except BadSchema as error:
        raise BadSchema(f"The field '{name:.60}' cannot be filled. {error}") from error


def _resolved(described: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema without references and without null; what stands beside a reference or a choice counts, too."""
    for _ in range(MOST_STEPS):
        if not isinstance(described, dict):
            raise refused("has a property that is not described by an object")
        key = next((key for key in ("$ref", "anyOf", "oneOf", "allOf") if key in described), None)
        if key is None:
            break
        inner = followed(described[key], root) if key == "$ref" else _one_of(described[key])
        beside = {name: limit for name, limit in described.items() if name != key}
        described = {**inner, **beside} if isinstance(inner, dict) else inner
    else:
        raise refused("refers to itself, or too far")
    kinds = described.get("type")
    if isinstance(kinds, list):
        real_kinds = [kind for kind in kinds if kind != "null"]
        described = {**described, "type": real_kinds[0] if len(real_kinds) == 1 else None}
    found: Mapping[str, Any] = described
    return found


def _one_of(choices: Any) -> Any:
    """The one choice that is not null, or the values that all of them list together."""
    if not isinstance(choices, list):
        raise refused("has a list of choices that is not a list")
    real = [choice for choice in choices if not (isinstance(choice, dict) and choice.get("type") == "null")]
    if len(real) == 1:
        return real[0]
    listed = [choice for choice in real if isinstance(choice, dict) and ("const" in choice or "enum" in choice)]
    if len(listed) < len(real) or not real:
        raise refused("has a property of several types, and one is supported (and null beside it)")
    values: list[Any] = []
    for choice in listed:
        for value in choice["enum"] if isinstance(choice.get("enum"), list) else [choice.get("const")]:
            if not any(same(value, known) for known in values):
                values.append(value)
    return {"enum": values}


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return {str: "string", int: "integer", float: "number"}.get(type(value), "other")
