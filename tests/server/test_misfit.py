"""A request that does not fit is refused in plain words, with the path of the field as the client wrote it."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.serving import serving

NOT_PLAIN = re.compile(r"Input should|Field required|Extra inputs|validation|valid |permitted|\bdictionary\b|\btag\b|pydantic|Value error")
USER = {"role": "user", "content": "What is 2 + 2?\nA. 3\nB. 4"}
PICK = {"type": "choice", "instructions": "Which?", "choices": [{"value": "a"}, {"value": "b"}]}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with serving(tmp_path_factory.mktemp("misfit")) as server, server.client() as client:
        yield client


@pytest.mark.parametrize(
    ("path", "body", "param", "sentence"),
    [
        ("chat/completions", {}, "messages", "The field 'messages' is missing; send it."),
        ("chat/completions", [], None, "The body must be an object, not a list."),
        ("chat/completions", {"messages": []}, "messages", "The field 'messages' has too few entries; send at least 1."),
        ("chat/completions", {"messages": "x"}, "messages", "The field 'messages' must be a list, not a text."),
        ("chat/completions", {"messages": [USER, 5]}, "messages.1", "The field 'messages.1' must be an object, not a number."),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": 5}]},
            "messages.0.content",
            "The field 'messages.0.content' must be a text or a list, not a number.",
        ),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": [{"type": 5}]}]},
            "messages.0.content.0.type",
            "The field 'messages.0.content.0.type' must be a text, not a number.",
        ),
        (
            "chat/completions",
            {"messages": [{"role": "boss", "content": "x"}]},
            "messages.0.role",
            "The field 'messages.0.role' must be 'system', 'developer', 'user', 'assistant', 'tool' or 'function'.",
        ),
        ("chat/completions", {"messages": [USER], "temperature": 3}, "temperature", "The field 'temperature' must be 2 or less."),
        ("chat/completions", {"messages": [USER], "n": 1.5}, "n", "The field 'n' must be a whole number, not a number."),
        ("chat/completions", {"messages": [USER], "stream": "yes"}, "stream", "The field 'stream' must be true or false, not a text."),
        (
            "chat/completions",
            {"messages": [USER], "edge_agent": {"neversend": True}},
            "edge_agent.neversend",
            "The field 'edge_agent.neversend' is not known here; correct its name, or leave it out.",
        ),
        ("responses", {"input": 5}, "input", "The field 'input' must be a text or a list, not a number."),
        ("decisions", {"input": "x", "questions": [PICK]}, "model", "The field 'model' is missing; send it."),
        (
            "decisions",
            {"model": "edge-auto", "input": "x", "questions": [{**PICK, "choices": ["18", "19"]}]},
            "questions.0.choices.0",
            """The field 'questions.0.choices.0' must be an object, such as {"value": "18"}.""",
        ),
        (
            "decisions",
            {"model": "edge-auto", "input": "x", "questions": [{**PICK, "choices": [{"value": "a"}]}]},
            "questions.0.choices",
            "The field 'questions.0.choices' has too few entries; send at least 2.",
        ),
        (
            "decisions",
            {"model": "edge-auto", "input": "x", "questions": [{**PICK, "choices": [{"value": "a"}] * 2}]},
            "questions.0.choices",
            "The field 'questions.0.choices' has two choices with the same value; give each value once.",
        ),
        (
            "decisions",
            {"model": "edge-auto", "input": "x", "questions": [{"type": "guess"}]},
            "questions.0",
            "The field 'questions.0' has a type that is not known here; send 'predicate', 'choice', 'score'.",
        ),
        (
            "decisions",
            {"model": "edge-auto", "input": "x", "questions": [{}]},
            "questions.0",
            "The field 'questions.0' has no type; send one.",
        ),
        (
            "decisions",
            {"model": "edge-auto", "input": [{"role": "user", "content": [{"type": "input_image"}]}], "questions": [PICK]},
            "input.0.content.0",
            "The field 'input.0.content.0' must be a part with text or JSON; images cannot be read here.",
        ),
    ],
)
def test_field_that_does_not_fit_is_named_in_plain_words(
    client: httpx.Client, path: str, body: Any, param: str | None, sentence: str
) -> None:
    reply = client.post(f"/v1/{path}", json=body)
    error = reply.json()["error"]
    assert (reply.status_code, error["message"], error["param"]) == (400, sentence, param)


@pytest.mark.parametrize(
    ("question", "where", "sentence"),
    [
        ({"type": "choice"}, ["criteria"], "The field 'questions.sum.criteria' is missing; send it."),
        ({"type": "choice", "criteria": []}, ["criteria"], "The field 'questions.sum.criteria' must be an object, not a list."),
        (
            {"type": "choice", "criteria": {"a": None}},
            ["criteria"],
            "The field 'questions.sum.criteria' has too few entries; send at least 2.",
        ),
        ({"type": "choice", "choice": {"criteria": 1}}, ["criteria"], "The field 'questions.sum.criteria' is missing; send it."),
        (
            {"type": "score", "criteria": ["a", 5]},
            ["criteria", 1],
            "The field 'questions.sum.criteria.1' must be a text, an object or a list.",
        ),
    ],
)
def test_system_one_names_the_field_without_names_of_types(
    client: httpx.Client, question: dict[str, Any], where: list[str | int], sentence: str
) -> None:
    reply = client.post("/v1/systemone", json={"model": "edge-auto", "state": "x", "questions": {"sum": question}})
    (found,) = reply.json()["detail"]
    assert (reply.status_code, found["loc"], found["msg"]) == (422, ["body", "questions", "sum", *where], sentence)


def test_no_word_of_a_library_reaches_a_client(client: httpx.Client) -> None:
    values = (None, True, 5, -5, 1.5, 10**30, "", "x" * 3000, "5", [], [5], [[]], {}, {"a": 1})
    good: dict[str, dict[str, Any]] = {
        "chat/completions": {"messages": [USER], "n": 1, "temperature": 1, "tools": [], "edge_agent": {}, "seed": 1, "stop": "x"},
        "responses": {"input": "x", "text": {}, "metadata": {}, "include": []},
        "decisions": {"model": "edge-auto", "input": "x", "questions": [PICK]},
        "systemone": {"model": "edge-auto", "state": "x", "questions": {}, "assets": {}},
        "../edge/ask": {},
        "../edge/draft": {},
    }
    for path, fields in good.items():
        for name in fields or ("text",):
            for value in values:
                reply = client.post(f"/v1/{path}", json={**fields, name: value})
                assert reply.status_code < 500, (path, name, value, reply.text)
                assert reply.status_code == 200 or not NOT_PLAIN.search(reply.text), (path, name, value, reply.text)
    for query in ("limit=x", "wait=x", "wait=-1", "wait=1e9", "wait=nan"):
        reply = client.get(f"/edge/decisions/0f8fad5b-d9cb-469f-a165-70867728950e?{query}")
        assert not NOT_PLAIN.search(reply.text), reply.text
