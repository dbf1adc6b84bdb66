"""How often answers with a score are right: a curve that never falls.

Owns the fit and its knots. Promises nothing: the curve is for people who look at a score. Invariant: scores of the knots rise, their
probabilities never fall.
"""

from __future__ import annotations

import numpy as np

from edge_agent.measure.calibrate.extra import scipy
from edge_agent.measure.results import Floats

MAX_KNOTS = 200


def isotonic(scores: Floats, correct: Floats) -> tuple[tuple[float, float], ...]:
    """The knots of the isotonic regression of `correct` (0 to 1) on `scores`, by pooling adjacent violators; none without answers.

    Every block of equal probability has its first and its last score; between blocks a reader interpolates.
    """
    if not len(scores):
        return ()
    values, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    means = np.bincount(places, weights=correct) / counts
    fitted = scipy("optimize").isotonic_regression(means, weights=counts)
    starts = fitted.blocks[:-1]
    if 2 * len(starts) > MAX_KNOTS:  # blocks that are as many as this differ by little: keep some, evenly
        starts = starts[np.unique(np.linspace(0, len(starts) - 1, MAX_KNOTS // 2).astype(int))]
    ends = np.r_[starts[1:], len(values)] - 1
    ends = np.minimum(ends, fitted.blocks[np.searchsorted(fitted.blocks, starts, side="right")] - 1)
    at = np.unique(np.r_[starts, ends])
    return tuple((float(values[i]), float(min(1.0, max(0.0, fitted.x[i])))) for i in at)
