"""An answer in JSON, as `response_format` asks for it: which field of a schema gets what.

Owns what each field gets; `listed.py` owns the values of a field that lists them. Invariants: every answer that may come is valid under
the whole schema, and that is checked before anything is decided; a field that only a writer of prose could fill is refused by name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edge_agent.core.question import Question
from edge_agent.core.records import Decision
from edge_agent.server import decided
from edge_agent.server.chat import listed
from edge_agent.server.chat.field_names import Purpose, purpose
from edge_agent.server.chat.schema import SchemaField, fields_of
from edge_agent.server.chat.validity import BadSchema, Validator
from edge_agent.server.faults import Refusal

_SURE = (Purpose.CONFIDENCE, Purpose.PERCENT)
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})")  # as JSON writes them, and every language reads them
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?(?:[eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True)
class _Said:
    """What an answer says: the letter (or the words), how sure whoever answered was, and how sure the device was."""

    answer: str
    sure: float | None
    device: float | None


Fill = Callable[[_Said], Any]


@dataclass(frozen=True)
class Structure:
    """The wanted form. `fields` is None for any object (`json_object`). `listing` is the one field that lists the options, if any."""

    where: str
    fields: tuple[SchemaField, ...] | None
    schema: Mapping[str, Any]
    listing: SchemaField | None = None

    @property
    def has_free_answer(self) -> bool:
        """Whether some field takes an answer and does not say which there are."""
        return any(one.enum is None and one.const is None and purpose(one.name) not in (None, *_SURE) for one in self.fields or ())

    def promise(self, question: Question, levels: tuple[str, ...], has_confidence: bool) -> Callable[[Decision], str]:
        """What writes the answer to this question. Raises `Refusal` if some answer could not be written.

        `has_confidence` is False where the cloud may answer without the device.
        """
        validator = Validator(self.schema)
        try:
            fills = [(one, _fill(one, question, levels, has_confidence)) for one in self._fields(question)]
            if not any(fill and one.const is None and purpose(one.name) not in _SURE for one, fill in fills):
                raise BadSchema("The schema has no field for the answer; name one 'answer'.")
            for said in _possible(question, levels):
                if keyword := validator.refusal(self.schema, _filled(fills, said)):
                    raise _refused(f"has '{keyword}', which the answer {said.answer:.20} cannot keep; leave it out")
        except BadSchema as error:
            raise Refusal(400, "unsupported_schema", str(error), self.where) from error

        def write(decision: Decision) -> str:
            said = _Said(decision.answer, decided.confidence(decision), decision.confidence)
            found = _filled(fills, said)
            if Validator(self.schema).refusal(self.schema, found):  # a cloud may say any probability; the device's levels were checked
                found = _filled(fills, _Said(said.answer, None, said.device))
            return json.dumps(found, ensure_ascii=False, allow_nan=False)

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
    if kind not in ("json_object", "json_schema") or response_format is None:
        raise Refusal(400, "invalid_request", f"The type {kind!r:.40} is unknown; use text, json_object or json_schema.", f"{where}.type")
    inner = response_format.get("json_schema", response_format)
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if kind == "json_object" and schema is None:
        return Structure(where, None, {})
    if not isinstance(schema, dict):
        raise Refusal(400, "invalid_request", "The json_schema has no 'schema' object; send one with properties.", where)
    try:
        fields = tuple(fields_of(schema))
    except BadSchema as error:
        raise Refusal(400, "unsupported_schema", str(error), where) from error
    return Structure(where, fields, schema, listed.listing([one for one in fields if purpose(one.name) not in _SURE]))


def _possible(question: Question, levels: tuple[str, ...]) -> Iterator[_Said]:
    """Every answer that may come: each letter with each level, and of a cloud that does not say how sure it is."""
    for answer in question.letters or ("some words",):
        for level in map(float, levels):
            yield _Said(answer, level, level)
            yield _Said(answer, None, level)


def _filled(fills: list[tuple[SchemaField, Fill | None]], said: _Said) -> dict[str, Any]:
    found = {one.name: fill(said) if fill else None for one, fill in fills}
    return {one.name: found[one.name] for one, _ in fills if found[one.name] is not None or one.required}


def _fill(one: SchemaField, question: Question, levels: tuple[str, ...], has_confidence: bool) -> Fill | None:
    """What fills a field; None for one that stays empty. Raises `BadSchema` if it may not."""
    meant = purpose(one.name)
    found: Fill | None = None
    if meant in _SURE:
        found = _confidence(one, meant is Purpose.PERCENT, levels, has_confidence)
    elif one.const is not None:
        found = _always(one.const)
    elif one.enum is not None or meant is not None or one.type == "boolean":
        found = _answer(one, meant, question)
    if found is None and one.required and not one.nullable:
        raise _refused(
            f"needs the field '{one.name:.60}', which this model cannot fill; it gives an answer and a confidence. "
            "Leave the field out, or let it be null"
        )
    return found


def _always(value: Any) -> Fill:
    return lambda said: value


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

    if not all(one.allows(scaled(float(level))) for level in levels):
        raise _refused(f"does not allow '{one.name:.60}' some of the levels that this model says, {', '.join(levels)}")
    must = one.required and not one.nullable
    if must and not has_confidence:
        who = "a cloud may say none" if levels else "a plain model says none"
        raise _refused(f"needs '{one.name:.60}', and {who}; let it be null, or use edge-auto or edge-local")

    def fill(said: _Said) -> float | int | None:
        value = said.device if said.sure is None and must else said.sure  # the device's own, from before the cloud answered
        return None if value is None else scaled(value)

    return fill


def _answer(one: SchemaField, meant: Purpose | None, question: Question) -> Fill | None:
    if not question.options:
        is_free = one.type == "string" and not {"enum", "minLength", "maxLength", "pattern"} & one.schema.keys()
        return (lambda said: said.answer) if is_free else None
    values = _values(one, meant, question)
    if values is None or not all(one.allows(value) for value in values):
        if one.required and not one.nullable:
            raise _refused(f"has the field '{one.name:.60}', whose values do not fit the options of the question")
        return None
    by_letter = dict(zip(question.letters, values, strict=True))
    return lambda said: by_letter[said.answer]


def _values(one: SchemaField, meant: Purpose | None, question: Question) -> list[Any] | None:
    """The value of each option in this field, in order; None if an option has none."""
    letters, texts = list(question.letters), list(question.options)
    if meant is Purpose.INDEX and one.type == "integer":
        first = 1 if _counts_from_one(one) else 0
        return list(range(first, first + len(letters)))
    if one.enum is not None:
        return listed.values(one, texts)
    if one.type in ("integer", "number"):
        return _numbers(texts, one.type)
    if one.type == "boolean":
        return listed.booleans(texts)
    if one.type != "string":
        return None
    return texts if meant is Purpose.TEXT else letters


def _counts_from_one(one: SchemaField) -> bool:
    lowest = [one.schema.get("minimum"), *([min(one.enum)] if one.enum and all(type(value) is int for value in one.enum) else [])]
    return 1 in lowest or one.schema.get("exclusiveMinimum") == 0


def _numbers(texts: list[str], kind: str) -> list[Any] | None:
    """The options as numbers that JSON can hold; None unless all are, and are different."""
    form = _INTEGER if kind == "integer" else _NUMBER
    if not all(form.fullmatch(text) for text in texts):
        return None
    found = [int(text) if kind == "integer" else float(text) for text in texts]
    return found if all(map(math.isfinite, found)) and len(set(found)) == len(found) else None


def _refused(why: str) -> BadSchema:
    return BadSchema(f"The schema {why}.")
