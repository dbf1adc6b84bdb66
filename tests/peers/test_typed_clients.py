"""Clients that others wrote, untouched, against a real server: typesafe-sdk, pydantic-ai, openai, langchain-openai and curl.

All four routes are seen: local, cloud (a chat cloud, and a second server of ours with typed decisions), provisional and recalled; and
an error, in each client's own class.
"""

import asyncio
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Literal

import httpx2
import openai
import pytest
import typesafe_sdk
from langchain_openai.decisions import Choice as LangChoice
from langchain_openai.decisions import OpenAIDecisions
from langchain_openai.decisions import Predicate as LangPredicate
from langchain_openai.decisions import Score as LangScore
from pydantic import BaseModel, Field
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.system_one import SystemOneModel
from pydantic_ai.providers.system_one import SystemOneProvider
from typesafe_sdk import AsyncTypeSafeClient, Choice, Noul, Score, TypeSafeClient

from tests.support.cloud_server import LoopbackCloud
from tests.support.serving import Serving, serving, token_file

TOKEN = "a-token-of-this-test-0123456789"  # of a server on loopback
STATE = "I was charged twice for my March invoice. Please refund me today."
QUESTIONS = {
    "refund": Noul(instructions="Is the customer asking for money back?"),
    "team": Choice(instructions="Which team?", criteria={"Billing": "Payments and invoices", "Technical": ["bugs"], "Sales": None}),
    "anger": Score(instructions="How angry is the customer?", criteria=["Calm", {"label": "Cross"}, "Furious"]),
}
LISTED: list[Any] = [
    {"type": "predicate", "name": "refund", "instructions": "The customer asks for money back."},
    {"type": "choice", "instructions": "Is it urgent?", "choices": [{"value": True}, {"value": "true"}, {"value": False}]},
    {"type": "score", "name": "anger", "instructions": "How angry?", "levels": [{"label": "Calm"}, {"label": "Furious"}]},
]


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy stands between these clients and loopback."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "*")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("clients")
    with serving(home / "edge", "--token-file", token_file(home / "token", TOKEN)) as running:
        yield running


def check_system_one(found: typesafe_sdk.SystemOneResponse) -> None:
    team, anger = found.choices["team"], found.scores["anger"]
    assert team.choice == max(team.probabilities, key=team.probabilities.__getitem__) and set(team.probabilities) == {
        "Billing",
        "Technical",
        "Sales",
    }
    assert 0 <= found.nouls["refund"].noul <= 1 and anger.legend[1] == {"label": "Cross"} and 0 <= anger.score <= 2


def test_typesafe_sdk(server: Serving) -> None:
    with TypeSafeClient(api_key=TOKEN, base_url=server.url) as client:
        found = client.system_one(state=STATE, questions=QUESTIONS)
        check_system_one(found)
        again = client.system_one(state={"ticket": [STATE]}, questions=QUESTIONS, model="edge-local")
        assert any(model.name == "jev-latest" for model in client.models.list().models)
    assert found.usage.input_tokens and found.usage.output_tokens == 6
    assert again.raw_http_response.json()["answers"]["team"]["x_edge_agent"]["reason"] == "only_local"


def test_typesafe_sdk_compresses_a_long_state(server: Serving) -> None:
    assert importlib.util.find_spec("backports.zstd") or sys.version_info >= (3, 14), "without zstd the SDK sends bodies as they are"
    with TypeSafeClient(api_key=TOKEN, base_url=server.url) as client:
        found = client.system_one(state=f"{STATE} " * 25, questions=QUESTIONS)
        again = client.system_one(state=f"{STATE} " * 25, questions=QUESTIONS)
    check_system_one(found)
    assert again.raw_http_response.request.headers["content-encoding"] == "zstd" and again.answers == found.answers


def test_typesafe_sdk_async(server: Serving) -> None:
    async def ask() -> typesafe_sdk.SystemOneResponse:
        async with AsyncTypeSafeClient(api_key=TOKEN, base_url=server.url) as client:
            one, two = await asyncio.gather(*(client.system_one(state=STATE, questions=QUESTIONS) for _ in range(2)))
            assert one.answers == two.answers
            return one

    check_system_one(asyncio.run(ask()))


