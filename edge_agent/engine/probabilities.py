"""Walks the trie of legal answers with a model's logits: probabilities, the greedy choice, and the format mass.

Owns the arithmetic of a reading. The caller passes a function that returns logits. Invariant: logits are requested once
for each branch, and never for tokens without a choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_agent.core.errors import ModelRefused
from edge_agent.model.answers import Node, Path

Logits = npt.NDArray[np.float32]  # (vocabulary,)


class Distribution(NamedTuple):
    """Probabilities by name, renormalised over the legal tokens, and the name that greedy decoding prints."""

    probs: dict[str, float]
    greedy: str


class Walk:
    """One walk: call `level` first, then `letter`. `path` leads to the current `node`.

    `logits_after(path)` returns the logits (vocabulary,) after the prompt and `path`. `format_mass` is the product of the
    legal probability mass (0 to 1) at the first token and at each branch so far.
    """

    def __init__(self, trie: Node, logits_after: Callable[[Path], Logits]) -> None:
        self._logits_after = logits_after
        self._weighed: dict[Path, tuple[list[float], float]] = {}
        self.path: Path = ()
        self.node = trie
        self.format_mass = self._weigh((), trie)[1]

    def level(self) -> Distribution:
        """The probabilities of all levels, and the level that greedy decoding prints."""
        return self._choose(0, lambda node: len(node.levels()) == 1)

    def letter(self) -> Distribution:
        """The probabilities of all letters after the chosen level."""
        return self._choose(1, lambda node: node.label is not None)

    def _choose(self, part: int, decided: Callable[[Node], bool]) -> Distribution:
        probs: dict[str, float] = {}
        self._spread(self.path, self.node, 1.0, part, decided, probs)
        while not decided(self.node):
            shares, mass = self._weigh(self.path, self.node) if len(self.node.children) > 1 else ([1.0], 1.0)
            if self.path:  # __init__ has counted the mass of the first token
                self.format_mass *= mass
            token = list(self.node.children)[int(np.argmax(shares))]
            self.path, self.node = (*self.path, token), self.node.children[token]
        return Distribution(probs, _label(self.node)[part])

    def _spread(self, path: Path, node: Node, p: float, part: int, decided: Callable[[Node], bool], probs: dict[str, float]) -> None:
        """Distribute the probability `p` over everything below `node`."""
        if decided(node):
            name = _label(node)[part]
            probs[name] = probs.get(name, 0.0) + p
            return
        shares = self._weigh(path, node)[0] if len(node.children) > 1 else [1.0]
        for (token, child), share in zip(node.children.items(), shares, strict=True):
            self._spread((*path, token), child, p * share, part, decided, probs)

    def _weigh(self, path: Path, node: Node) -> tuple[list[float], float]:
        """The share of each child among the children, and the mass of all children in the whole vocabulary."""
        if path not in self._weighed:
            self._weighed[path] = _shares_and_mass(self._logits_after(path), list(node.children))
        return self._weighed[path]


def _shares_and_mass(logits: Logits, legal: list[int]) -> tuple[list[float], float]:
    """The share of each of the tokens `legal` among them, and their mass (0 to 1) in the whole vocabulary.

    Shares are in double precision, so even very unlikely tokens have one. The whole vocabulary is summed in single
    precision, which is ten times faster and accurate to about 1e-7.
    """
    top = float(logits.max())
    if not math.isfinite(top):  # NaN if any is
        raise ModelRefused(f"The model returns {top} instead of numbers; its file is damaged, so fetch or convert it again.")
    few = logits[legal].astype(np.float64)
    if not np.isfinite(few.max()):
        return [1 / len(legal)] * len(legal), 0.0
    weights = np.exp(few - few.max())
    inside, everything = float(weights.sum()), float(np.exp(logits - np.float32(top)).sum(dtype=np.float64))
    return (weights / inside).tolist(), min(1.0, inside * math.exp(float(few.max()) - top) / everything)


def _label(node: Node) -> tuple[str, str]:
    leaf = next(node.leaves())
    assert leaf.label is not None  # checked by AnswerFormat.trie
    return leaf.label
