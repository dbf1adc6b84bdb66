"""Chat clients that others wrote, untouched, against a real server: openai, llm, LiteLLM, LangChain, curl, Home Assistant's set-up."""

import asyncio
import json
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import httpx
import pytest
from pydantic import BaseModel

from tests.support.chatting import SURE, UNSURE
from tests.support.cloud_server import LoopbackCloud
from tests.support.serving import Serving, serving, token_file

openai = pytest.importorskip("openai")

TURN = [{"role": "user", "content": SURE}]
UNSURE_TURN = [{"role": "user", "content": UNSURE}]
TOKEN = "0123456789abcdef0123456789abcdef"
TOOLS = [{"type": "function", "function": {"name": "test_function", "parameters": {"type": "object", "properties": {}}}}]


class Judged(BaseModel):
    """What somebody who wants JSON writes."""

    answer: Literal["A", "B", "C"]
    confidence: float


@pytest.fixture(scope="module")
def remote() -> Iterator[LoopbackCloud]:
    cloud = LoopbackCloud()
    cloud.reply = lambda body: "C"
    yield cloud
    cloud.stop()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, remote: LoopbackCloud) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("clients"), "--cloud-url", remote.url, "--cloud-model", "large") as server:
        yield server


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting of the machine reaches a client, and a call that would leave loopback meets a proxy that counts it."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("OPENAI_", "LANGCHAIN_", "LANGSMITH_", "LITELLM_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # otherwise it fetches a list of prices when it is imported
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.setblocking(False)
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        yield
        with pytest.raises(BlockingIOError):  # nobody came
            proxy.accept()


@pytest.fixture
def client(running: Serving) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none") as found:
        yield found


# openai


def test_openai_chat_on_every_route(client: Any) -> None:
    fresh = {"edge_agent": {"refresh": True}}
    local = client.chat.completions.create(model="edge-auto", messages=TURN, extra_body=fresh)
    cloud = client.chat.completions.create(model="edge-auto", messages=UNSURE_TURN, extra_body=fresh)
    recalled = client.chat.completions.create(model="edge-auto", messages=UNSURE_TURN)
    contents = [(found.choices[0].message.content, found.edge_agent["route"]) for found in (local, cloud, recalled)]
    assert contents == [("B. 19", "local"), ("C. 2011", "cloud"), ("C. 2011", "cloud")]
    read_here = cloud.edge_agent["timings"]["n_prompt_tokens"]  # before the cloud was asked, which counted 9 and 1
    assert (cloud.usage.prompt_tokens, recalled.usage.total_tokens) == (read_here + 9, 0) and local.usage.prompt_tokens > 0
    assert recalled.edge_agent["recalled"] and not cloud.edge_agent["recalled"]


def test_openai_headers_of_the_raw_response_say_the_route(client: Any) -> None:
    raw = client.chat.completions.with_raw_response.create(model="edge-local", messages=UNSURE_TURN)
    assert raw.headers["X-Edge-Route"] == "local" and raw.parse().edge_agent["decision_id"] == raw.headers["X-Edge-Decision-Id"]


def test_openai_stream_and_its_accumulator(client: Any) -> None:
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="edge-auto", messages=TURN, stream=True, stream_options=options))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "B. 19"
    assert chunks[-1].usage and not chunks[-1].choices and chunks[-2].edge_agent["answer"] == "B"
    with client.chat.completions.stream(model="edge-auto", messages=TURN) as stream:
        assert stream.get_final_completion().choices[0].message.content == "B. 19"


def test_openai_async_clients(running: Serving) -> None:
    async def ask() -> tuple[str, str, str]:
        async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none") as client:
            whole, stream, response = await asyncio.gather(
                client.chat.completions.create(model="edge-auto", messages=TURN),
                client.chat.completions.create(model="edge-auto", messages=TURN, stream=True),
                client.responses.create(model="edge-auto", input=SURE),
            )
            return whole.choices[0].message.content, await joined(stream), response.output_text

    async def joined(stream: AsyncIterator[Any]) -> str:
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(ask()) == ("B. 19",) * 3


