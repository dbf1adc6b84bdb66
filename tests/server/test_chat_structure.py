"""An answer in JSON: which schemas can be filled, how, and which are refused before anything is decided."""

import contextlib
import json
import pathlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import httpx
import pytest
from pydantic import BaseModel, Field

from edge_agent.agent.agent import Agent
from edge_agent.core.question import CHOICE, Question
from edge_agent.core.records import CloudAnswer, Decision
from edge_agent.model.profile import LEVELS
from edge_agent.server.chat import structure
from edge_agent.server.chat.field_names import purpose
from edge_agent.server.chat.requests import ChatMessage
from edge_agent.server.chat.wanted import wanted
from edge_agent.server.faults import Refusal
from tests.support.chatting import SURE, UNSURE, chat
from tests.support.paths import DEMO
from tests.support.serving import serving

QUESTION = Question("What is 12 + 7?", ("18", "19", "24"))
ANIMALS = Question("Which barks?", ("cat", "Dog"))


@pytest.fixture(scope="module")
def decision(tmp_path_factory: pytest.TempPathFactory) -> Decision:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_AGENT_HOME", str(tmp_path_factory.mktemp("structure")))
        with Agent.open(str(DEMO)) as agent:
            return agent.ask(QUESTION)


def schema(properties: dict[str, Any], required: list[str] | None = None, **more: Any) -> dict[str, Any]:
    required = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False, **more}


def asked(described: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": described}}


def filled(described: dict[str, Any], decision: Decision, question: Question = QUESTION, has_confidence: bool = True) -> Any:
    form = structure.of(asked(described), "response_format")
    assert form is not None
    return json.loads(form.promise(question, LEVELS, has_confidence)(decision))


TEXT, NUMBER, INTEGER = {"type": "string"}, {"type": "number"}, {"type": "integer"}
PERCENT, LEVEL = {**INTEGER, "minimum": 0, "maximum": 100}, {**NUMBER, "enum": [0.0, 0.25, 0.5, 0.75, 1.0]}


class Plain(BaseModel):
    answer: str
    confidence: float


class Detailed(BaseModel):
    """What was chosen."""

    final_answer: Literal["A", "B", "C"] = Field(description="the letter")
    answer_text: str
    confidence: float = Field(ge=0, le=1)
    explanation: str | None


class Inner(BaseModel):
    letter: Literal["A", "B", "C", "D"]


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        (Plain.model_json_schema(), {"answer": "B", "confidence": 1.0}),
        (Detailed.model_json_schema(), {"final_answer": "B", "answer_text": "19", "confidence": 1.0, "explanation": None}),
        (Inner.model_json_schema(), {"letter": "B"}),
        (schema({"choice": {"enum": ["18", "19", "24"]}, "score": NUMBER}), {"choice": "19", "score": 1.0}),
        (schema({"label": {"type": "string", "enum": ["A. 18", "B. 19", "C. 24"]}}), {"label": "B. 19"}),
        (schema({"sum": {"enum": [18, 19, 24]}}), {"sum": 19}),
        (schema({"answer": INTEGER, "confidence": PERCENT}), {"answer": 19, "confidence": 100}),
        (schema({"answer_index": {"type": "integer"}}), {"answer_index": 1}),
        (schema({"Answer": {"type": "string", "pattern": "^[A-D]$"}}), {"Answer": "B"}),
        (schema({"answer": {"$ref": "#/$defs/L"}}, None, **{"$defs": {"L": {"enum": ["A", "B", "C"]}}}), {"answer": "B"}),
        (schema({"answer": TEXT, "reason": TEXT}, ["answer"]), {"answer": "B"}),
        (schema({"answer": TEXT, "reason": {"type": ["string", "null"]}}), {"answer": "B", "reason": None}),
        (schema({"answer": TEXT, "kind": {"const": "mcq"}}), {"answer": "B", "kind": "mcq"}),
        (schema({"answer": TEXT, "confidence": LEVEL}), {"answer": "B", "confidence": 1.0}),
        (schema({"answer_index": {**INTEGER, "minimum": 1, "maximum": 3}}), {"answer_index": 2}),
        (schema({"answer_index": {**INTEGER, "enum": [1, 2, 3]}}), {"answer_index": 2}),
        (schema({"answer_index": {**INTEGER, "enum": [0, 1, 2]}}), {"answer_index": 1}),
        (schema({"answer_index": {**INTEGER, "minimum": 0, "maximum": 2}}), {"answer_index": 1}),
        (schema({"answer": {"oneOf": [{"const": "18"}, {"const": "19"}, {"const": "24"}]}}), {"answer": "19"}),
        (schema({"answer": {**INTEGER, "minimum": 18, "maximum": 24, "description": "the sum", "x-order": 1}}), {"answer": 19}),
        (schema({"answer": {"$ref": "#/$defs/L", "maxLength": 1}}, None, **{"$defs": {"L": TEXT}}), {"answer": "B"}),
        (schema({"answer": TEXT, "confidence": {**NUMBER, "exclusiveMaximum": 2, "maximum": 1}}), {"answer": "B", "confidence": 1.0}),
    ],
)  # fmt: skip
def test_schema_is_filled(described: dict[str, Any], expected: dict[str, Any], decision: Decision) -> None:
    assert filled(described, decision) == expected