def test_typesafe_sdk_understands_our_errors(server: Serving) -> None:
    never_again = typesafe_sdk.RetryPolicy(max_retries=0)
    with TypeSafeClient(api_key=TOKEN, base_url=server.url, retry=never_again) as client:
        with pytest.raises(typesafe_sdk.TypeSafeNotFoundError, match="does not exist"):
            client.system_one(state=STATE, questions=QUESTIONS, model="gpt-6-luna")
        with pytest.raises(typesafe_sdk.TypeSafeUnprocessableEntityError, match="tokens"):
            client.system_one(state="word " * 5000, questions=QUESTIONS)
        with pytest.raises(typesafe_sdk.TypeSafeAPIError, match=r"415 .* as application/json"):
            client.system_one(state=typesafe_sdk.Image(b"\x89PNG\r\n\x1a\n" + bytes(40)), questions=QUESTIONS)
    wrong = TypeSafeClient(api_key="not-the-token-of-this-server", base_url=server.url, retry=never_again)
    with wrong, pytest.raises(typesafe_sdk.TypeSafeAuthenticationError, match="token"):
        wrong.system_one(state=STATE, questions=QUESTIONS)


class Handling(BaseModel):
    """How a ticket is handled."""

    team: Literal["Billing", "Technical", "Sales"] = Field(description="Which team should handle this ticket?")
    urgent: bool = Field(description="Does the customer need an answer today?")


def decide(model: SystemOneModel | str, output_type: Any, asked: str) -> Any:
    """What pydantic-ai makes of one question."""

    async def ask() -> Any:
        async with PydanticAgent(model, output_type=output_type) as agent:
            return (await agent.run(asked)).output

    return asyncio.run(ask())


def test_pydantic_ai_decides_a_whole_type(server: Serving) -> None:
    model = SystemOneModel("jev-latest", provider=SystemOneProvider(base_url=f"{server.url}/v1", api_key=TOKEN))
    found = decide(model, Handling, STATE)
    assert found.team in ("Billing", "Technical", "Sales") and isinstance(found.urgent, bool)
    refused = SystemOneModel("gpt-6-luna", provider=SystemOneProvider(base_url=server.url, api_key=TOKEN))
    with pytest.raises(ModelHTTPError, match="404"):
        decide(refused, Handling, STATE)