def test_openai_parse_fills_a_pydantic_model(client: Any) -> None:
    found = client.chat.completions.parse(model="edge-auto", messages=TURN, response_format=Judged)
    assert found.choices[0].message.parsed == Judged(answer="B", confidence=1.0)
    assert client.responses.parse(model="edge-auto", input=SURE, text_format=Judged).output_parsed == Judged(answer="B", confidence=1.0)


def test_openai_responses_whole_and_streamed(client: Any) -> None:
    assert client.responses.create(model="edge-auto", input=SURE, instructions="Be brief.").output_text == "B. 19"
    kinds = [event.type for event in client.responses.create(model="edge-auto", input=SURE, stream=True)]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    with client.responses.stream(model="edge-auto", input=UNSURE) as stream:
        final = stream.get_final_response()
    assert final.output_text == "C. 2011" and final.edge_agent["route"] == "cloud" and final.usage is not None


def test_openai_models(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["edge-auto", "edge-local", "edge-cloud"]
    assert client.models.retrieve("edge-auto-0.75").id == "edge-auto-0.75"


def test_openai_errors_are_those_of_the_sdk(client: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="no options"):
        client.chat.completions.create(model="edge-auto", messages=[{"role": "user", "content": "Why is the sky blue?"}])
    with pytest.raises(openai.BadRequestError, match="tool_choice"):
        client.chat.completions.create(model="edge-auto", messages=TURN, tools=TOOLS, tool_choice="required")
    with pytest.raises(openai.BadRequestError, match="n is 2"):
        client.chat.completions.create(model="edge-auto", messages=TURN, n=2)
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model="gpt-4o", messages=TURN, stream=True)
    assert (error.value.code, error.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_openai_without_a_cloud_gets_a_provisional_answer_or_an_error(tmp_path: pathlib.Path) -> None:
    with serving(tmp_path / "home", "--cloud-url", "http://127.0.0.1:1/v1", "--cloud-model", "large") as server:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=1) as client:
            found = client.chat.completions.create(model="edge-auto", messages=UNSURE_TURN)
            assert found.edge_agent["provisional"] and found.edge_agent["queue_id"] is not None
            with pytest.raises(openai.InternalServerError, match="only_cloud"):
                client.chat.completions.create(model="edge-cloud", messages=UNSURE_TURN)


def test_openai_key_is_the_token(tmp_path: pathlib.Path) -> None:
    with serving(tmp_path / "home", "--token-file", token_file(tmp_path / "token", TOKEN)) as server:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key=TOKEN) as client:
            assert client.models.list().data
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model="edge-auto", messages=TURN)


# llm


