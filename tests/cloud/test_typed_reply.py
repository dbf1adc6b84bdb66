"""What a reply to a typed decision means, whoever wrote it and whatever is wrong with it."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.cloud.wire.typed.reply import SUM_OFF, read_typed_reply
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import LETTERS, Question
from edge_agent.core.records import CloudAnswer
from tests.support import typed_cloud
from tests.support.paths import ROOT

TEAM = Question("My card was charged twice for one order. Which team?", ("billing", "shipping", "security"))
PAIR = Question("What is 2 + 2?", ("3", "4"))
DOCUMENTED = [json.loads(line) for line in (ROOT / "tests" / "data" / "typed-replies.jsonl").read_text().splitlines()]
APIS = ("systemone", "decisions")
MADE = {"systemone": typed_cloud.systemone, "decisions": typed_cloud.decisions}


def read(payload: Any, question: Question = PAIR, api: str = "systemone", status: int = 200, key: str | None = None) -> CloudOutcome:
    data = payload if isinstance(payload, bytes) else payload.encode() if isinstance(payload, str) else json.dumps(payload).encode()
    return read_typed_reply(status, {"Content-Type": "application/json"}, data, question, api, "big", 12.5, key)


@pytest.mark.parametrize("found", DOCUMENTED, ids=lambda found: f"{found['status']} {found['source'][:60]}")
def test_documented_reply(found: dict[str, Any]) -> None:
    outcome = read(found["body"], TEAM, found["api"], found["status"])
    assert outcome.kind == found["kind"], outcome.error
    assert outcome.no_api == found.get("no_api", outcome.no_api) and outcome.doubtful == found.get("doubtful", outcome.doubtful)
    assert found.get("words", "") in (outcome.error or "")
    if "letter" in found:
        answer = outcome.answer
        assert answer and answer.answer == found["letter"] and answer.probs is not None
        assert list(answer.probs) == ["A", "B", "C"] and list(answer.probs.values()) == pytest.approx(found["probs"], abs=1e-6)
        assert [answer.n_prompt_tokens, answer.n_completion_tokens] == found["tokens"] and answer.api == found["api"]
        assert answer.reply == TEAM.options[LETTERS.index(found["letter"])]


@pytest.mark.parametrize("api", APIS)
def test_near_tie_is_kept_as_it_is(api: str) -> None:
    answer = read(MADE[api]({"3": 0.49, "4": 0.51}), api=api).answer
    assert answer and (answer.answer, answer.confidence, answer.probs) == ("B", 0.51, {"A": 0.49, "B": 0.51})


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    ("probabilities", "words"),
    [
        ({"3": 0.2}, "each option"),
        ({"3": 0.2, "4": 0.7, "5": 0.1}, "each option"),
        ({"3": 0.2, "five": 0.8}, "each option"),
        ({}, "each option"),
        ({"3": -0.2, "4": 1.2}, "0 to 1"),
        ({"3": "0.2", "4": 0.8}, "0 to 1"),
        ({"3": True, "4": 0}, "0 to 1"),
        ({"3": None, "4": 1.0}, "0 to 1"),
        ({"3": math.nan, "4": 1.0}, "0 to 1"),
        ({"3": math.inf, "4": 0.0}, "0 to 1"),
        ({"3": 10**400, "4": 0.0}, "0 to 1"),
        ({"3": [0.2], "4": {"p": 0.8}}, "0 to 1"),
        ({"3": 0.5, "4": 0.56}, "sum to 1.06"),
        ({"3": 0.45, "4": 0.49}, "sum to 0.94"),
        ({"3": 0, "4": 0}, "sum to 0.00"),
    ],
)
def test_distribution_that_is_none_makes_no_answer(api: str, probabilities: dict[str, Any], words: str) -> None:
    outcome = read(made(api, probabilities, "4"), api=api)
    assert outcome.kind is CloudKind.UNUSABLE and words in str(outcome.error) and outcome.answer is None


def made(api: str, probabilities: dict[str, Any], choice: Any) -> dict[str, Any]:
    """A reply with these probabilities, sound or not."""
    listed = probabilities if api == "systemone" else [{"value": name, "probability": p} for name, p in probabilities.items()]
    reply = MADE[api]({"3": 0.5, "4": 0.5})
    (reply["answers"]["answer"] if api == "systemone" else reply["answers"][0]).update(probabilities=listed, choice=choice)
    return reply


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("choice", ["3", "5", None, True, 4, ["4"], {"value": "4"}, "", "B", " 4"])
def test_choice_that_contradicts_the_distribution_makes_no_answer(api: str, choice: Any) -> None:
    assert read(made(api, {"3": 0.2, "4": 0.8}, choice), api=api).kind is CloudKind.UNUSABLE


@pytest.mark.parametrize("api", APIS)
def test_rounded_probabilities_are_sums_of_one_again(api: str) -> None:
    answer = read(made(api, {"3": 0.34, "4": 0.62}, "4"), api=api).answer
    assert answer and answer.probs == {"A": 0.34 / 0.96, "B": 0.62 / 0.96} and sum(answer.probs.values()) == pytest.approx(1)
    many = Question("Q", tuple(f"option {n}" for n in range(26)))
    shares = dict.fromkeys(many.options, 0.0) | {"option 7": 0.88}  # 25 options of 0.0048 each were rounded down
    answer = read(MADE[api](shares), many, api).answer
    assert answer and answer.answer == "H" and answer.confidence == 1.0


@pytest.mark.parametrize("reply", [
    b'{"answers": {"answer": {"type": "choice", "choice": "4", "probabilities": {"3": 0.5, "4": 0.5, "4": 0.5}}}}',
    b'{"answers": {"answer": {"type": "choice", "choice": "3", "choice": "4", "probabilities": {"3": 0.5, "4": 0.5}}}}',
    b'{"answers": {"answer": {}}, "answers": {"answer": {"type": "choice", "choice": "4", "probabilities": {"3": 0.5, "4": 0.5}}}}',
])  # fmt: skip
def test_key_that_occurs_twice_makes_no_answer(reply: bytes) -> None:
    assert read(reply).kind is CloudKind.UNUSABLE


def test_value_that_occurs_twice_makes_no_answer() -> None:
    reply = MADE["decisions"]({"3": 0.5, "4": 0.5})
    reply["answers"][0]["probabilities"] = [{"value": "4", "probability": 0.5}] * 2
    assert read(reply, api="decisions").kind is CloudKind.UNUSABLE
    reply = MADE["decisions"]({"3": 0.2, "4": 0.8})
    reply["answers"] *= 2
    assert read(reply, api="decisions").kind is CloudKind.UNUSABLE


def test_true_is_not_the_text_true() -> None:
    """Choice values of /v1/decisions are typed."""
    question = Question("Is it?", ("true", "false"))
    reply = MADE["decisions"]({"true": 0.8, "false": 0.2})
    assert read(reply, question, "decisions").answer
    reply["answers"][0].update(choice=True, probabilities=[{"value": True, "probability": 0.8}, {"value": False, "probability": 0.2}])
    assert read(reply, question, "decisions").kind is CloudKind.UNUSABLE


def test_names_are_the_same_in_every_normal_form_of_unicode() -> None:
    question = Question("Qui?", ("Zoé", "Léa"))
    answer = read(MADE["systemone"]({"Zoe\u0301": 0.9, "Le\u0301a": 0.1}), question).answer
    assert answer and answer.answer == "A"


def test_secret_that_a_reply_repeats_is_not_in_its_error() -> None:
    said = {"error": {"message": "the key sk-canary-4711-long is wrong", "code": "invalid_api_key"}}
    outcome = read(said, status=401, key="sk-canary-4711-long")
    assert outcome.kind is CloudKind.REFUSED and "canary" not in str(outcome.error)


@pytest.mark.parametrize("echo", [
    {"detail": [{"type": "missing", "loc": ["body"], "msg": "bad", "input": {"state": TEAM.stem}}]},
    {"error": {"message": f"cannot read {json.dumps({'state': TEAM.stem, 'criteria': {}})}"}},
    {"error": {"message": "bad: " + TEAM.stem}},
    {"error": {"message": """unexpected: {'instructions': 'W', 'criteria': {}}"""}},
])  # fmt: skip
def test_question_that_an_error_repeats_is_not_in_it(echo: dict[str, Any]) -> None:
    outcome = read(echo, TEAM, status=422)
    assert outcome.kind is CloudKind.REJECTED
    assert not any(word in str(outcome.error) for word in ("charged", "billing", "criteria"))


numbers = st.floats(allow_nan=True, allow_infinity=True) | st.integers() | st.booleans() | st.none() | st.text(max_size=5)
json_values = st.recursive(
    numbers,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["answer", "3", "4", "type", "x"]), inner),
    max_leaves=8,
)
parts = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["choice", "refusal", "noul"]) | json_values,
        "name": st.sampled_from(["answer", None]) | json_values,
        "choice": st.sampled_from(["3", "4"]) | json_values,
        "confidence": json_values,
        "probabilities": st.dictionaries(st.sampled_from(["3", "4", "5"]), numbers)
        | st.lists(
            st.fixed_dictionaries({}, optional={"value": st.sampled_from(["3", "4"]) | json_values, "probability": numbers}), max_size=3
        )
        | json_values,
    },
)
replies = st.fixed_dictionaries(
    {},
    optional={
        "answers": st.dictionaries(st.sampled_from(["answer", "q"]), parts | json_values)
        | st.lists(parts | json_values, max_size=2)
        | json_values,
        "usage": st.fixed_dictionaries({}, optional={"input_tokens": numbers, "output_tokens": numbers}) | json_values,
        "error": json_values,
        "detail": json_values,
    },
)


def check(outcome: CloudOutcome) -> None:
    """The invariants of every outcome."""
    assert outcome.kind in CloudKind and (outcome.answer is not None) == (outcome.kind is CloudKind.ANSWERED)
    if (answer := outcome.answer) is None:
        assert outcome.error
        return
    assert answer.probs and list(answer.probs) == ["A", "B"] and answer.answer in answer.probs
    assert all(type(p) is float and 0 <= p <= 1 for p in answer.probs.values())
    assert sum(answer.probs.values()) == pytest.approx(1) and max(answer.probs.values()) - answer.probs[answer.answer] <= 0.0053
    assert all(tokens is None or tokens >= 0 for tokens in (answer.n_prompt_tokens, answer.n_completion_tokens))
    assert CloudAnswer.from_json(answer.to_json()) == answer


@given(payload=replies | json_values, api=st.sampled_from(APIS), status=st.sampled_from([200, 200, 200, 400, 404, 422, 500]))
def test_no_reply_breaks_the_reading(payload: Any, api: str, status: int) -> None:
    check(read(json.dumps(payload).encode("utf-8", "surrogatepass"), api=api, status=status))


@given(data=st.binary(max_size=200), status=st.sampled_from([200, 301, 400, 404, 501]))
def test_no_bytes_break_the_reading(data: bytes, status: int) -> None:
    check(read(data, status=status))


@given(shares=st.tuples(st.floats(0, 1), st.floats(0, 1)), choice=st.sampled_from(["3", "4"]), api=st.sampled_from(APIS))
def test_nothing_is_made_up(shares: tuple[float, float], choice: str, api: str) -> None:
    """An answer has the probabilities that the cloud sent, scaled to a sum of 1, and nothing else."""
    answer = read(made(api, dict(zip(("3", "4"), shares, strict=True)), choice), api=api).answer
    total = sum(shares)
    if abs(total - 1) > SUM_OFF + 1e-6:
        assert answer is None
    if answer:
        assert answer.probs and list(answer.probs.values()) == pytest.approx([p / total for p in shares])


@pytest.mark.parametrize(
    "reply", [b"[" * 100_000, b'{"answers":' * 50_000, b'{"answers": {"answer"', b"", b"null", b"9" * 5000, b"\xff\xfe{}"]
)
def test_hostile_bytes_end_as_an_outcome(reply: bytes) -> None:
    check(read(reply))


def test_body_that_was_too_large_is_no_answer() -> None:
    outcome = read_typed_reply(200, {"Content-Type": "application/json"}, None, PAIR, "systemone", "big", 1.0)
    assert outcome.kind is CloudKind.UNUSABLE