@pytest.mark.parametrize(
    ("described", "words"),
    [
        (schema({"answer": TEXT, "reasoning": TEXT}), "reasoning"),
        (schema({"confidence": NUMBER}), "no field for the answer"),
        (schema({"kind": {"const": "answer"}}), "no field for the answer"),
        (schema({"answer": {"enum": ["yes", "no"]}}), "do not fit"),
        (schema({"answer": {"enum": ["A", "B"]}}), "do not fit"),
        (schema({"answer": {"type": "boolean"}}), "do not fit"),
        (schema({"answer": {"type": "string", "minLength": 5}}), "do not fit"),
        (schema({"answer": {"type": "string", "pattern": "^[A-B]$"}}), "do not fit"),
        (schema({"answer": TEXT, "confidence": {"type": "integer"}}), "from 0 to 1"),
        (schema({"answer": TEXT, "confidence": TEXT}), "from 0 to 1"),
        (schema({"answer": TEXT, "confidence": {"enum": ["low", "high"]}}), "from 0 to 1"),
        (schema({"answer": TEXT, "confidence": {"type": "number", "enum": [0.1, 0.9]}}), "levels"),
        (schema({"answer": TEXT, "confidence": {"type": "number", "exclusiveMaximum": 1}}), "levels"),
        (schema({"answer": {"type": "string", "pattern": "(a+)+$"}}), "pattern"),
        (schema({"answer": {"anyOf": [TEXT, NUMBER]}}), "several types"),
        (schema({"answer": {"$ref": "#"}}), "answer"),
        (schema({"answer": {"$ref": "http://example.com/x"}}), "outside itself"),
        (schema({"answer": {"$ref": "#/$defs/L"}}, None, **{"$defs": {"L": {"$ref": "#/$defs/L"}}}), "refers to itself"),
        (schema({"answers": {"type": "array", "items": TEXT}}), "answers"),
        (schema({"answer": {"type": "object", "properties": {"letter": TEXT}}}), "do not fit"),
        (schema({f"p{i}": TEXT for i in range(40)}), "properties"),
        (schema({"answer": 5}), "described by an object"),
        (schema({"answer_index": {**INTEGER, "minimum": 1, "maximum": 2}}), "do not fit"),
        (schema({"answer_index": {**INTEGER, "minimum": 2}}), "do not fit"),
        (schema({"answer": {**INTEGER, "minimum": 1, "maximum": 5}}), "do not fit"),
        (schema({"answer": {**NUMBER, "maximum": 10}}), "do not fit"),
        (schema({"answer": {**INTEGER, "enum": ["18", "19", "24"]}}), "do not fit"),
        (schema({"answer": {"enum": ["18", "19", "24", "30"]}}), "do not fit"),
        (schema({"answer": {"enum": ["A", "B", "C", "D"]}}), "do not fit"),
        (schema({"answer": {"enum": ["18", "19", "24"], "maxLength": 1}}), "do not fit"),
        (schema({"answer": TEXT}, ["answer", "reason"]), "required"),
        (schema({"answer": {"$ref": "#/$defs/L", "enum": ["x", "y", "z"]}}, None, **{"$defs": {"L": TEXT}}), "do not fit"),
        (schema({"answer": TEXT, "confidence": {**NUMBER, "const": 0.3}}), "levels"),
        (schema({"answer": TEXT, "confidence": {**NUMBER, "multipleOf": 0.1}}), "multipleOf"),
        (schema({"answer": {**TEXT, "format": "date"}}), "format"),
        (schema({"answer": TEXT}, None, minProperties=4), "minProperties"),
        (schema({"answer": TEXT}, None, **{"not": {}}), "not"),
        (schema({"answer": TEXT}, None, dependentRequired={"answer": ["x"]}), "dependentRequired"),
        (schema({"answer": {**TEXT, "minLength": "x"}}), "minLength"),
        (schema({"answer": {"type": "text"}}), "type"),
        (
            schema({"answer": {"anyOf": [{"$ref": "#/$defs/L"}] * 40}}, None, **{"$defs": {"L": {"anyOf": [{"$ref": "#/$defs/L"}] * 40}}}),
            "itself|long",
        ),
        ({"type": "array", "items": TEXT}, "one object"),
        ({"type": "object"}, "one object"),
    ],
)
def test_schema_that_cannot_be_filled_is_refused(described: dict[str, Any], words: str, decision: Decision) -> None:
    with pytest.raises(Refusal, match=words) as refusal:
        filled(described, decision)
    assert (refusal.value.status, refusal.value.param) == (400, "response_format")


