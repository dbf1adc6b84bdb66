"""What is kept of a server's own words: cleaned, shortened, without our key and without the question."""

import json
from typing import Any

import pytest

from edge_agent.cloud.wire.reply import read_reply
from edge_agent.core.outcome import CloudKind
from edge_agent.core.question import Question
from tests.support.reply_shapes import ANSWER, SHAPES, Shape

QUESTION = Question("Which street does the patient Aigerim live in?", ("Abai", "Dostyk"))
KEY = "sk-proj-canary-4711"


def error(message: Any, status: int = 400, **more: Any) -> str:
    body = json.dumps({"error": {"message": message, **more}}).encode()
    return read_reply(status, {}, body, QUESTION, "big", 1.0, KEY).error or ""


def test_words_of_the_server_are_quoted() -> None:
    assert error("No model `big` here.") == 'the cloud rejected this question (HTTP 400, "No model `big` here.")'
    assert "No such deployment" in error({"message": {"error": "No such deployment"}})


def test_control_characters_and_length_do_not_reach_a_terminal() -> None:
    text = error("\x1b[2J\u202eevil\r\nsecond line " + "x" * 5000)
    assert text.isprintable() and len(text) < 300 and text.endswith('...")')


@pytest.mark.parametrize(
    "words", [f"Wrong key {KEY}", f"Wrong key: {KEY[:8]}*****{KEY[-4:]}", "x" * 795 + KEY], ids=["whole", "its ends", "at the cut"]
)
@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
def test_no_part_of_the_key_is_kept(words: str, status: int) -> None:
    text = error(words, status)
    assert KEY[:8] not in text and KEY[-6:] not in text


@pytest.mark.parametrize(
    "words", [QUESTION.stem, f"Invalid prompt: {QUESTION.stem}", "Invalid prompt: 'the patient Aigerim li...'", QUESTION.user_message]
)
def test_no_part_of_the_question_is_kept(words: str) -> None:
    assert error(words) == "the cloud rejected this question (HTTP 400)"


@pytest.mark.parametrize("code", [None, [], {}, 7, 10**30, True, "x" * 10_000, "404"])
def test_code_of_any_type_is_read(code: Any) -> None:
    for status in (400, 401, 402, 403, 404, 429, 500):
        assert error("no", status, code=code, type=code)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(403, "refused"), ("429", "limited"), (502, "failed"), (404, "misconfigured"), (None, "failed"), (True, "failed"), (10**40, "failed")],
)
def test_error_in_a_reply_with_status_200_has_the_kind_of_its_code(code: Any, kind: str) -> None:
    body = json.dumps({"error": {"message": "no", "code": code}}).encode()
    assert read_reply(200, {}, body, QUESTION, "big", 1.0).kind == kind


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.fault != ANSWER], ids=lambda shape: shape.name)
def test_no_error_of_a_real_server_is_taken_for_an_answer(shape: Shape) -> None:
    outcome = read_reply(shape.status, {}, shape.body, QUESTION, "big", 1.0, KEY)
    assert outcome.kind is not CloudKind.ANSWERED and outcome.error and outcome.error.isprintable()
