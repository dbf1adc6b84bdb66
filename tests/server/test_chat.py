"""Chat completions: what a client sends, and what it gets, whole and streamed."""

import json
import math
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from edge_agent.core.question import CHOICE, OPEN
from edge_agent.server.chat.requests import ChatMessage
from edge_agent.server.chat.wanted import wanted
from edge_agent.server.faults import Refusal
from edge_agent.store.store import Store
from tests.support.chatting import COMPLETIONS, SURE, UNSURE, chat, events
from tests.support.cloud_server import LoopbackCloud
from tests.support.serving import Serving, serving

OWN_FORMAT = "Output format:\nConfidence: <0.0|0.25|0.5|0.75|1.0>\nFinal answer: <OPTION_LETTER>"


@pytest.fixture(scope="module")
def remote() -> Iterator[LoopbackCloud]:
    cloud = LoopbackCloud()
    yield cloud
    cloud.stop()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, remote: LoopbackCloud) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("chat")
    with serving(home, "--cloud-url", remote.url, environment={"EDGE_AGENT_CLOUD_MODEL": "large"}) as server:
        yield server


@pytest.fixture(scope="module")
def client(running: Serving) -> Iterator[httpx.Client]:
    with running.client() as found:
        yield found


def content(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["message"]["content"]


def refused(reply: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert error.keys() == {"message", "type", "code", "param"}
    return error


# The answer


def test_choice_is_answered_with_its_letter_and_text(client: httpx.Client) -> None:
    reply = chat(client, SURE, edge_agent={"refresh": True})
    body = reply.json()
    assert (content(reply), body["object"], body["model"]) == ("B. 19", "chat.completion", "edge-auto")
    assert body["choices"][0]["finish_reason"] == "stop"
    assert (body["edge_agent"]["route"], reply.headers["X-Edge-Route"]) == ("local", "local")
    assert body["id"] == f"chatcmpl-{body['edge_agent']['decision_id']}" and reply.headers["X-Edge-Decision-Id"] in body["id"]
    timings = body["edge_agent"]["timings"]
    assert body["usage"]["prompt_tokens"] == timings["n_prompt_tokens"] > 0
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == timings["n_cached_tokens"]
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + 2  # the level and the letter are chosen


@pytest.mark.parametrize(
    "text",
    [
        "What is 12 + 7?\nA) 18\nB) 19\nC) 24",
        "What is 12 + 7? A) 18 B) 19 C) 24",
        "What is 12 + 7?\r\n1. 18\r\n2. 19\r\n3. 24",
        [{"type": "text", "text": "What is 12 + 7?"}, {"type": "input_text", "text": "A. 18\nB. 19\nC. 24"}],
    ],
)
def test_question_is_recognised_in_every_form(client: httpx.Client, text: Any) -> None:
    assert content(chat(client, text)) == "B. 19"


def test_path_without_version_is_the_same(client: httpx.Client) -> None:
    reply = client.post(COMPLETIONS.removeprefix("/v1"), json={"messages": [{"role": "user", "content": SURE}]})
    assert content(reply) == "B. 19" and reply.json()["model"] == "edge-auto"


def test_last_message_of_the_user_is_the_question_and_the_rest_is_named(client: httpx.Client) -> None:
    turns = [
        {"role": "system", "content": "You are a pirate."},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]},
        {"role": "assistant", "content": "A. Mars", "tool_calls": []},
        {"role": "user", "content": SURE},
        {"role": "assistant", "content": "Answer:"},
    ]
    reply = client.post(COMPLETIONS, json={"model": "edge-auto", "messages": turns})
    assert content(reply) == "B. 19"
    assert reply.json()["edge_agent"]["ignored"] == ["other messages", "system messages"]


