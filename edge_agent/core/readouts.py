"""Readouts: the numbers of a reading that tell how sure the model is.

Owns their names and formulas. Knows no threshold and no policy. Invariant: a score is a number from 0 to 1 that follows from the
reading and the weights alone, to the bit, so that a stored decision can be derived again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edge_agent.core.records import LevelReading, Reading

CONFIDENCE, EXPECTED, ANSWER_PROB, MARGIN, ENTROPY, COMBINED = (
    "confidence", "expected_confidence", "answer_prob", "margin", "entropy", "combined"
)  # fmt: skip
READOUTS = (CONFIDENCE, EXPECTED, ANSWER_PROB, MARGIN, ENTROPY, COMBINED)
"""The readouts that one reading holds."""
NEED_LETTER = frozenset({ANSWER_PROB, MARGIN, ENTROPY, COMBINED})
"""Those that are known only after the letter, so that a call to the cloud starts later."""
N_WEIGHTS = 5


def score(reading: LevelReading, readout: str, weights: Sequence[float] = ()) -> float | None:
    """The number that is compared with tau; None where the reading does not hold it: its letter is not read, or it has no levels.

    `confidence` is the printed level, `expected_confidence` the mean level, `answer_prob` the probability of the chosen letter,
    `margin` that minus the probability of the next best letter, `entropy` 1 minus the entropy of all letters as a share of the
    largest possible (1: all on one letter, 0: all alike), and `combined` the logistic function of `weights` times
    (1, confidence, expected_confidence, answer_prob, margin).
    """
    if readout == CONFIDENCE:
        return reading.confidence
    if readout == EXPECTED:
        return _expected(reading)
    if not isinstance(reading, Reading):
        return None
    best, second = sorted(reading.answer_probs, reverse=True)[:2]
    chosen = reading.answer_probs[reading.letters.index(reading.letter)]
    if readout == ANSWER_PROB:
        return chosen
    if readout == MARGIN:
        return max(0.0, best - second)
    if readout == ENTROPY:
        return max(0.0, 1 + math.fsum(p * math.log(p) for p in reading.answer_probs if p > 0) / math.log(len(reading.letters)))
    if readout != COMBINED or len(weights) != N_WEIGHTS:
        raise ValueError(f"there is no readout {readout!r} with {len(weights)} weights")
    level, expected = reading.confidence, _expected(reading)
    return None if level is None or expected is None else combined(weights, (level, expected, chosen, max(0.0, best - second)))


def _expected(reading: LevelReading) -> float | None:
    expected = reading.expected_confidence
    return None if expected is None else min(expected, 1.0)  # a mean of levels may exceed 1 by a rounding error


def combined(weights: Sequence[float], parts: Sequence[float]) -> float:
    """The logistic function of `weights` times (1, *parts)."""
    total = math.fsum(weight * term for weight, term in zip(weights, (1.0, *parts), strict=True))
    return 1 / (1 + math.exp(-total)) if total >= 0 else math.exp(total) / (1 + math.exp(total))
