"""The legal answers and the walk over their trie, for any tokenizer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.answer import AnswerFormat, parse, same
from edge_agent.errors import ModelRefused
from edge_agent.walk import Walk
from tests.pieces import PieceTokenizer, letters, levels, tokenizers

LEVELS = ("0.0", "0.25", "0.5", "0.75", "1.0")


@given(levels, letters, tokenizers)
def test_trie_holds_exactly_the_legal_answers(levels: tuple[str, ...], letters: str, tokenizer: PieceTokenizer) -> None:
    root = AnswerFormat(levels, letters).trie(tokenizer)
    assert sorted(leaf.label for leaf in root.leaves()) == sorted((level, letter) for level in levels for letter in letters)


@given(levels, letters, tokenizers, st.integers(0, 2**32 - 1))
def test_walk_agrees_with_brute_force(levels: tuple[str, ...], letters: str, tokenizer: PieceTokenizer, seed: int) -> None:
    """Level and letter probabilities are those of decoding token by token with illegal tokens removed."""
    answers = AnswerFormat(levels, letters)
    root = answers.trie(tokenizer)
    vocabulary = len(tokenizer.pieces)

    def logits_after(path: tuple[int, ...]) -> np.ndarray:
        return np.random.default_rng([seed, *path]).normal(size=vocabulary).astype(np.float32)

    def probability(tokens: list[int], node: object) -> float:
        p, path = 1.0, ()
        for token in tokens:
            legal = np.exp(logits_after(path).astype(np.float64))[list(node.children)]
            p *= legal[list(node.children).index(token)] / legal.sum()
            path, node = (*path, token), node.children[token]
        return p

    def greedily() -> tuple[tuple[str, str], float]:
        """The legal answer of decoding greedily, and the legal mass along its way, counted where there was a choice."""
        node, path, mass = root, (), 1.0
        while node.label is None:
            p = np.exp(logits_after(path).astype(np.float64))
            if len(node.children) > 1 or not path:
                mass *= p[list(node.children)].sum() / p.sum()
            token = max(node.children, key=lambda child: p[child])
            path, node = (*path, token), node.children[token]
        return node.label, mass

    walk = Walk(root, logits_after)
    level, letter = walk.level(), walk.letter()
    label, mass = greedily()
    assert (level.greedy, letter.greedy) == label and walk.format_mass == pytest.approx(mass, rel=1e-9)
    brute = {(a, b): probability(tokenizer(answers.text(a, b)), root) for a in levels for b in letters}
    for name in levels:
        assert level.probs[name] == pytest.approx(sum(brute[name, b] for b in letters), abs=1e-9)
    chosen = sum(brute[level.greedy, b] for b in letters)
    for name in letters:
        assert letter.probs[name] == pytest.approx(brute[level.greedy, name] / chosen, abs=1e-9)


def test_model_that_computes_no_numbers_is_refused() -> None:
    root = AnswerFormat(LEVELS, "AB").trie(PieceTokenizer([]))
    with pytest.raises(ModelRefused, match="NaN"):
        Walk(root, lambda path: np.full(128, np.nan, np.float32))


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
     ("", "", True), ("...", "!!!", False), ("A", "a", False)],
)  # fmt: skip
def test_answers_are_the_same_when_only_case_points_and_articles_differ(one: str, other: str, equal: bool) -> None:
    assert same(one, other) is equal
