"""What the cloud is asked, and how an answer is found in its reply."""

import json
import time
from typing import Any

import pytest

from edge_agent.cloud.wire.reply import read_reply
from edge_agent.cloud.wire.request import prompt
from edge_agent.cloud.wire.verdict import find_answer, find_letter
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question

QUESTION = Question("Which city?", ("Astana", "Almaty", "Aktau", "Atyrau"))
OPEN_QUESTION = Question("Which city is the capital?", (), "open")


def test_prompt_has_the_question_its_options_and_asks_for_one_letter() -> None:
    """These words are version 1: other words need a new `PROMPT_VERSION`."""
    assert prompt(QUESTION) == (
        "Which city?\nA. Astana\nB. Almaty\nC. Aktau\nD. Atyrau\n\nAnswer with the letter of the right option alone."
    )


def test_prompt_of_an_open_question_is_its_text() -> None:
    assert prompt(OPEN_QUESTION) == "Which city is the capital?"


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        (" b.\n", "B"),
        ("**C**", "C"),
        ("D. Atyrau", "D"),
        ("(A) because it is the capital", "A"),
        ("The answer is B.", "B"),
        ("The correct answer is **C**", "C"),
        ("Final answer: A", "A"),
        ("<think>maybe A or B</think>\n\nB", "B"),
        ("Almaty", "B"),
        ("almaty.", "B"),
        ("The answer is: B", "B"),
        ("The correct answer is: **B**", "B"),
        ("The answer would be B.", "B"),
        ("The correct option is B.", "B"),
        ("Option B", "B"),
        ("B, Almaty", "B"),
        ("B - Almaty", "B"),
        ("So the result is \\boxed{B}.", "B"),
        ("The answer is Almaty.", "B"),
        ("The answer is A. No, the answer is B.", None),
        ("E", None),
        ("A or B", None),
        ("I would answer a question like this with care", None),
        ("answer: a city", None),
        ("", None),
    ],
)
def test_letter_in_a_reply(reply: str, letter: str | None) -> None:
    assert find_letter(reply, QUESTION) == letter


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (" Astana.\n", "Astana."),
        ("<think>hm</think> Astana.", "Astana."),
        ("<think>Astana, perhaps", None),
        ("  ", None),
        ("x" * 20_000, "x" * 20_000),
        ("x" * 20_001, None),
    ],
    ids=["plain", "thinking", "only thinking", "empty", "longest", "too long"],
)
def test_answer_to_an_open_question(reply: str, answer: str | None) -> None:
    assert find_answer(reply, OPEN_QUESTION) == answer


def test_answer_to_a_question_with_options_is_a_letter() -> None:
    assert find_answer("The answer is Almaty.", QUESTION) == "B"


@pytest.mark.parametrize("reply", [" " * 1_000_000 + "x", "answer" * 100_000, "<think>" * 100_000, "answer" + " " * 19_000, "(" * 19_000])
def test_hostile_reply_is_read_quickly(reply: str) -> None:
    """A quadratic search would block the interpreter for minutes, and no deadline would stop it."""
    started = time.perf_counter()
    assert find_letter(reply, QUESTION) is None
    assert time.perf_counter() - started < 1


def read(payload: Any, status: int = 200, question: Question = OPEN_QUESTION) -> CloudOutcome:
    return read_reply(status, {}, json.dumps(payload).encode(), question, "big", 1.0)


def reply(content: str, **usage: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content}}], "usage": usage}


def test_half_of_a_surrogate_pair_does_not_reach_the_store() -> None:
    outcome = read(reply("Paris \ud83d"))
    assert outcome.answer and outcome.answer.answer == outcome.answer.reply == "Paris ?"
    whole = read(reply("Paris \U0001f600"))
    assert whole.answer and whole.answer.answer == "Paris \U0001f600"


@pytest.mark.parametrize("count", [10**30, 2**70, 2**32, -1, True, 1.5, "7", None, [], float("nan")])
def test_number_of_tokens_that_cannot_be_is_unknown(count: Any) -> None:
    outcome = read(reply("Paris", prompt_tokens=count, completion_tokens=7))
    assert outcome.answer and outcome.answer.n_prompt_tokens is None and outcome.answer.n_completion_tokens == 7


MODERATED = {"code": 403, "message": "openai/gpt requires moderation and your input was flagged", "metadata": {"reasons": ["violence"]}}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MODERATED, CloudKind.REJECTED),
        ({"code": 403, "metadata": {"flagged_input": "..."}}, CloudKind.REJECTED),
        ({"code": "content_filter", "message": "blocked"}, CloudKind.REJECTED),
        ({"type": "moderation_error"}, CloudKind.REJECTED),
        ({"code": 403, "message": "Key limit exceeded"}, CloudKind.REFUSED),
        ({"code": "invalid_api_key", "metadata": {"raw": "x"}}, CloudKind.REFUSED),
        ({"code": ["content_filter"], "type": None, "metadata": []}, CloudKind.REFUSED),
        ("moderation", CloudKind.REFUSED),
        (None, CloudKind.REFUSED),
    ],
)
def test_refusal_of_one_question_is_told_from_a_refused_key(error: Any, kind: CloudKind) -> None:
    assert read({"error": error}, status=403).kind is kind
