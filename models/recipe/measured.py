"""Measures a checkpoint from the scores of its legal answers: accuracy, calibration, and the gain from routing.

Used for each round of a chain; the figures of a finished GGUF come from `edge-agent eval`. Invariant: every figure depends
only on the scores and the gold answers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_agent.measure import metrics
from edge_agent.model.profile import LEVELS
from models.recipe.bank import Item

TAU, CLOUD_ACCURACY = 0.5, 0.95
_VALUES = np.array([float(level) for level in LEVELS])


def figures(scores: np.ndarray, items: list[Item]) -> dict[str, Any]:
    """Figures from scores (item, lead, letter) at T = 1, where the first lead has no confidence line; shares are 0 to 1.

    The level is that of greedy decoding, token by token: first `1` or `0`, then the digits after `0.`.
    """
    legal = np.array([[letter < len(item.options) for letter in range(scores.shape[2])] for item in items])
    said = scores[:, 1:] * legal[:, None, :]  # (item, level, letter)
    by_level = said.sum(2)
    format_mass = by_level.sum(1)
    probs = by_level / np.maximum(format_mass, 1e-30)[:, None]
    at = np.where(probs[:, 4] > 0.5, 4, probs[:, :4].argmax(1))
    letters = said[np.arange(len(items)), at].argmax(1)
    right = (letters == np.array([item.gold for item in items])).astype(float)
    confidence, expected = _VALUES[at], probs @ _VALUES
    return {
        "questions": len(items),
        "right": float(right.mean()),
        "right_by_domain": _shares(right, [item.domain for item in items]),
        "right_by_difficulty": _shares(right, [str(item.difficulty) for item in items]),
        "levels": {level: int((at == i).sum()) for i, level in enumerate(LEVELS)},
        "right_by_level": {level: float(right[at == i].mean()) for i, level in enumerate(LEVELS) if (at == i).any()},
        "format": float((format_mass >= 0.5).mean()),
        "confidence": routing(confidence, right),
        "expected_confidence": routing(expected, right),
    }


def routing(score: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """AUROC, ECE, and the gain of routing at `TAU` to a simulated cloud over random routing at the same rate."""
    deferred = score < TAU
    rate = float(deferred.mean())
    system = float(np.where(deferred, CLOUD_ACCURACY, right).mean())
    gain = metrics.lift(system, float(right.mean()), CLOUD_ACCURACY, rate)
    return {"auroc": metrics.auroc(score, right), "ece": metrics.ece(score, right, _VALUES), "routed": rate, "system": system, "lift": gain}


def _shares(right: np.ndarray, groups: list[str]) -> dict[str, float]:
    names = np.array(groups)
    return {str(name): float(right[names == name].mean()) for name in sorted(set(groups))}
