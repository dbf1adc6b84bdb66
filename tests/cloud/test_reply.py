"""What the cloud is asked, and how an answer is found in its reply."""

import time

import pytest

from edge_agent.cloud.reply import find_answer, find_letter, prompt
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