NAMES = {
    "answer": ["answer", "finalAnswer", "Final Answer", "answer_choice", "selected_option", "predicted-label", "class"],
    "letter": ["letter", "answer_letter", "correctOptionLetter", "optionKey"],
    "text": ["text", "answer_text", "selectedOptionText"],
    "index": ["index", "answer_idx", "chosen_option_index"],
    "confidence": ["confidence", "confidenceScore", "answer_confidence", "certainty", "prob", "confidence_in_answer"],
    "percent": ["confidence_percent", "confidencePct"],
    None: ["reasoning", "answer_explanation", "explanation_text", "probabilities", "final", "", "уверенность", "id"],
}


@pytest.mark.parametrize(("name", "meant"), [(name, meant) for meant, names in NAMES.items() for name in names])
def test_name_says_what_a_field_gets(name: str, meant: str | None) -> None:
    assert purpose(name) == meant


@pytest.mark.parametrize(
    "texts", [("inf", "10", "nan"), ("1_0", "10"), ("01", "1"), ("+1", "2"), ("١٢", "13"), ("1e400", "2"), ("1.0", "1"), ("9" * 30, "1")]
)
@pytest.mark.parametrize("kind", [NUMBER, INTEGER])
def test_text_that_is_no_number_for_others_is_none_here(decision: Decision, texts: tuple[str, ...], kind: dict[str, Any]) -> None:
    with pytest.raises(Refusal, match="do not fit"):
        filled(schema({"answer": kind}), decision, Question("Which?", texts))


def test_numbers_are_written_as_numbers(decision: Decision) -> None:
    assert filled(schema({"answer": NUMBER}), decision, Question("Which?", ("1", "-2.5e3"))) == {"answer": -2500.0}


def test_confidence_that_the_schema_does_not_allow_falls_back_to_the_devices(decision: Decision) -> None:
    answered = CloudAnswer("C", "C", "large", 1.0, probs={"A": 0.1, "B": 0.1, "C": 0.8})
    by_cloud = replace(decision, route="cloud", answer="C", cloud=answered, cloud_confidence=0.8)
    assert filled(schema({"answer": TEXT, "confidence": NUMBER}), by_cloud) == {"answer": "C", "confidence": 0.8}
    assert filled(schema({"answer": TEXT, "confidence": LEVEL}), by_cloud) == {"answer": "C", "confidence": decision.confidence}
    assert filled(schema({"answer": TEXT, "confidence": LEVEL}, ["answer"]), by_cloud) == {"answer": "C"}


def test_percent_is_scaled(decision: Decision) -> None:
    assert filled(schema({"answer": TEXT, "confidence_percent": INTEGER}), decision) == {"answer": "B", "confidence_percent": 100}


def test_case_of_an_enum_is_kept(decision: Decision) -> None:
    assert filled(schema({"animal": {"enum": ["CAT", "dog"]}}), decision, ANIMALS) == {"animal": "dog"}
    truth = Question("Is it?", ("True", "False"))
    assert filled(schema({"answer": {"type": "boolean"}}), decision, truth) == {"answer": False}


