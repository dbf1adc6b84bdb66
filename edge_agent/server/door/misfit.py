"""A request that does not fit its model, in words: which field it is, and what it must be.

Owns the words for every kind of error that pydantic can find in our requests. Pure. Invariants: the path has only names that the client
sent or has to send; of a value only its kind is said: it may be long, or private.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Path = tuple[str | int, ...]

_WORDS = {
    "missing": "is missing; send it",
    "extra_forbidden": "is not known here; correct its name, or leave it out",
    "union_tag_not_found": "has no type; send one",
    "union_tag_invalid": "has a type that is not known here; send {expected_tags}",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be {ge} or more",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be {le} or less",
    "less_than": "must be less than {lt}",
    "finite_number": "must be a finite number",
    "too_short": "has too few entries; send at least {min_length}",
    "too_long": "has too many entries; send at most {max_length}",
    "string_too_short": "is too short; send at least {min_length} characters",
    "string_too_long": "is too long; send at most {max_length} characters",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "is too large",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
}
_KINDS = {  # what a value must be; several are possible where a field takes more than one kind
    "string_type": "a text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
_HAS_NO_VALUE = ("missing",)


class Misfit(NamedTuple):
    """A field, by its path from the top of the request, and a sentence about it; `type` is pydantic's name for the error."""

    path: Path
    sentence: str
    type: str

    @property
    def param(self) -> str | None:
        """The path as one text; None for the whole body."""
        return ".".join(map(str, self.path)) or None


def misfits(errors: Sequence[Mapping[str, Any]], body: Any) -> list[Misfit]:
    """One for each field that does not fit. Of a field that may be several things, the error that lies deepest says most."""
    found: dict[Path, list[Mapping[str, Any]]] = {}
    for error in errors:
        found.setdefault(_path(error, body), []).append(error)
    return [
        Misfit(path, f"{_name(path)} {_words(own)}.", str(own[0]["type"]))
        for path, own in found.items()
        if not any(other != path and other[: len(path)] == path for other in found)
    ]


def _name(path: Path) -> str:
    return f"The field '{'.'.join(map(str, path)):.100}'" if path else "The body"


def _words(errors: Sequence[Mapping[str, Any]]) -> str:
    kinds = list(dict.fromkeys(_KINDS[error["type"]] for error in errors if error["type"] in _KINDS))
    if kinds:
        return f"must be {' or '.join(kinds)}, not {_kind(errors[0].get('input'))}"
    first = errors[0]
    words = _WORDS.get(first["type"])
    context = {name: f"{value:g}" if isinstance(value, float) else value for name, value in (first.get("ctx") or {}).items()}
    return words.format_map(context) if words else f"{first['msg']:.300}"  # our own checks say it in these words already


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    return "a text" if isinstance(value, str) else "an object" if isinstance(value, dict) else "a list"


def _path(error: Mapping[str, Any], body: Any) -> Path:
    """Where an error is. Between the names of the client, pydantic has the names of its own types; these are left out."""
    place, *parts = error["loc"] or ("body",)
    if place != "body":
        return tuple(parts)
    found = _real(body, tuple(parts), error["type"] in _HAS_NO_VALUE)
    return tuple(parts) if found is None else found


def _real(value: Any, parts: Path, is_missing: bool) -> Path | None:
    """The parts that lead from one value to the next; None if the last one cannot be reached."""
    if not parts:
        return None if is_missing else ()
    part, rest = parts[0], parts[1:]
    if is_missing and not rest and isinstance(value, dict) and part not in value:
        return (part,)
    is_here = part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int) and part < len(value)
    if is_here and (found := _real(value[part], rest, is_missing)) is not None:
        return (part, *found)
    return _real(value, rest, is_missing)