def test_llm_asks_through_its_extra_models(running: Serving, tmp_path: pathlib.Path) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(f'- model_id: edge\n  model_name: edge-auto\n  api_base: "{running.url}/v1"\n')
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path), "LLM_LOAD_PLUGINS": ""}

    def llm(*arguments: str) -> str:
        command = [sys.executable, "-m", "llm", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert llm("-m", "edge", SURE) == "B. 19"
    assert llm("-m", "edge", "--no-stream", "-s", "Be brief.", "-o", "temperature", "0.5", SURE) == "B. 19"
    assert llm("-m", "edge", "--no-stream", UNSURE) == "C. 2011"


# LiteLLM


def test_litellm_completes_streams_and_awaits(running: Serving) -> None:
    program = f"""
import asyncio, litellm
litellm.telemetry = False
litellm.suppress_debug_info = True
asked = dict(model="openai/edge-auto", api_base="{running.url}/v1", api_key="none", messages={TURN!r})
print(litellm.completion(**asked, temperature=0.2).choices[0].message.content)
print("".join(chunk.choices[0].delta.content or "" for chunk in litellm.completion(**asked, stream=True)))
print(asyncio.run(litellm.acompletion(**asked)).choices[0].message.content)
try:
    litellm.completion(**{{**asked, "model": "openai/gpt-4o"}}, num_retries=0)
except litellm.NotFoundError as error:
    print("not found")
try:
    litellm.completion(**{{**asked, "messages": [{{"role": "user", "content": "Why is the sky blue?"}}]}})
except litellm.BadRequestError as error:
    print("no options" in str(error))
"""
    done = subprocess.run([sys.executable, "-c", program], env=dict(os.environ), capture_output=True, text=True, timeout=180, check=False)
    assert done.stdout.split("\n")[:5] == ["B. 19"] * 3 + ["not found", "True"], done.stdout + done.stderr


# LangChain


def test_langchain_invokes_streams_and_fills_a_model(running: Serving) -> None:
    langchain = pytest.importorskip("langchain_openai")
    model = langchain.ChatOpenAI(model="edge-auto", base_url=f"{running.url}/v1", api_key="none", temperature=0)
    assert model.invoke(SURE).content == "B. 19"
    assert "".join(chunk.content for chunk in model.stream(SURE)) == "B. 19"
    assert model.with_structured_output(Judged, method="json_schema").invoke(SURE) == Judged(answer="B", confidence=1.0)
    assert model.with_structured_output(Judged, method="json_mode").invoke(SURE) == Judged(answer="B", confidence=1.0)
    with pytest.raises(openai.BadRequestError, match="json_schema"):
        model.with_structured_output(Judged, method="function_calling").invoke(SURE)

    async def awaited() -> Any:
        async with httpx.AsyncClient(trust_env=False) as transport:
            own = langchain.ChatOpenAI(model="edge-auto", base_url=f"{running.url}/v1", api_key="none", http_async_client=transport)
            return (await own.ainvoke(UNSURE)).content

    assert asyncio.run(awaited()) == "C. 2011"
    through_responses = langchain.ChatOpenAI(model="edge-auto", base_url=f"{running.url}/v1", api_key="none", use_responses_api=True)
    assert through_responses.invoke(SURE).text == "B. 19"


# curl


def test_curl_asks_and_streams_with_an_empty_key(running: Serving) -> None:
    def curl(body: dict[str, Any]) -> str:
        command = ["curl", "-sS", "--noproxy", "*", "-H", "Content-Type: application/json", "-H", "Authorization: Bearer "]
        command += ["-d", json.dumps(body), f"{running.url}/v1/chat/completions"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    assert json.loads(curl({"model": "edge-auto", "messages": TURN}))["choices"][0]["message"]["content"] == "B. 19"
    assert curl({"model": "edge-auto", "messages": TURN, "stream": True}).endswith("data: [DONE]\n\n")


# Home Assistant


def test_set_up_of_home_assistants_llama_cpp_integration_passes(running: Serving) -> None:
    """What https://github.com/home-assistant/core/blob/80640ba485cd690babcdd9f7d50ec74e3674f7bf/homeassistant/components/llama_cpp/api.py
    does: list the models, then try a completion with tools and a tiny limit, plain and streamed; then its entity asks for real.
    """
    probe = {
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "What is the capital of France?"},
        ],
        "tools": TOOLS,
        "max_tokens": 3,
    }
    question = [{"role": "system", "content": "You are a voice assistant."}, *TURN]

    async def set_up() -> str:
        async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="sk-no-key-required") as client:
            page = await client.with_options(timeout=10.0).models.list()
            model = [model.id async for model in page][0]  # noqa: RUF015  # the page is read to its end, as there
            plain = await client.chat.completions.create(model=model, **probe, stream=False)
            assert plain.choices[0].message.role == "assistant" and plain.choices[0].finish_reason == "length"
            ends = [
                event.choices[0].finish_reason async for event in await client.chat.completions.create(model=model, **probe, stream=True)
            ]
            assert ends[-1] == "length" and not any(ends[:-1])
            stream = await client.chat.completions.create(
                model=model, messages=question, tools=TOOLS, max_tokens=3000, top_p=1.0, temperature=1.0, user="conversation", stream=True
            )
            return "".join([event.choices[0].delta.content or "" async for event in stream if event.choices])

    assert asyncio.run(set_up()) == "B. 19"