def test_parameters_that_do_nothing_are_named(client: httpx.Client) -> None:
    sent = {
        "temperature": 0.3,
        "top_p": 1,
        "seed": 7,
        "max_tokens": 3,
        "stop": ["\n"],
        "tools": [],
        "user": "me",
        "top_k": 40,
        "store": False,
    }
    assert chat(client, SURE, **sent, presence_penalty=None, n=1).json()["edge_agent"]["ignored"] == sorted(sent)


def test_own_two_lines_come_when_the_system_message_asks_for_them(client: httpx.Client) -> None:
    turns = [{"role": "system", "content": OWN_FORMAT}, {"role": "user", "content": SURE}]
    assert content(client.post(COMPLETIONS, json={"model": "edge-local", "messages": turns})) == "Confidence: 1.0\nFinal answer: B"
    assert content(client.post(COMPLETIONS, json={"model": "edge-cloud", "messages": turns})) == "Final answer: B"


def test_logprobs_are_those_of_the_letters(client: httpx.Client) -> None:
    body = chat(client, SURE, logprobs=True, top_logprobs=2).json()
    first, rest = body["choices"][0]["logprobs"]["content"]
    probs = body["edge_agent"]["answer_probs"]
    assert (first["token"] + rest["token"], rest["logprob"]) == ("B. 19", 0)
    assert [each["token"] for each in first["top_logprobs"]] == ["B", "A"]
    assert math.exp(first["logprob"]) == pytest.approx(probs["B"]) and math.exp(first["top_logprobs"][1]["logprob"]) == pytest.approx(
        probs["A"]
    )


def test_probabilities_of_the_device_are_not_given_for_an_answer_of_the_cloud(client: httpx.Client) -> None:
    body = chat(client, UNSURE, logprobs=True).json()
    assert (body["edge_agent"]["route"], body["choices"][0]["logprobs"]) == ("cloud", None)
    assert "logprobs" in body["edge_agent"]["ignored"]


# Who answers


def test_model_says_who_answers(client: httpx.Client, remote: LoopbackCloud) -> None:
    remote.reply = lambda body: "C"
    found = {}
    for name in ("edge-local", "edge-auto-0", "edge-auto", "edge-auto-1.0", "edge-cloud", "jev-latest"):
        reply = chat(client, UNSURE, model=name, edge_agent={"refresh": True})
        found[name] = (content(reply), reply.headers["X-Edge-Route"])
    local = found["edge-local"]
    assert local[1] == "local" and found["edge-auto-0"] == local
    assert {found[name] for name in ("edge-auto", "edge-auto-1.0", "edge-cloud", "jev-latest")} == {("C. 2011", "cloud")}


def test_usage_counts_the_reading_and_the_clouds_own_count_and_nothing_that_was_recalled(client: httpx.Client) -> None:
    alone, both = (chat(client, UNSURE, model=name, edge_agent={"refresh": True}).json() for name in ("edge-cloud", "edge-auto"))
    assert (alone["usage"]["prompt_tokens"], alone["usage"]["total_tokens"]) == (9, 10)
    read = both["edge_agent"]["timings"]["n_prompt_tokens"]
    assert (both["edge_agent"]["route"], both["usage"]["prompt_tokens"], both["usage"]["completion_tokens"]) == ("cloud", read + 9, 2 + 1)
    assert read > 9
    again = chat(client, UNSURE, model="edge-cloud").json()
    assert again["edge_agent"]["recalled"] and again["usage"]["total_tokens"] == 0


def test_question_marked_never_send_stays_here(client: httpx.Client, remote: LoopbackCloud) -> None:
    n_requests = len(remote.requests)
    found = chat(client, UNSURE.replace("1994", "1995"), edge_agent={"never_send": True}).json()["edge_agent"]
    assert (found["route"], found["reason"], len(remote.requests)) == ("local", "never_send", n_requests)
    assert "neversend" in refused(chat(client, UNSURE, edge_agent={"neversend": True}))["param"]
    assert "edge-local" in refused(chat(client, UNSURE, model="edge-cloud", edge_agent={"never_send": True}))["message"]