def test_words_of_an_open_answer_are_the_answer(decision: Decision) -> None:
    spoken, question = replace(decision, answer="Astana", answer_text="Astana"), Question("Capital?", (), "open")
    assert filled(Plain.model_json_schema(), spoken, question) == {"answer": "Astana", "confidence": 1.0}
    with pytest.raises(Refusal, match="answer_index"):
        filled(schema({"answer": TEXT, "answer_index": INTEGER}), spoken, question)


def test_confidence_of_a_cloud_answer_is_not_invented(decision: Decision) -> None:
    by_cloud = replace(decision, route="cloud", answer="C", cloud=CloudAnswer("C", "C", "large", 1.0))
    optional, must = schema({"answer": TEXT, "confidence": NUMBER}, ["answer"]), schema({"answer": TEXT, "confidence": NUMBER})
    nullable = schema({"answer": TEXT, "confidence": {"anyOf": [NUMBER, {"type": "null"}]}})
    assert filled(optional, by_cloud) == {"answer": "C"}
    assert filled(nullable, by_cloud, has_confidence=False) == {"answer": "C", "confidence": None}
    assert filled(must, by_cloud)["confidence"] == decision.confidence  # must be a number: the device's own
    with pytest.raises(Refusal, match="cloud may say none"):
        filled(must, by_cloud, has_confidence=False)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with serving(tmp_path_factory.mktemp("structure")) as server, server.client() as found:
        yield found


def said(reply: httpx.Response) -> Any:
    assert reply.status_code == 200, reply.text
    return json.loads(reply.json()["choices"][0]["message"]["content"])


def test_json_object_has_answer_text_and_confidence(client: httpx.Client) -> None:
    reply = chat(client, SURE, response_format={"type": "json_object"})
    assert said(reply) == {"answer": "B", "answer_text": "19", "confidence": 1.0}
    assert chat(client, SURE, response_format={"type": "text"}).json()["choices"][0]["message"]["content"] == "B. 19"


def test_enum_of_a_schema_may_be_the_options(client: httpx.Client) -> None:
    described = schema({"year": {"enum": ["2007", "2009", "2011"]}, "confidence": NUMBER})
    reply = chat(client, UNSURE.partition("\n")[0], response_format=asked(described))
    assert said(reply)["year"] in ("2007", "2009", "2011")
    assert said(chat(client, UNSURE, response_format=asked(described))) == said(reply)  # the same question, so the same answer
    assert chat(client, UNSURE, response_format=asked(described)).json()["edge_agent"]["recalled"]


def test_refused_schema_decides_nothing(client: httpx.Client, tmp_path: pathlib.Path) -> None:
    text = SURE.replace("12", "11")
    reply = chat(client, text, response_format=asked(schema({"answer": TEXT, "reasoning": TEXT})))
    assert reply.status_code == 400 and reply.json()["error"]["code"] == "unsupported_schema"
    assert not chat(client, text).json()["edge_agent"]["recalled"]


GRADE = {"grade": {**TEXT, "enum": ["A", "B", "C", "D", "F"]}}
CLAIM = {"decision": {**TEXT, "enum": ["approve", "reject", "escalate"]}}
MOOD = {"label": {**TEXT, "enum": ["positive", "negative", "neutral"]}}


def asked_with(text: str, properties: dict[str, Any]) -> Question:
    """The question that a text and a schema make."""
    form = structure.of(asked(schema(properties)), "response_format")
    found = wanted([ChatMessage(role="user", content=text)], "messages", form, CHOICE, None).question
    assert form is not None and found is not None
    form.promise(found, LEVELS, True)
    return found


@pytest.mark.parametrize(
    ("text", "properties"),
    [
        ("Decide which grade this essay gets:\n\nThings I like:\nA. tea\nB. milk", GRADE),
        ("Decide about this expense claim:\n\n10000 for a party\nA. approve\nB. escalate", CLAIM),
        ("Classify the review.\n\nPros:\n- cheap\n- light", MOOD),
        ("Classify the review.\n\n1. Great food\n2. Nice staff", MOOD),
        ("Classify the review.\n\nDear team,\n\nA) refund me\nB) call me", MOOD),
        ("Classify the review.\n\nWhich do you like? A) tea B) coffee", MOOD),
        ("Classify the review.\n\n- great\n- bad\n- ok", MOOD),
        ("Classify the review.\n\nA. positive\nB. negative\nC. neutral\nD. other", MOOD),
        ("Classify the review.\n\nAnswer:", MOOD),
        ("How many stars?\n\nFine.", {"rating": {**INTEGER, "enum": [1, 2, 3, 4, 5]}}),
        ("Which?", {"kind": {"oneOf": [{"const": "spam"}, {"const": "ham", "title": "Ham"}]}}),
    ],
)
def test_text_never_takes_options_away_from_the_schema(text: str, properties: dict[str, Any]) -> None:
    question, (described,) = asked_with(text, properties), properties.values()
    values = described.get("enum") or [one["const"] for one in described["oneOf"]]
    assert question.options == tuple(map(str, values)) and question.stem.startswith(text)


