"""`POST /v1/decisions` of a real process: values keep their type, answers their order, errors OpenAI's shape."""

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from edge_agent.server.typed.conversation import state_of
from edge_agent.server.typed.decisions import DecisionsReply, DecisionsRequest
from tests.support.serving import Serving, serving

INPUT = "I was charged twice for my March invoice. Please refund me today."
PREDICATE = {"type": "predicate", "name": "refund", "instructions": "The customer asks for money back."}
CHOICE = {
    "type": "choice",
    "instructions": "Is it urgent?",
    "choices": [{"value": True}, {"value": "true"}, {"value": False, "description": "no"}],
}
SCORE = {
    "type": "score",
    "name": "anger",
    "instructions": "How angry?",
    "levels": [{"label": "Calm"}, {"label": "Cross"}, {"label": "Cross"}],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("typed")) as running:
        yield running


def body(*questions: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {"model": "edge-auto", "input": INPUT, "questions": list(questions), **other}


def test_answers_come_in_the_order_of_the_questions_in_the_documented_shape(server: Serving) -> None:
    with server.client() as client:
        reply = client.post("/v1/decisions", json=body(SCORE, PREDICATE, CHOICE, prompt_cache_key="k", safety_identifier="s"))
    assert reply.status_code == 200
    DecisionsReply.model_validate(reply.json())
    score, predicate, choice = reply.json()["answers"]
    assert [(one["type"], one["name"]) for one in (score, predicate, choice)] == [
        ("score", "anger"),
        ("predicate", "refund"),
        ("choice", None),
    ]
    assert [(one["value"], one["label"]) for one in score["probabilities"]] == [(0, "Calm"), (1, "Cross"), (2, "Cross")]
    assert math.isclose(score["score"], sum(one["value"] * one["probability"] for one in score["probabilities"]))
    assert 0 <= predicate["probability"] <= 1
    usage = reply.json()["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > usage["input_tokens_details"]["cached_tokens"] > 0


def test_true_and_the_text_true_stay_two_values(server: Serving) -> None:
    with server.client() as client:
        (answer,) = client.post("/decisions", json=body(CHOICE)).json()["answers"]
    values = [one["value"] for one in answer["probabilities"]]
    assert [type(value) for value in values] == [bool, str, bool] and values == [True, "true", False]
    best = max(answer["probabilities"], key=lambda one: one["probability"])
    assert answer["choice"] is best["value"] or answer["choice"] == best["value"] == "true"
    assert math.isclose(answer["confidence"], (3 * best["probability"] - 1) / 2)


def test_both_apis_give_the_same_question_the_same_probabilities(server: Serving) -> None:
    asked = {"type": "choice", "instructions": "Which team?", "criteria": {"Billing": "Invoices", "Sales": None}}
    choices = [{"value": "Billing", "description": "Invoices"}, {"value": "Sales"}]
    with server.client() as client:
        one = client.post("/v1/systemone", json={"model": "edge-auto", "state": INPUT, "questions": {"t": asked}}).json()["answers"]["t"]
        (two,) = client.post("/v1/decisions", json=body({"type": "choice", "instructions": "Which team?", "choices": choices})).json()[
            "answers"
        ]
    assert two["x_edge_agent"]["recalled"] and two["confidence"] == one["confidence"]
    assert {each["value"]: each["probability"] for each in two["probabilities"]} == one["probabilities"]


def test_one_decision_has_headers_and_several_have_none(server: Serving) -> None:
    with server.client() as client:
        one, two = client.post("/v1/decisions", json=body(PREDICATE)), client.post("/v1/decisions", json=body(PREDICATE, CHOICE))
    assert one.headers["X-Edge-Decision-Id"] == one.json()["answers"][0]["x_edge_agent"]["decision_id"]
    assert not any(name.startswith("x-edge") for name in two.headers)


IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,aGk="}
OUTPUT = {"type": "function_call_output", "call_id": "1", "output": "sunny"}
ONE_CHOICE = {"type": "choice", "instructions": "?", "choices": [{"value": "a"}]}
TWICE = {"type": "choice", "instructions": "?", "choices": [{"value": "a"}, {"value": "b"}, {"value": "a"}]}
NUMBER = {"type": "choice", "instructions": "?", "choices": [{"value": 1}, {"value": 2}]}
LONG = {"type": "predicate", "instructions": "word " * 3000}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (body(), "questions"),
        (body(*[PREDICATE] * 401), "questions"),
        ({"model": "edge-auto", "questions": [PREDICATE]}, "input"),
        (body(PREDICATE, input=7), "text or a list"),
        (body(PREDICATE, input=[]), "input"),
        (body({"type": "predicate"}), "instructions"),
        (body({"type": "noul", "instructions": "?"}), "questions"),
        (body(ONE_CHOICE), "choices"),
        (body(TWICE), "same value"),
        (body(NUMBER), "value"),
        (body({"type": "score", "instructions": "?", "levels": [{"label": "a"}]}), "levels"),
        (body(PREDICATE, input=[{"role": "user", "content": [IMAGE]}]), "images cannot be read"),
        (body({"type": "predicate", "instructions": [IMAGE]}), "images cannot be read"),
        (body(PREDICATE, input=[OUTPUT]), "before its call"),
        (body(PREDICATE, input=[{"type": "reasoning", "id": "1"}]), "input"),
        (body(LONG), "tokens"),
        ([], "body"),
    ],
)
def test_request_that_does_not_fit_is_400_in_one_sentence(server: Serving, asked: Any, says: str) -> None:
    with server.client() as client:
        reply = client.post("/v1/decisions", json=asked)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"].keys() == {"message", "type", "code", "param"}
    error = reply.json()["error"]
    assert says in error["message"] and error["type"] == "invalid_request_error" and len(error["message"]) < 500


