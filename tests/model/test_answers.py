"""The legal answers and the walk over their trie, for any tokenizer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.errors import ModelRefused
from edge_agent.core.question import LETTERS, same
from edge_agent.engine.probabilities import Walk
from edge_agent.model.answers import AnswerFormat, lettered, parse
from tests.support.pieces import PieceTokenizer, check_walk, letters, levels, tokenizers

LEVELS = ("0.0", "0.25", "0.5", "0.75", "1.0")


@given(levels, letters, tokenizers)
def test_trie_holds_exactly_the_legal_answers(levels: tuple[str, ...], letters: str, tokenizer: PieceTokenizer) -> None:
    root = AnswerFormat(levels, letters).trie(tokenizer)
    assert sorted(leaf.label for leaf in root.leaves()) == sorted((level, letter) for level in levels for letter in letters)


@given(levels, letters, tokenizers, st.integers(0, 2**32 - 1))
def test_walk_agrees_with_brute_force(levels: tuple[str, ...], letters: str, tokenizer: PieceTokenizer, seed: int) -> None:
    """Level and letter probabilities are those of decoding token by token with illegal tokens removed."""
    check_walk(AnswerFormat(levels, letters), tokenizer, len(tokenizer.pieces), seed)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_model_that_returns_no_finite_numbers_is_refused(number: float) -> None:
    root = AnswerFormat(LEVELS, "AB").trie(PieceTokenizer([]))
    with pytest.raises(ModelRefused, match=str(number)):
        Walk(root, lambda path: np.full(128, number, np.float32))


def test_levels_that_the_model_would_never_print_are_still_told_apart() -> None:
    """e^-200 is 0 in single precision."""
    tokenizer = PieceTokenizer([])

    def logits_after(path: tuple[int, ...]) -> np.ndarray:
        logits = np.full(128, -200, np.float32)
        logits[tokenizer("?")[0]], logits[tokenizer("1")[0]] = 0, -199
        return logits

    walk = Walk(AnswerFormat(("0.0", "1.0"), "AB").trie(tokenizer), logits_after)
    assert walk.level().probs == pytest.approx({"0.0": 1 / (1 + np.e), "1.0": np.e / (1 + np.e)})
    assert 0 <= walk.format_mass < 1e-80


def test_tokenizer_that_cannot_tell_answers_apart_is_refused() -> None:
    with pytest.raises(ModelRefused):
        AnswerFormat(LEVELS, "AB").trie(lambda text: [1, 2, 3])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Confidence: 0.75\nFinal answer: B", (0.75, "B")),
        ("confidence 1", (None, None)),
        ("Confidence : 1.0 ... Final  answer : C", (1.0, "C")),
        ("Confidence: 1.0.0\nFinal answer: d", (None, None)),
    ],
)
def test_published_parser(text: str, expected: tuple[float | None, str | None]) -> None:
    assert parse(text) == expected


@given(levels, tokenizers)
def test_answer_in_words_has_a_trie_of_levels_alone(levels: tuple[str, ...], tokenizer: PieceTokenizer) -> None:
    root = AnswerFormat(levels, "").trie(tokenizer)
    assert sorted(leaf.label for leaf in root.leaves()) == sorted((level, "") for level in levels)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [("B", "B", True), ("B", "C", False), ("The Eiffel Tower.", "eiffel tower", True), ("42", "42.", True), ("42", "43", False),
     ("", "", True), ("...", "!!!", False), ("A", "a", False), ("A", "A.", True)],
)  # fmt: skip
def test_answers_are_equal_if_only_case_punctuation_and_articles_differ(one: str, other: str, equal: bool) -> None:
    assert same(one, other) is equal


def test_options_are_printed_on_one_line_and_equal_ones_are_one_answer() -> None:
    answers = AnswerFormat(("0.0", "1.0"), "ABCD", ("New  York", "New York City", " New York ", "x"))
    assert answers.answers == {"New York": "AC", "New York City": "B", "x": "D"}
    assert answers.text("1.0", "New York") == "Confidence: 1.0\nFinal answer: New York"
    root = answers.trie(PieceTokenizer([" New York"]), end=[999])
    assert sorted(leaf.label for leaf in root.leaves() if leaf.label) == [
        (level, letters) for level in ("0.0", "1.0") for letters in ("AC", "B", "D")
    ]


def test_option_that_begins_with_another_needs_an_end() -> None:
    answers = AnswerFormat(("0.0", "1.0"), "AB", ("New York", "New York City"))
    with pytest.raises(ModelRefused, match="does not tell all legal answers apart"):
        answers.trie(PieceTokenizer([]))


begins_alike = st.lists(st.text("ab", min_size=1, max_size=5), min_size=2, max_size=12, unique=True)


@given(begins_alike, st.integers(0, 5))
def test_walk_over_options_equals_decoding_token_by_token(options: list[str], seed: int) -> None:
    tokenizer = PieceTokenizer(["ab", "aba"])
    answers = AnswerFormat(("0.0", "1.0"), LETTERS[: len(options)], tuple(options))
    check_walk(answers, tokenizer, len(tokenizer.pieces) + 1, seed, end=[len(tokenizer.pieces)])


OPTIONS = ("Paris", "New York", "new york", "New York City", "C. 4")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Confidence: 0.75\nFinal answer: Paris", (0.75, "A")),
        ("Confidence: 0.75\nFinal answer:  PARIS \nBecause", (0.75, "A")),
        ("Confidence: 1.0\nFinal answer: New  York", (1.0, "B")),
        ("Confidence: 1.0\nFinal answer: new york", (1.0, "C")),
        ("Confidence: 1.0\nFinal answer: NEW YORK", (1.0, None)),  # two options differ by case alone
        ("Confidence: 1.0\nFinal answer: New York City", (1.0, "D")),
        ("Confidence: 1.0\nFinal answer: C. 4", (1.0, "E")),
        ("Confidence: 1.0\nFinal answer: A", (1.0, None)),
        ("Confidence: 1.0\nFinal answer:\nParis", (1.0, None)),
        ("Paris", (None, None)),
    ],
)
def test_published_format_with_the_text_of_an_option(text: str, expected: tuple[float | None, str | None]) -> None:
    assert parse(text, OPTIONS) == expected


def test_printed_text_of_an_option_becomes_its_letter() -> None:
    assert lettered("Confidence: 0.75\nFinal answer: New York City\n", OPTIONS) == "Confidence: 0.75\nFinal answer: D\n"
    assert parse(lettered("Confidence: 0.75\nFinal answer: Berlin", OPTIONS)) == (0.75, None)
    assert lettered("I do not know", OPTIONS) == "I do not know"