@pytest.mark.parametrize(
    ("text", "properties"),
    [
        (SURE, {"answer": {"enum": ["A", "B", "C"]}}),
        (SURE, {"answer": {"enum": ["24", "18", "19"]}}),
        (SURE, {"answer": {"enum": ["A. 18", "B. 19", "C. 24"]}}),
        (SURE, {"answer": {**INTEGER, "enum": [18, 19, 24]}}),
        (SURE, {"letter": {"enum": ["A", "B", "C", "D"]}}),
        (SURE, {"letter": {"enum": ["A", "B", "C"]}, "text": {"enum": ["18", "19", "24"]}}),
        (f"{SURE}\nAnswer:", {"answer": {"enum": ["A", "B", "C"]}}),
    ],
)
def test_options_of_the_text_count_if_the_schema_lists_them(text: str, properties: dict[str, Any]) -> None:
    assert asked_with(text, properties) == Question.parse(SURE)


@pytest.mark.parametrize(
    ("text", "properties"),
    [
        (SURE, {"answer": {"enum": ["A", "B"]}}),
        (SURE, {"grade": {"enum": ["A", "B", "C", "D"]}}),
        ("Which?\nA. B\nB. A", {"answer": {"enum": ["A", "B"]}}),
        ("Which number?\n1. tea\n2. milk", {"answer": {"enum": ["A", "B"]}}),
        (SURE, {"answer": TEXT, "language": {"enum": ["en", "de"]}}),
        ("Which?", {"answer": {"enum": [f"v{i}" for i in range(27)]}}),
        ("Which?", {"answer": {"enum": ["é", "e\u0301"]}}),
        ("Which?", {"answer": {"enum": ["a\nb", "c"]}}),
        ("Which?", {"answer": {"enum": ["", "c"]}}),
    ],
)
def test_text_and_schema_that_may_mean_two_things_are_refused(text: str, properties: dict[str, Any]) -> None:
    with pytest.raises(Refusal, match="schema") as refusal:
        asked_with(text, properties)
    assert (refusal.value.code, refusal.value.param) == ("unsupported_schema", "response_format")


def test_true_and_false_are_options(client: httpx.Client) -> None:
    for described in ({"type": "boolean"}, {"type": "boolean", "enum": [True, False]}, {"enum": [False, True]}):
        form = asked(schema({"is_sum": described}))
        assert said(chat(client, "Is 2 + 2 = 4?\nA. True\nB. False", response_format=form)).keys() == {"is_sum"}
        reply = chat(client, "Is 2 + 2 = 4?", response_format=form)
        assert said(reply)["is_sum"] is (reply.json()["edge_agent"]["answer_text"] == "Yes")


def test_json_object_keeps_a_schema_beside_it(client: httpx.Client) -> None:
    described = schema({"label": {"enum": ["18", "19", "24"]}})
    assert said(chat(client, SURE, response_format={"type": "json_object", "schema": described})) == {"label": "19"}
    assert chat(client, SURE, response_format={"type": "json_object", "schema": 5}).status_code == 400


LONG = [f"v{i}" for i in range(8000)]


@pytest.mark.parametrize(
    "properties",
    [
        {"answer": {"enum": ["18", "19", "24"]}, "confidence": {**NUMBER, "enum": [0.1, 0.2] * 8000}},
        {"answer": {"enum": LONG}},
        {f"answer{i}": {"enum": LONG[:250]} for i in range(32)},
        {"answer": {"allOf": [{"anyOf": [TEXT] * 90}] * 90}},
        {"answer": {"$ref": "#/$defs/" + "a/" * 20_000}},
    ],
)
def test_large_schema_is_looked_at_in_a_moment(properties: dict[str, Any]) -> None:
    begin = time.process_time()
    with contextlib.suppress(Refusal):
        asked_with(SURE, properties)
    assert time.process_time() - begin < 1.0