def test_pydantic_ai_finds_the_server_by_its_environment(server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYSTEM_ONE_BASE_URL", server.url)
    monkeypatch.setenv("SYSTEM_ONE_API_KEY", TOKEN)
    assert decide("system-one:edge-auto", Handling, STATE).team in ("Billing", "Technical", "Sales")


def check_decisions(found: Any) -> None:
    predicate, choice, score = found.answers
    assert (predicate.type, predicate.name, choice.name, score.name) == ("predicate", "refund", None, "anger")
    best = max(choice.probabilities, key=lambda one: one.probability)
    assert [one.value for one in choice.probabilities] == [True, "true", False] and choice.choice == best.value
    assert type(choice.choice) is type(best.value) and 0 <= score.score <= 1
    assert found.usage.total_tokens == found.usage.input_tokens + found.usage.output_tokens
    assert choice.x_edge_agent["answered_by"] == "device"


def test_openai_decisions(server: Serving) -> None:
    with openai.OpenAI(api_key=TOKEN, base_url=f"{server.url}/v1", max_retries=0) as client:
        check_decisions(client.decisions.create(model="edge-auto", input=STATE, questions=LISTED))
        raw = client.decisions.with_raw_response.create(
            model="edge-auto", input=[{"role": "user", "content": STATE}], questions=LISTED[:1], prompt_cache_key="k"
        )
        assert raw.headers["X-Edge-Recalled"] == "true" and raw.headers["X-Edge-Route"] == "local"
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            client.decisions.create(model="gpt-6-luna", input=STATE, questions=LISTED)
        with pytest.raises(openai.BadRequestError, match="tokens") as long:
            client.decisions.create(model="edge-auto", input="word " * 5000, questions=LISTED)
        assert long.value.code == "invalid_question"
    with openai.OpenAI(api_key="wrong", base_url=f"{server.url}/v1", max_retries=0) as wrong, pytest.raises(openai.AuthenticationError):
        wrong.decisions.create(model="edge-auto", input=STATE, questions=LISTED)


def test_openai_decisions_async(server: Serving) -> None:
    async def ask() -> None:
        async with openai.AsyncOpenAI(api_key=TOKEN, base_url=f"{server.url}/v1") as client:
            check_decisions(await client.decisions.create(model="edge-auto", input=STATE, questions=LISTED))

    asyncio.run(ask())


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
def test_langchain_openai_decisions(server: Serving) -> None:
    found = OpenAIDecisions(model="edge-auto", api_key=TOKEN, base_url=f"{server.url}/v1").invoke(
        {
            "input": STATE,
            "questions": {
                "team": LangChoice(instructions="Which team?", choices={"billing": "Payments", "technical": "Bugs"}),
                "urgent": LangPredicate(instructions="Is it urgent?"),
                "anger": LangScore(instructions="How angry?", levels=["Calm", "Cross", "Angry"]),
            },
        }
    )
    assert found.choices["team"].choice in ("billing", "technical") and 0 <= found.predicates["urgent"].probability <= 1
    assert 0 <= found.scores["anger"].score <= 2


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(server: Serving) -> None:
    asked = {"model": "edge-auto", "state": STATE, "questions": {"team": {"type": "choice", "criteria": {"a": None, "b": None}}}}
    command = ["curl", "-sS", "-i", f"{server.url}/v1/systemone", "-H", f"Authorization: Bearer {TOKEN}", "--json", json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    head, _, data = done.stdout.partition("\n\n")
    assert " 200 " in head.splitlines()[0] and "x-edge-decision-id: " in head.lower()
    assert json.loads(data)["answers"]["team"]["choice"] in ("a", "b")


def test_unsure_answers_show_the_route_they_took(tmp_path_factory: pytest.TempPathFactory, cloud: LoopbackCloud) -> None:
    cloud.reply = lambda body: "C"
    home = tmp_path_factory.mktemp("routes")
    chat = {"cloud_url": cloud.url, "cloud_model": "big", "cloud_api": "chat"}
    with serving(home / "cloud", "--tau", "0") as second:
        typed = {"cloud_url": f"{second.url}/v1", "cloud_model": "edge-local", "cloud_api": "decisions"}
        gone = {**chat, "cloud_url": "http://127.0.0.1:9/v1"}
        shown = {}
        for name, chosen in {"chat": chat, "typed": typed, "gone": gone}.items():
            (home / name).mkdir()
            (home / name / "config.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in chosen.items()))
            with serving(home / name) as server:
                shown[name] = [own(server), own(server)]
    fields = ("route", "answered_by", "provisional", "recalled")
    assert [tuple(one[field] for field in fields) for one in shown["chat"]] == [
        ("cloud", "device", True, recalled) for recalled in (False, True)
    ]
    assert shown["chat"][0]["cloud"]["choice"] == "Sales" and shown["chat"][0]["cloud_confidence"] is None
    assert [tuple(one[field] for field in fields) for one in shown["typed"]] == [
        ("cloud", "cloud", False, recalled) for recalled in (False, True)
    ]
    assert 0 < shown["typed"][0]["cloud_confidence"] <= 1
    assert [tuple(one[field] for field in fields[:3]) for one in shown["gone"]] == [("local", "device", True)] * 2
    assert shown["gone"][0]["queue_id"] == shown["gone"][1]["queue_id"] is not None


def own(server: Serving) -> dict[str, Any]:
    """What FogGen says beside the answer to a question that the device may not keep: tau 1, and a model that is never that sure of it."""
    with TypeSafeClient(api_key="any-key-is-fine", base_url=server.url) as client:
        found = client.system_one(state="Nobody knows.", questions={"team": QUESTIONS["team"]}, model="edge-auto-1")
    assert isinstance(found.raw_http_response, httpx2.Response)
    answer: dict[str, Any] = found.raw_http_response.json()["answers"]["team"]["x_edge_agent"]
    assert answer["deferred"], answer
    return answer