@pytest.mark.parametrize("model", ["gpt-6-luna", "", "edge-auto-2"])
def test_a_name_that_is_not_ours_is_not_found(server: Serving, model: str) -> None:
    with server.client() as client:
        reply = client.post("/v1/decisions", json=body(PREDICATE, model=model))
    assert (reply.status_code, reply.json()["error"]["code"], reply.json()["error"]["param"]) == (404, "model_not_found", "model")


def test_half_a_character_is_refused(server: Serving) -> None:
    data = json.dumps(body({"type": "choice", "instructions": "?", "choices": [{"value": "\udc00"}, {"value": "a"}]}))
    with server.client() as client:
        reply = client.post("/v1/decisions", content=data.encode(), headers={"Content-Type": "application/json"})
    assert reply.status_code == 400 and reply.json()["error"]["message"]


def read(given: Any) -> Any:
    """The state that the model reads for an input."""
    return state_of(DecisionsRequest.model_validate(body(PREDICATE, input=given)).input)


def test_conversation_reads_as_who_said_what() -> None:
    text, data = {"type": "input_text", "text": "Hi."}, {"type": "input_json", "data": {"plan": "pro"}}
    assert (
        read("Hi.") == read([{"role": "user", "content": "Hi."}]) == read([{"role": "user", "content": [text], "type": "message"}]) == "Hi."
    )
    assert read([{"role": "user", "content": [text, text]}]) == "Hi.\nHi."
    assert read([{"role": "user", "content": [data]}]) == {"plan": "pro"}
    assert read([{"role": "user", "content": [text, data]}]) == ["Hi.", {"plan": "pro"}]
    said = [
        {"role": "system", "content": "Be kind."},
        {"type": "function_call", "call_id": "1", "name": "weather", "arguments": '{"city": "Almaty"}'},
        {"type": "custom_tool_call", "call_id": "2", "name": "shell", "input": "date"},
        {"type": "custom_tool_call_output", "call_id": "2", "output": [text, data]},
        OUTPUT,
        {"role": "assistant", "content": [{"type": "output_text", "text": "It is sunny."}, {"type": "refusal", "refusal": "No."}]},
    ]
    assert read(said) == [
        {"system": "Be kind."},
        {"call of weather": '{"city": "Almaty"}'},
        {"call of shell": "date"},
        {"result of shell": ["Hi.", {"plan": "pro"}]},
        {"result of weather": "sunny"},
        {"assistant": "It is sunny.\nNo."},
    ]