def test_question_that_does_not_fit_is_refused(client: httpx.Client) -> None:
    error = refused(chat(client, "word " * 9000 + SURE))
    assert (error["code"], error["param"]) == ("invalid_question", "messages.0.content")


@pytest.mark.parametrize("name", ["gpt-4o", "edge-auto-1.5", "edge-auto-", "edge-auto-nan", "EDGE-AUTO", "", "edge-auto\n"])
def test_unknown_model_is_not_found(client: httpx.Client, name: str) -> None:
    error = refused(chat(client, SURE, model=name), 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model") and "edge-auto-0.75" in error["message"]


# Streams


def test_stream_has_role_text_end_and_usage(client: httpx.Client) -> None:
    reply = chat(client, SURE, stream=True, stream_options={"include_usage": True}, logprobs=True)
    found = events(reply)
    assert reply.text.endswith("data: [DONE]\n\n") and reply.headers["X-Edge-Route"] == "local"
    assert all(chunk["object"] == "chat.completion.chunk" and chunk["model"] == "edge-auto" for chunk in found)
    assert len({(chunk["id"], chunk["created"]) for chunk in found}) == 1
    *chunks, usage = found
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "B. 19"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert chunks[-1]["edge_agent"]["answer"] == "B" and all(chunk["usage"] is None for chunk in chunks)
    assert chunks[1]["choices"][0]["logprobs"]["content"][0]["token"] == "B"
    assert usage["choices"] == [] and usage["usage"]["total_tokens"] == 0


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}])
def test_stream_without_wanted_usage_has_none(client: httpx.Client, options: Any) -> None:
    found = events(chat(client, SURE, stream=True, stream_options=options))
    assert all(chunk["choices"] and "usage" not in chunk for chunk in found)


def test_error_comes_before_a_stream_begins(client: httpx.Client) -> None:
    refused(chat(client, "Why is the sky blue?", stream=True))
    refused(chat(client, SURE, stream=True, model="x"), 404)


# Probes, and texts that are no question


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("text", ["hi", "Hello", "test", "Hello!", "Привет", "What is the capital of France?"])
def test_probe_is_told_what_the_server_answers_and_nothing_is_stored(
    running: Serving, client: httpx.Client, text: str, stream: bool
) -> None:
    tools = [{"type": "function", "function": {"name": "test_function", "parameters": {"type": "object", "properties": {}}}}]
    with Store(running.home / "edge-agent.db") as store:
        before = store.database.rows("SELECT count(*) AS n FROM decisions")[0]["n"]
        reply = chat(client, text, max_tokens=3, tools=tools, stream=stream)
        assert store.database.rows("SELECT count(*) AS n FROM decisions")[0]["n"] == before
    if stream:
        said, end = "".join(one["choices"][0]["delta"].get("content", "") for one in events(reply)), events(reply)[-1]
    else:
        said, end = content(reply), reply.json()
    assert "multiple-choice" in said and end["choices"][0]["finish_reason"] == "length"
    assert (end["edge_agent"]["decision_id"], end["edge_agent"]["route"], end["edge_agent"]["persisted"]) == (None, None, False)
    assert not [name for name in reply.headers if name.startswith("x-edge-")]


def test_one_word_without_a_limit_is_told_the_same(client: httpx.Client) -> None:
    assert "multiple-choice" in content(chat(client, "hi"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What is the capital of France?", "no options"),
        ("Paris?", "no options"),
        ("Is it plan A) or plan B)?", "may have options"),
        ("What is 2 + 2?\nA. 4", "2 to 26"),
        ("What is 2 + 2?\nA. 4\nC. 5", "lettered"),
        ("Which?\nA. x\nB. x", "same text"),
        ("", "empty"),
        (None, "empty"),
        ([], "empty"),
    ],
)
def test_text_that_is_no_question_is_refused_in_a_sentence(client: httpx.Client, text: Any, words: str) -> None:
    error = refused(chat(client, text))
    assert words in error["message"] and error["code"] == "invalid_question"


