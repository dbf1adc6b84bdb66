"""Typed decisions with peers that nobody here wrote: jevcompat's server with its faults, and the types of OpenAI's SDK."""

import random

import pytest
from jevcompat.mock import FAULTS, MockConfig, Running, validate_request
from openai.types import Decision
from openai.types.decision_create_params import DecisionCreateParams
from pydantic import TypeAdapter

from edge_agent.cloud.wire.client import CloudModel
from edge_agent.cloud.wire.typed.request import typed_body
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import LETTERS, Question
from tests.support import typed_cloud

NO_ANSWER = {  # what a fault makes of a reply to our question
    "wrong-route": CloudKind.MISCONFIGURED, "xssi-200": CloudKind.PORTAL, "reject-jev-latest": CloudKind.MISCONFIGURED,
    "no-null-description": CloudKind.REJECTED, "choice-key-case": CloudKind.UNUSABLE, "choice-sum": CloudKind.UNUSABLE,
    "choice-second": CloudKind.UNUSABLE,
}  # fmt: skip
OPTIONS = ("Алматы", "Astana", 'the city\'s name: "Нұр"', "42", "true", "C", "  x  ")


def question(n: int, rng: random.Random) -> Question:
    return Question(f"Question {rng.random()}?", tuple(f"{rng.choice(OPTIONS).strip()} N{number}" for number in range(n)))


def ask(url: str, asked: Question, key: str | None = None) -> CloudOutcome:
    return CloudModel(f"{url}/v1", "jev-latest", key, deadline_s=10, api="systemone").ask(asked)


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_jevcompats_server_is_read_right_with_each_of_its_faults(fault: str | None) -> None:
    rng = random.Random(1)
    with Running(MockConfig(faults=frozenset({fault} if fault else ()))) as server:
        for n in (2, 3, 26):
            asked = question(n, rng)
            outcome = ask(server.url, asked)
            expected = NO_ANSWER.get(fault or "", CloudKind.ANSWERED)
            assert outcome.kind is expected, (fault, n, outcome.error)
            if outcome.answer:
                assert outcome.answer.probs and list(outcome.answer.probs) == list(LETTERS[:n])
                assert sum(outcome.answer.probs.values()) == pytest.approx(1) and outcome.answer.reply in asked.options


@pytest.mark.parametrize(("key", "kind"), [("right", CloudKind.ANSWERED), ("wrong", CloudKind.REFUSED), (None, CloudKind.REFUSED)])
def test_jevcompats_server_with_a_key(key: str | None, kind: CloudKind) -> None:
    with Running(MockConfig(key="right")) as server:
        outcome = ask(server.url, Question("Q?", ("x", "y")), key)
        assert outcome.kind is kind and not outcome.doubtful


def test_busy_server_is_left_alone_for_a_while() -> None:
    with Running(MockConfig(busy_every=1)) as server:
        outcome = ask(server.url, Question("Q?", ("x", "y")))
        assert outcome.kind is CloudKind.LIMITED and outcome.retry_after_s == 1.0


def test_requests_have_the_forms_that_the_peers_describe() -> None:
    rng = random.Random(2)
    for n in (2, 7, 26):
        asked = question(n, rng)
        assert validate_request(typed_body(asked, "jev-latest", "systemone"), MockConfig()) == []
        body = typed_body(asked, "gpt-6-luna", "decisions")
        TypeAdapter(DecisionCreateParams).validate_python(body)


def test_replies_of_our_test_server_have_the_form_of_openais() -> None:
    """The other tests rest on that server."""
    decision = Decision.model_validate(typed_cloud.decisions({"x": 0.49, "y": 0.51}), strict=True)
    assert decision.answers[0].type == "choice" and decision.usage.total_tokens == 42
    assert Decision.model_validate(typed_cloud.refused(), strict=True).answers[0].type == "refusal"
