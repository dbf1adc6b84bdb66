"""Many kinds of levels, letters and tokenizers, for property tests of code that works with the trie of legal answers."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import strategies as st

from edge_agent.core.question import LETTERS
from edge_agent.engine.probabilities import Walk
from edge_agent.model.answers import AnswerFormat

levels = st.lists(st.integers(0, 100), min_size=2, max_size=9, unique=True).map(lambda ns: tuple(f"{n / 100:.2f}" for n in sorted(ns)))
letters = st.integers(2, 26).map(lambda n: LETTERS[:n])


class PieceTokenizer:
    """Splits greedily into the longest known pieces: stands for BPE with any vocabulary."""

    def __init__(self, pieces: list[str]) -> None:
        self.pieces = sorted({*pieces, *map(chr, range(128))}, key=len, reverse=True)

    def __call__(self, text: str) -> list[int]:
        out = []
        while text:
            token = next(i for i, piece in enumerate(self.pieces) if text.startswith(piece))
            out.append(token)
            text = text[len(self.pieces[token]) :]
        return out

    def text(self, tokens: tuple[int, ...]) -> str:
        return "".join(self.pieces[token] for token in tokens)


tokenizers = st.lists(
    st.sampled_from(["Conf", "idence", ": ", " 0", "0.", ".7", "25", "\nFinal", " answer", ": A", " B", "5\n", "00"])
).map(PieceTokenizer)


def check_walk(answers: AnswerFormat, tokenize: Callable[[str], list[int]], vocabulary: int, seed: int, end: Sequence[int] = ()) -> None:
    """With random logits, the walk equals decoding token by token without the illegal tokens."""
    root = answers.trie(tokenize, end)

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
        """The legal answer of greedy decoding, and the product of the legal mass at each choice on its way."""
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
    assert (level.greedy, letter.greedy) == label and walk.format_mass == pytest.approx(mass, rel=1e-6)  # summed in single precision
    brute = {
        (a, letters): probability([*tokenize(answers.text(a, b)), *end], root)
        for a in answers.levels
        for b, letters in answers.answers.items()
    }
    for name in answers.levels:
        assert level.probs[name] == pytest.approx(sum(brute[name, b] for b in answers.answers.values()), abs=1e-9)
    chosen = sum(brute[level.greedy, b] for b in answers.answers.values())
    for name in answers.answers.values():
        assert letter.probs[name] == pytest.approx(brute[level.greedy, name] / chosen, abs=1e-9)