@pytest.mark.parametrize("kind", ["image_url", "input_image", "input_audio", "file"])
def test_part_that_is_no_text_is_refused_by_name(client: httpx.Client, kind: str) -> None:
    error = refused(chat(client, [{"type": "text", "text": SURE}, {"type": kind, kind: {"url": "data:,"}}]))
    assert kind in error["message"] and error["param"] == "messages.0.content.1"


def test_part_without_its_text_is_refused_with_the_reason(client: httpx.Client) -> None:
    error = refused(chat(client, [{"type": "text", "text": None}]))
    assert "without a text" in error["message"] and error["param"] == "messages.0.content.0"


def test_question_over_two_messages_is_refused_with_the_reason(client: httpx.Client) -> None:
    stem, _, options = SURE.partition("\n")
    for first, last in ((stem, options), (options, stem)):
        turns = [{"role": "user", "content": first}, {"role": "user", "content": last}]
        error = refused(client.post(COMPLETIONS, json={"model": "edge-auto", "messages": turns}))
        assert "Only the last message" in error["message"] and error["param"] == "messages.1.content"


def test_one_word_is_no_answer_in_json(client: httpx.Client) -> None:
    refused(chat(client, "hi", max_tokens=3, response_format={"type": "json_object"}))


@pytest.mark.parametrize(
    "text", ["a" + " " * 60_000 + "?", "Confidence:" * 5400, "(" * 60_000, "A) " * 20_000, "a. " * 20_000, "1 " * 30_000]
)
def test_long_text_is_read_in_a_moment(text: str) -> None:
    messages = [ChatMessage(role="system", content=text), ChatMessage(role="user", content=text)]
    begin = time.process_time()
    with pytest.raises(Refusal):
        wanted(messages, "messages", None, CHOICE, most_tokens=None)
    assert time.process_time() - begin < 1.0


def test_model_that_answers_in_its_own_words_gets_the_whole_text() -> None:
    for text in ("hi", "Why is the sky blue?", SURE):
        found = wanted([ChatMessage(role="user", content=text)], "messages", None, OPEN, most_tokens=3)
        assert found.question is not None and (found.question.stem, found.question.options) == (text, ())


# Wrong parameters

WRONG: list[tuple[str, Any]] = [
    ("n", 2), ("n", 0), ("n", -1), ("n", 1.5), ("n", True), ("n", 10**30),
    ("temperature", -0.1), ("temperature", 2.1), ("temperature", "0.5"), ("temperature", True), ("temperature", 1e308), ("temperature", []),
    ("top_p", 1.01), ("top_p", -1), ("max_tokens", 0), ("max_tokens", -5), ("max_tokens", 10**12), ("max_tokens", "3"),
    ("max_completion_tokens", -2), ("max_tokens", -1.0), ("presence_penalty", 3), ("frequency_penalty", -3), ("seed", 2**63),
    ("seed", 1.5), ("logprobs", "yes"),
    ("logit_bias", {"1": 101}), ("logit_bias", [1]), ("stop", 5), ("stop", [5]), ("stream", "yes"), ("stream", 1), ("stream_options", 3),
    ("stream_options", {"include_usage": 1}), ("tools", {}), ("tools", ["x"]), ("tool_choice", "required"), ("tool_choice", 5),
    ("tool_choice", {"type": "function", "function": {"name": "x"}}), ("function_call", {"name": "x"}), ("modalities", ["audio"]),
    ("response_format", "json"), ("response_format", {"type": "xml"}), ("response_format", {"type": "json_schema"}),
    ("response_format", {"type": []}),
    ("metadata", []), ("model", 5), ("model", ["edge-auto"]), ("messages", []), ("messages", {}), ("messages", None), ("messages", [5]),
    ("messages", [{"content": SURE}]), ("messages", [{"role": "bot", "content": SURE}]), ("messages", [{"role": "user", "content": 5}]),
    ("messages", [{"role": "user", "content": {}}]), ("messages", [{"role": "user", "content": [{"text": SURE}]}]),
    ("messages", [{"role": "system", "content": SURE}]), ("edge_agent", []),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG, ids=[f"{name}={json.dumps(value)[:40]}" for name, value in WRONG])
