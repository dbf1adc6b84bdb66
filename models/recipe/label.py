"""The confidence that a model should print: the share of its own answers that are right, in five levels.

Owns sampling and rounding, as in FogGen: N = 8 answers at T = 0.7, rounded half up to a level (half-to-even would make 0.25
and 0.75 rare). Answers are generated, or drawn from the exact distribution over the legal answers, which gives the same
result at much lower cost. Invariant: a label depends only on the model, the question and the seed.
"""

from __future__ import annotations

import numpy as np

from edge_agent.model.profile import LEVELS
from models.recipe.bank import Item
from models.recipe.config import Labels


def level(share: float, rounding: str = "half-up") -> str:
    """The level for a share of right answers. Half-up: 1 of 8 is 0.25; half-even: 1 of 8 is 0.0. Both: 3 of 8 is 0.5."""
    steps = share * (len(LEVELS) - 1)
    return LEVELS[int(np.floor(steps + 0.5)) if rounding == "half-up" else int(np.rint(steps))]


def from_scores(scores: np.ndarray, items: list[Item], labels: Labels, rng: np.random.Generator) -> list[str]:
    """Levels from scores (item, lead, letter) at the labels' temperature: `samples` drawn, or the exact share."""
    right = np.array([scores[i, :, item.gold].sum() for i, item in enumerate(items)]).clip(0.0, 1.0)
    shares = right if labels.exact else rng.binomial(labels.samples, right) / labels.samples
    return [level(float(share), labels.rounding) for share in shares]


def from_letters(letters: list[list[str | None]], items: list[Item], labels: Labels) -> list[str]:
    """Levels from generated answers: the letters found in the samples of each item, or None where there is no letter."""
    return [
        level(sum(letter == item.letter for letter in row) / len(row), labels.rounding) for row, item in zip(letters, items, strict=True)
    ]
