"""An answer in JSON: which schemas can be filled, how, and which are refused before anything is decided."""

import json
import pathlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import httpx
import pytest
from pydantic import BaseModel, Field

from edge_agent.agent.agent import Agent
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer, Decision
from edge_agent.model.profile import LEVELS
from edge_agent.server.chat import structure
from edge_agent.server.chat.field_names import purpose
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
        (schema({"answer": TEXT, "confidence": {"type": "number", "exclusiveMaximum": 1}}), "exclusiveMaximum"),
        (schema({"answer": {"type": "string", "pattern": "(a+)+$"}}), "pattern"),
        (schema({"answer": {"anyOf": [TEXT, NUMBER]}}), "several types"),
        (schema({"answer": {"$ref": "#"}}), "answer"),
        (schema({"answer": {"$ref": "http://example.com/x"}}), "outside itself"),
        (schema({"answer": {"$ref": "#/$defs/L"}}, None, **{"$defs": {"L": {"$ref": "#/$defs/L"}}}), "refers to itself"),
        (schema({"answers": {"type": "array", "items": TEXT}}), "answers"),
        (schema({"answer": {"type": "object", "properties": {"letter": TEXT}}}), "do not fit"),
        (schema({f"p{i}": TEXT for i in range(40)}), "properties"),
        (schema({"answer": 5}), "described by an object"),
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
    with pytest.raises(Refusal, match="cloud says none"):
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
