"""An answer in JSON, as `response_format` asks for it: which field of a schema gets what.

Owns what each field gets. Invariants: what was promised can be filled, for every answer that may come, before
anything is decided; a field that only a writer of prose could fill is refused by name. A schema's checks beyond types, enums and ranges
are refused, too, because nothing here would keep them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edge_agent.core.question import LETTERS, Question
from edge_agent.core.records import Decision
from edge_agent.server import decided
from edge_agent.server.chat.field_names import Purpose, purpose
from edge_agent.server.chat.schema import BadSchema, SchemaField, fields_of
from edge_agent.server.faults import Refusal

_SURE = (Purpose.CONFIDENCE, Purpose.PERCENT)

Fill = Callable[[Question, Decision], Any]


@dataclass(frozen=True)
class Structure:
    """The wanted form. `fields` is None for any object (`json_object`); `options` are those that the schema's enum names."""

    where: str
    fields: tuple[SchemaField, ...] | None
    options: tuple[str, ...] = ()

    def promise(self, question: Question, levels: tuple[str, ...], has_confidence: bool) -> Callable[[Decision], str]:
        """What writes the answer to this question. Raises `Refusal` if some answer could not be written.

        `has_confidence` is False where the cloud may answer without the device.
        """
        try:
            fills = [(one, _fill(one, question, levels, has_confidence)) for one in self._fields(question)]
            if not any(fill and one.const is None and purpose(one.name) not in _SURE for one, fill in fills):
                raise BadSchema("The schema has no field for the answer; name one 'answer'.")
        except BadSchema as error:
            raise Refusal(400, "unsupported_schema", str(error), self.where) from error

        def write(decision: Decision) -> str:
            found = {}
            for one, fill in fills:
                value = fill(question, decision) if fill else None
                if value is not None or one.required:
                    found[one.name] = value
            return json.dumps(found, ensure_ascii=False)

        return write

    def _fields(self, question: Question) -> tuple[SchemaField, ...]:
        if self.fields is not None:
            return self.fields
        names = ("answer", "answer_text") if question.options else ("answer",)
        return (*(SchemaField(name, {"type": "string"}) for name in names), SchemaField("confidence", {"type": "number"}, nullable=True))


def of(response_format: Mapping[str, Any] | None, where: str) -> Structure | None:
    """The form that a `response_format` (or a response's `text.format`) asks for; None for plain text. Raises `Refusal`."""
    kind = (response_format or {"type": "text"}).get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return Structure(where, None)
    if kind != "json_schema" or response_format is None:
        raise Refusal(400, "invalid_request", f"The type {kind!r:.40} is unknown; use text, json_object or json_schema.", f"{where}.type")
    inner = response_format.get("json_schema", response_format)
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if not isinstance(schema, dict):
        raise Refusal(400, "invalid_request", "The json_schema has no 'schema' object; send one with properties.", where)
    try:
        fields = tuple(fields_of(schema))
    except BadSchema as error:
        raise Refusal(400, "unsupported_schema", str(error), where) from error
    enums = [one.texts for one in fields if one.texts is not None]
    return Structure(where, fields, enums[0] if len(enums) == 1 and 2 <= len(enums[0]) <= len(LETTERS) else ())


def _fill(one: SchemaField, question: Question, levels: tuple[str, ...], has_confidence: bool) -> Fill | None:
    """What fills a field; None for one that stays empty. Raises `BadSchema` if it may not."""
    meant = purpose(one.name)
    found: Fill | None = None
    if meant in _SURE:
        found = _confidence(one, meant is Purpose.PERCENT, levels, has_confidence)
    elif one.const is not None:
        value = one.const
        found = lambda question, decision: value  # noqa: E731
    elif one.enum is not None or meant is not None:
        found = _answer(one, meant, question)
    if found is None and one.required and not one.nullable:
        raise _refused(
            f"needs the field '{one.name:.60}', which this model cannot fill; it gives an answer and a confidence. "
            "Leave the field out, or let it be null"
        )
    return found


def _confidence(one: SchemaField, is_percent: bool, levels: tuple[str, ...], has_confidence: bool) -> Fill | None:
    low, high = one.range(100 if is_percent else None if one.type == "integer" else 1)
    if one.type not in ("number", "integer") or high is None:
        if one.required and not one.nullable:
            raise _refused(f"wants '{one.name:.60}' in a form that a confidence does not have; make it a number from 0 to 1")
        return None
    most = high

    def scaled(value: float) -> float | int:
        found = low + value * (most - low)
        return round(found) if one.type == "integer" else round(found, 6)

    if one.enum is not None and any(scaled(float(level)) not in one.enum for level in levels):
        raise _refused(f"allows '{one.name:.60}' values that this model does not say; its levels are {', '.join(levels)}")
    must = one.required and not one.nullable
    if must and not has_confidence:
        raise _refused(f"needs '{one.name:.60}', and a cloud says none; let it be null, or use edge-auto or edge-local")

    def fill(question: Question, decision: Decision) -> float | int | None:
        value = decided.confidence(decision)
        if value is None and must:
            value = decision.confidence  # the device's own, from before the cloud answered
        return None if value is None else scaled(value)

    return fill


def _answer(one: SchemaField, meant: Purpose | None, question: Question) -> Fill | None:
    if not question.options:
        return (lambda question, decision: decision.answer) if one.type == "string" and one.enum is None else None
    values = _values(one, meant, question)
    if values is None:
        if one.required and not one.nullable:
            raise _refused(f"has the field '{one.name:.60}', whose values do not fit the options of the question")
        return None
    by_letter = dict(zip(question.letters, values, strict=True))
    return lambda question, decision: by_letter[decision.answer]


def _values(one: SchemaField, meant: Purpose | None, question: Question) -> list[Any] | None:
    """The value of each option in this field, in order; None if an option has none."""
    letters, texts = list(question.letters), list(question.options)
    if one.enum is not None:
        both = [f"{letter}. {text}" for letter, text in zip(letters, texts, strict=True)]
        return next((found for each in (texts, letters, both) if (found := _matched(each, one.enum))), None)
    if one.type in ("integer", "number"):
        if meant is Purpose.INDEX and one.type == "integer":
            return list(range(len(letters)))
        return _numbers(texts, one.type)
    if one.type == "boolean":
        said = [text.strip().casefold() for text in texts]
        return [text in ("yes", "true") for text in said] if sorted(said) in (["no", "yes"], ["false", "true"]) else None
    if one.type != "string":
        return None
    wanted = texts if meant is Purpose.TEXT else letters
    return wanted if all(map(one.allows, wanted)) else None


def _matched(texts: list[str], allowed: list[Any]) -> list[Any] | None:
    """The allowed value for each text: the same, or the same without regard to case if only one is."""
    found = []
    for text in texts:
        same = [value for value in allowed if value == text or (not isinstance(value, (str, bool)) and str(value) == text)]
        same = same or [value for value in allowed if isinstance(value, str) and value.casefold() == text.casefold()]
        if len(same) != 1:
            return None
        found.append(same[0])
    return found if len(set(map(repr, found))) == len(found) else None


def _numbers(texts: list[str], kind: str) -> list[Any] | None:
    try:
        return [int(text) for text in texts] if kind == "integer" else [float(text) for text in texts]
    except ValueError:
        return None


def _refused(why: str) -> BadSchema:
    return BadSchema(f"The schema {why}.")