def test_wrong_parameter_is_refused_by_name(client: httpx.Client, name: str, value: Any) -> None:
    error = refused(chat(client, SURE, **{name: value}))
    assert error["param"].split(".")[0] == name and error["type"] == "invalid_request_error" and len(error["message"]) < 500


def test_no_limit_may_be_said_as_minus_one(client: httpx.Client) -> None:
    assert content(chat(client, SURE, max_tokens=-1, max_completion_tokens=-1, temperature=0.7, stream=False)) == "B. 19"


def test_top_logprobs_need_logprobs(client: httpx.Client) -> None:
    assert refused(chat(client, SURE, top_logprobs=2))["param"] == "top_logprobs"
    assert refused(chat(client, SURE, logprobs=True, top_logprobs=21))["param"] == "top_logprobs"


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'"x"', b"{", b'{"messages": NaN}', b'{"messages": [{"role": "user", "content": "\\ud800"}]}']
)
def test_body_that_is_no_request_is_refused(client: httpx.Client, body: bytes) -> None:
    refused(client.post(COMPLETIONS, content=body, headers={"Content-Type": "application/json"}))


def test_text_of_strangers_comes_back_as_data(client: httpx.Client) -> None:
    text = "Which is markup?\nA. <script>alert(1)</script>\nB. \x1b[31mred\x1b[0m\nC. <|im_end|>"
    reply = chat(client, text)
    assert content(reply).split(". ", 1)[1] in text and reply.headers["content-type"] == "application/json"


# Without a cloud that answers


def test_provisional_and_failed_answers_say_so(tmp_path: pathlib.Path) -> None:
    with serving(tmp_path / "home", "--cloud-url", "http://127.0.0.1:1/v1", "--cloud-model", "large") as server, server.client() as client:
        reply = chat(client, UNSURE)
        found = reply.json()["edge_agent"]
        assert (found["route"], found["reason"], found["provisional"]) == ("local", "offline", True)
        assert reply.headers["X-Edge-Queue-Id"] == str(found["queue_id"]) and reply.headers["X-Edge-Provisional"] == "true"
        error = refused(chat(client, UNSURE, model="edge-cloud"), 502)
        assert (error["code"], error["type"]) == ("cloud_unavailable", "server_error")


def test_probability_of_a_typed_cloud_is_no_level_of_a_foggen_model(tmp_path: pathlib.Path) -> None:
    with serving(tmp_path / "far") as far:
        cloud = {"EDGE_AGENT_CLOUD_URL": f"{far.url}/v1", "EDGE_AGENT_CLOUD_MODEL": "edge-local"}
        (tmp_path / "near").mkdir()
        (tmp_path / "near" / "config.toml").write_text('cloud_api = "systemone"')
        with serving(tmp_path / "near", "--tau", "1", environment=cloud) as near, near.client() as client:
            turns = [{"role": "system", "content": OWN_FORMAT}, {"role": "user", "content": UNSURE}]
            reply = client.post(COMPLETIONS, json={"model": "edge-auto", "messages": turns})
            plain = chat(client, UNSURE, response_format={"type": "json_object"})
    found = reply.json()["edge_agent"]
    assert found["route"] == "cloud" and content(reply) == f"Final answer: {found['answer']}"
    assert reply.headers["X-Edge-Confidence"] == str(found["confidence"])
    assert float(reply.headers["X-Edge-Cloud-Confidence"]) == found["cloud_confidence"] != found["confidence"]
    assert json.loads(content(plain))["confidence"] == round(found["cloud_confidence"], 6)
