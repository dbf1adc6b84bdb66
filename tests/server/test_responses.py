"""Responses: the shape that current SDKs send and read, whole and as events."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.chatting import SURE, events
from tests.support.serving import serving

EVENTS = [
    "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added", "response.output_text.delta",
    "response.output_text.delta", "response.output_text.done", "response.content_part.done", "response.output_item.done",
]  # fmt: skip


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with serving(tmp_path_factory.mktemp("responses")) as server, server.client() as found:
        yield found


def respond(client: httpx.Client, asked: Any, **fields: Any) -> httpx.Response:
    return client.post("/v1/responses", json={"model": "edge-auto", "input": asked, **fields})


def text(body: dict[str, Any]) -> str:
    return "".join(part["text"] for item in body["output"] for part in item["content"])


@pytest.mark.parametrize(
    "asked",
    [
        SURE,
        [{"role": "user", "content": SURE}],
        [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": SURE}]}],
        [{"role": "user", "content": "hi"}, {"type": "reasoning", "id": "x", "summary": []}, {"role": "user", "content": SURE}],
    ],
)
def test_question_in_every_form_of_input_is_answered(client: httpx.Client, asked: Any) -> None:
    reply = respond(client, asked, temperature=0.1, instructions="Be brief.", edge_agent={"refresh": True})
    body = reply.json()
    assert (reply.status_code, text(body), body["status"], body["object"]) == (200, "B. 19", "completed", "response")
    assert {"temperature", "instructions", "system messages"} <= set(body["edge_agent"]["ignored"])
    assert body["id"] == f"resp_{body['edge_agent']['decision_id']}" and reply.headers["X-Edge-Route"] == "local"
    assert body["usage"]["input_tokens"] == body["edge_agent"]["timings"]["n_prompt_tokens"] > 0


def test_stream_is_the_events_of_one_message(client: httpx.Client) -> None:
    reply = client.post("/responses", json={"model": "edge-auto", "input": SURE, "stream": True})
    found = events(reply)
    assert [event["type"] for event in found] == [*EVENTS, "response.completed"]
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert "".join(event.get("delta", "") for event in found) == "B. 19" == text(found[-1]["response"])
    assert found[-1]["response"]["edge_agent"]["answer"] == "B"
    assert [line for line in reply.text.splitlines() if line.startswith("event: ")] == [f"event: {event['type']}" for event in found]


def test_json_is_written_as_the_format_asks(client: httpx.Client) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string"}, "confidence": {"type": "number"}},
        "required": ["answer", "confidence"],
    }
    body = respond(client, SURE, text={"format": {"type": "json_schema", "name": "x", "strict": True, "schema": schema}}).json()
    assert json.loads(text(body)) == {"answer": "B", "confidence": 1.0}


def test_probe_is_incomplete_and_not_decided(client: httpx.Client) -> None:
    body = respond(client, "hi", max_output_tokens=16).json()
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert body["edge_agent"]["decision_id"] is None and "multiple-choice" in text(body)
    assert events(respond(client, "hi", max_output_tokens=16, stream=True))[-1]["type"] == "response.incomplete"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": "Why is the sky blue?"}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]}, "input"),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}, "input"),
        ({"background": True}, "background"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"max_output_tokens": -2}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"text": {"format": {"type": "json_schema", "schema": {"type": "array"}}}}, "text"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(client: httpx.Client, fields: dict[str, Any], param: str) -> None:
    reply = client.post("/v1/responses", json={"model": "edge-auto", "input": SURE, **fields})
    assert reply.status_code == 400 and reply.json()["error"]["param"].split(".")[0] == param


@pytest.mark.parametrize(
    "item",
    [
        {"type": "mcp_list_tools", "content": [1]},
        {"type": "computer_call_output", "content": {"a": 1}, "output": {}},
        {"type": "reasoning", "role": 5, "content": None, "summary": []},
    ],
)
def test_item_that_is_not_read_may_hold_anything(client: httpx.Client, item: dict[str, Any]) -> None:
    body = respond(client, [item, {"role": "user", "content": SURE}], max_output_tokens=-1).json()
    assert text(body) == "B. 19" and "other messages" in body["edge_agent"]["ignored"]


def test_unknown_model_is_not_found(client: httpx.Client) -> None:
    reply = respond(client, SURE, model="gpt-5")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")


def test_logprobs_come_when_they_are_included(client: httpx.Client) -> None:
    body = respond(client, SURE, include=["message.output_text.logprobs"], top_logprobs=1).json()
    first = body["output"][0]["content"][0]["logprobs"][0]
    assert first["token"] == "B" and len(first["top_logprobs"]) == 1
