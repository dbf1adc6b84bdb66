"""What the cloud is asked, and what its replies mean."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from edge_agent.cloud.wire.reply import read_reply
from edge_agent.cloud.wire.request import PROMPT_VERSION, prompt
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question

QUESTION = Question("Which city?", ("Astana", "Almaty", "Aktau", "Atyrau"))
OPEN_QUESTION = Question("Which city is the capital?", (), "open")


def test_prompt_has_the_question_its_options_and_asks_for_one_letter() -> None:
    """These words are version 2: other words need a new `PROMPT_VERSION`."""
    assert PROMPT_VERSION == 2
    assert prompt(QUESTION) == (
        "Which city?\nA. Astana\nB. Almaty\nC. Aktau\nD. Atyrau\n\nAnswer with the Latin letter of the right option alone, "
        "one of: A, B, C, D."
    )


def test_prompt_of_an_open_question_is_its_text() -> None:
    assert prompt(OPEN_QUESTION) == "Which city is the capital?"


def read(payload: Any, status: int = 200, question: Question = OPEN_QUESTION) -> CloudOutcome:
    return read_reply(status, {}, json.dumps(payload).encode(), question, "big", 1.0)


def reply(content: Any, **usage: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content}}], "usage": usage}


PRIVATE = Question("Мой сосед Иван Петров болен туберкулёзом. Что делать?", ("Да", "Нет"))
ECHOES = {
    "as it is": PRIVATE.stem,
    "JSON": json.dumps({"text": PRIVATE.stem}),
    "JSON in JSON": json.dumps(json.dumps({"text": PRIVATE.stem[:40]})),
    "upper case": PRIVATE.stem.upper(),
    "other spaces": " / ".join(PRIVATE.stem.split()),
    "bytes": repr(PRIVATE.stem.encode()),
    "web address": quote(PRIVATE.stem),
    "web page": "".join(f"&#{ord(letter)};" for letter in PRIVATE.stem),
    "a request": '{"messages": [{"role": "user", "content": "I...',
    "an escaped request": '{\\"content\\": \\"I...',
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
def test_error_that_repeats_the_question_in_any_spelling_is_not_quoted(echo: str) -> None:
    """It outlives the question, which a person may have purged."""
    for status, payload in ((400, {"error": {"message": f"bad body: {echo}"}}), (500, {"error": f"failed on {echo}"})):
        assert "bad body" not in (error := read(payload, status, PRIVATE).error or "") and "failed on" not in error
    page = read_reply(503, {}, f"<title>failed on {echo}</title>".encode(), PRIVATE, "big", 1.0)
    assert "failed on" not in (page.error or "")


@pytest.mark.parametrize("words", ["The model `big` is overloaded", "Модель перегружена, попробуйте позже", "100% of the \\users"])
def test_error_in_the_servers_own_words_is_quoted(words: str) -> None:
    assert words in (read({"error": {"message": words}}, 500, PRIVATE).error or "")


def test_half_of_a_surrogate_pair_does_not_reach_the_store() -> None:
    outcome = read(reply("Paris \ud83d"))
    assert outcome.answer and (outcome.answer.answer, outcome.answer.reply) == ("Paris", "Paris \ufffd")
    whole = read(reply("Paris \U0001f600"))
    assert whole.answer and whole.answer.answer == "Paris \U0001f600"


THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "The answer is A."}]}


@pytest.mark.parametrize(
    "content",
    [
        "B",
        [{"type": "text", "text": "B"}],
        [THOUGHT, {"type": "text", "text": "B"}],
        [{"type": "reasoning", "text": "A"}, {"type": "text", "text": "The answer "}, {"type": "text", "text": "is B."}],
        [{"type": "output_text", "text": "B", "annotations": []}],
        ["The answer", " is B."],
        [{"text": "B"}],
        {"type": "text", "text": "B"},
        "<think>" + "The answer is A. " * 5_000 + "</think>B",
    ],
    ids=["text", "one part", "thinking", "reasoning and two parts", "output_text", "texts", "no type", "no list", "long thinking"],
)
def test_answer_is_found_in_every_form_of_the_content(content: Any) -> None:
    outcome = read(reply(content), question=QUESTION)
    assert outcome.answer and outcome.answer.answer == "B" and len(outcome.answer.reply) <= 20_000


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"content": None, "reasoning_content": "The answer is B."}, "is empty"),
        ({"content": "", "reasoning": "B"}, "is empty"),
        ({"content": [THOUGHT]}, "is empty"),
        (
            {"content": [{"type": "refusal", "refusal": "B"}, None, 5, {"type": "text", "text": 5}, {"type": ["text"], "text": "B"}]},
            "is empty",
        ),
        ({"content": None, "refusal": "I can't help with B."}, "is empty"),
        ({"content": "<think>The answer is B"}, "has no answer after its thinking"),
        ({"content": "A or B"}, "does not name exactly one option"),
        ({"content": "x" * 20_001}, "is longer than 20000 characters"),
        ({}, "is empty"),
        ("B", "is empty"),
    ],
)
def test_reply_without_an_answer_is_unusable_and_says_why(message: Any, why: str) -> None:
    outcome = read({"choices": [{"message": message}]}, question=QUESTION)
    assert outcome.kind is CloudKind.UNUSABLE and outcome.error == f"the cloud's reply {why}"


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
