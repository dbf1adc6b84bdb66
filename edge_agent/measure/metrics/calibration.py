"""How true a confidence is: calibration error, Brier score, the table of levels, and the distance of distributions.

Owns the figures that depend on the values of a score, not only on its order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_agent.core.errors import BadData
from edge_agent.measure.metrics.columns import Floats, Weights, by_level, mean_of, metric, numbers, ratio, rising_levels, shares
from edge_agent.measure.metrics.intervals import wilson_of

_LEAST_PROBABILITY = 1e-12


class Reliability(NamedTuple):
    """What each level is worth. All arrays have one entry for each level.

    `n` is the number of questions, `mean_confidence` and `accuracy` are their means, and `low` and `high` the 95 % Wilson interval
    of the accuracy (approximate for graded answers). The last four are nan at a level without questions.
    """

    level: Floats
    n: npt.NDArray[np.int64]
    mean_confidence: Floats
    accuracy: Floats
    low: Floats
    high: Floats


@metric
def ece(weights: Weights | None, confidence: npt.ArrayLike, correct: npt.ArrayLike, levels: npt.ArrayLike) -> Floats:
    """Expected calibration error: the mean distance between confidence and accuracy over bins, 0 to 1.

    A bin holds the confidences that are nearest to one of `levels` ((k,), rising; a tie goes to the higher one). Its mean
    confidence is compared with its accuracy. Chance alone makes it greater than 0, the more so the fewer questions, so a bootstrap
    interval lies a little high. nan without questions. Source: Guo et al. 2017 (arXiv 1706.04599), with the
    levels of the model as bins. Raises `BadData`.
    """
    score, right = shares(confidence=confidence, correct=correct)
    _, counts, (gaps,) = by_level(weights, _bins(score, rising_levels(levels)), score - right)
    return ratio(np.abs(gaps).sum(axis=-1), counts.sum(axis=-1))  # sums: the size of a bin cancels out with its weight


@metric
def brier(weights: Weights | None, confidence: npt.ArrayLike, correct: npt.ArrayLike) -> Floats:
    """The mean squared distance between the confidence and the outcome (0 or 1), 0 to 1; lower is better.

    nan without questions. Source: Brier 1950, Monthly Weather Review 78(1). Raises `BadData`.
    """
    score, right = shares(confidence=confidence, correct=correct)
    return mean_of(weights, (score - right) ** 2)


def reliability(confidence: npt.ArrayLike, correct: npt.ArrayLike, levels: npt.ArrayLike) -> Reliability:
    """The reliability diagram as a table, with the bins of `ece`. Source: Guo et al. 2017 (arXiv 1706.04599). Raises `BadData`."""
    score, right = shares(confidence=confidence, correct=correct)
    at = rising_levels(levels)
    bins = _bins(score, at).astype(np.intp)
    n = np.bincount(bins, minlength=len(at))
    accuracy = ratio(np.bincount(bins, weights=right, minlength=len(at)), n)
    low, high = wilson_of(accuracy, n)
    return Reliability(at, n, ratio(np.bincount(bins, weights=score, minlength=len(at)), n), accuracy, low, high)


def kl_divergence(p: npt.ArrayLike, q: npt.ArrayLike) -> Floats:
    """The divergence of each distribution in `q` from the one in `p`: `sum(p * log(p / q))`, in nats.

    Both are float64 (n, k) with one distribution in each row; returns (n,). A `q` of 0 counts as 1e-12, so that one
    impossible outcome does not make a mean infinite. Source: Kullback and Leibler 1951. Raises `BadData`.
    """
    a, b = numbers("p", p), numbers("q", q)
    if a.ndim != 2 or a.shape != b.shape or not all(np.isfinite(x).all() and (x >= 0).all() for x in (a, b)):
        raise BadData(f"Cannot compare distributions of shapes {a.shape} and {b.shape}; give two tables of probabilities of one shape.")
    b = np.maximum(b, _LEAST_PROBABILITY)
    terms = np.where(a > 0, a * np.log(np.where(a > 0, a, 1.0) / b), 0.0)
    divergence: Floats = np.maximum(terms.sum(axis=1), 0.0)
    return divergence


def _bins(score: Floats, levels: Floats) -> Floats:
    """The place of the level that is nearest to each score, (n,)."""
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, score, side="right").astype(np.float64)
