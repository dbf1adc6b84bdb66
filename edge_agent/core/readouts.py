"""Readouts: the numbers of a reading that tell how sure the model is.

Owns their names and formulas. Knows no threshold and no policy. Invariant: a score is a number from 0 to 1 that follows from the
reading and the weights alone, to the bit, so that a stored decision can be derived again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edge_agent.core.records import LevelReading, Reading

CONFIDENCE, EXPECTED, ANSWER_PROB, MARGIN, COMBINED = "confidence", "expected_confidence", "answer_prob", "margin", "combined"
READOUTS = (CONFIDENCE, EXPECTED, ANSWER_PROB, MARGIN, COMBINED)
"""The readouts that one reading holds."""
NEED_LETTER = frozenset({ANSWER_PROB, MARGIN, COMBINED})
"""Those that are known only after the letter, so that a call to the cloud starts later."""
N_WEIGHTS = 5


def score(reading: LevelReading, readout: str, weights: Sequence[float] = ()) -> float | None:
    """The number that is compared with tau; None where the readout needs a letter that is not read.

    `confidence` is the printed level, `expected_confidence` the mean level, `answer_prob` the probability of the chosen letter,
    `margin` that minus the probability of the next best letter, and `combined` the logistic function of `weights` times
    (1, confidence, expected_confidence, answer_prob, margin).
    """
    if readout == CONFIDENCE:
        return reading.confidence
    if readout == EXPECTED:
        return min(reading.expected_confidence, 1.0)  # a mean of levels may exceed 1 by a rounding error
    if not isinstance(reading, Reading):
        return None
    best, second = sorted(reading.answer_probs, reverse=True)[:2]
    chosen = reading.answer_probs[reading.letters.index(reading.letter)]
    if readout == ANSWER_PROB:
        return chosen
    if readout == MARGIN:
        return max(0.0, best - second)
    if readout != COMBINED or len(weights) != N_WEIGHTS:
        raise ValueError(f"there is no readout {readout!r} with {len(weights)} weights")
    parts = (reading.confidence, min(reading.expected_confidence, 1.0), chosen, max(0.0, best - second))
    return combined(weights, parts)


def combined(weights: Sequence[float], parts: Sequence[float]) -> float:
    """The logistic function of `weights` times (1, *parts)."""
    total = math.fsum(weight * term for weight, term in zip(weights, (1.0, *parts), strict=True))
    return 1 / (1 + math.exp(-total)) if total >= 0 else math.exp(total) / (1 + math.exp(total))
