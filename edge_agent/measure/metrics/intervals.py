"""How sure a figure is: Wilson's interval of a share, and the bootstrap over questions, paired where two things are compared.

Owns the intervals and the draws behind them. Invariant: with the same data and seed every draw is the same, so a table made again
prints the same ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_agent.core.errors import BadData
from edge_agent.measure.metrics.columns import LARGEST, Floats, Metric, Weights, count, mean_of, metric, numbers

_Z_95 = 1.959963984540054  # the normal distribution's 97.5 % point
_CELLS = 1 << 20  # of weights at a time
_TAIL = 0.025


class Interval(NamedTuple):
    """The 95 % confidence interval of a share or a mean."""

    low: float
    high: float


class Difference(NamedTuple):
    """How much more the first of two has than the second, with its 95 % interval."""

    difference: float
    interval: Interval


@metric
def mean(weights: Weights | None, values: npt.ArrayLike) -> Floats:
    """The mean of any finite numbers (n,), such as the share of right answers; nan without values. Raises `BadData`."""
    return mean_of(weights, _column(values))


def bootstrap(metric: Metric[...], *columns: npt.ArrayLike, n_draws: int = 1000, seed: int = 0, **parameters: Any) -> Interval:
    """The 95 % bootstrap interval of a metric over questions: the percentiles of its values in `n_draws` resamples.

    `columns` (n,) are the arrays that `metric` takes, one entry for each question; `parameters` are its other values, by name:
    `bootstrap(cpt, confidence, edge_correct, cloud_correct, share=0.5)`. Each resample draws n questions with replacement. nan if the
    figure is undefined, or if it is in more than 2.5 % of the resamples, because an end is then not known. Needs about 0.2 s for
    1,000 draws of 16,200 questions; beyond 100,000 questions with a continuous score, fewer draws do. Source: Efron & Tibshirani
    1993, chapter 13. Raises `BadData`.
    """
    rows, counts = _distinct([_column(column) for column in columns])
    if not len(counts) or math.isnan(metric(*columns, **parameters)):
        return Interval(math.nan, math.nan)
    drawn = [metric.resampled(weights, *rows, **parameters) for weights in _resamples(counts, n_draws, seed)]
    return _percentiles(np.concatenate(drawn))


def paired_difference(
    metric: Metric[...],
    a: Sequence[npt.ArrayLike],
    b: Sequence[npt.ArrayLike],
    n_draws: int = 1000,
    seed: int = 0,
    **parameters: Any,
) -> Difference:
    """`metric(*a) - metric(*b)` with its 95 % bootstrap interval, paired by question.

    `a` and `b` are the columns of two readouts, two quantizations or two runs over the same questions in the same order. Each
    resample draws the same questions for both, so what makes a question hard for both does not blur the difference. Undefined as in
    `bootstrap`. Raises `BadData`.
    """
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        raise BadData("Cannot pair single arrays; give the columns of each side as a tuple.")
    both = [*a, *b]
    rows, counts = _distinct([_column(column) for column in both])
    difference = metric(*a, **parameters) - metric(*b, **parameters)
    if not len(counts) or math.isnan(difference):
        return Difference(difference, Interval(math.nan, math.nan))
    first, second = rows[: len(a)], rows[len(a) :]
    drawn = [
        metric.resampled(weights, *first, **parameters) - metric.resampled(weights, *second, **parameters)
        for weights in _resamples(counts, n_draws, seed)
    ]
    return Difference(difference, _percentiles(np.concatenate(drawn)))


def bootstrap_mean(values: npt.ArrayLike, n_draws: int = 1000) -> Interval:
    """The 95 % bootstrap interval of a mean, with a fixed seed; nan without values. Raises `BadData`."""
    return bootstrap(mean, values, n_draws=n_draws)


def wilson(n_right: int, n: int) -> Interval:
    """The 95 % interval of a share, from `n_right` of `n`; nan if `n` is 0.

    Source: Wilson 1927, Journal of the American Statistical Association 22. Raises `BadData`.
    """
    if not all(isinstance(number, (int, float, np.number)) for number in (n_right, n)) or not 0 <= n_right <= n < LARGEST:
        raise BadData(f"{n_right!s:.20} of {n!s:.20} is not a share; give counts with 0 <= n_right <= n.")
    low, high = wilson_of(np.array(n_right / n if n else math.nan), np.array(n))
    return Interval(float(low), float(high))


def wilson_of(shares: Floats, n: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """`wilson` for arrays of shares and of the numbers that they come from: the lower and the upper ends, nan where n is 0."""
    z2, known = _Z_95**2, np.where(n > 0, n, np.nan)
    middle = (shares + z2 / (2 * known)) / (1 + z2 / known)
    half = _Z_95 * np.sqrt(shares * (1 - shares) / known + z2 / (4 * known * known)) / (1 + z2 / known)
    return np.maximum(0.0, middle - half), np.minimum(1.0, middle + half)


def _column(values: npt.ArrayLike) -> Floats:
    array = numbers("values", values)
    if array.ndim != 1 or not (np.abs(array) < LARGEST).all():
        raise BadData(f"A column has {array.ndim} dimensions or holds nan or a number beyond {LARGEST:g}; give one number a question.")
    return array


def _distinct(columns: list[Floats]) -> tuple[list[Floats], npt.NDArray[np.int64]]:
    """The different rows, in the order of the first column, and how often each occurs.

    A resample is then a draw of counts over these rows, which is exact and short where a score has five levels.
    """
    if not columns or len({len(column) for column in columns}) > 1:
        raise BadData(f"The columns have {[len(column) for column in columns]} entries; give columns of one length.")
    code = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        _, place = np.unique(column, return_inverse=True)
        _, code = np.unique(code * (int(place.max(initial=0)) + 1) + place, return_inverse=True)
    _, first, counts = np.unique(code, return_index=True, return_counts=True)
    return [column[first] for column in columns], counts


def _resamples(counts: npt.NDArray[np.int64], n_draws: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Draws of n questions with replacement, as counts over the different rows, (at most _CELLS / g, g) at a time."""
    n_draws = count("number of draws", n_draws)
    rng = np.random.default_rng(seed)
    n, n_rows = int(counts.sum()), len(counts)
    owner = np.repeat(np.arange(n_rows), counts) if n_rows < n else None
    for start in range(0, n_draws, size := max(1, _CELLS // n_rows)):
        m = min(size, n_draws - start)
        if n_rows * 10 < n:
            yield rng.multinomial(n, counts / n, size=m)
            continue
        places = (rng.integers(0, n, n) for _ in range(m))
        yield np.stack([np.bincount(at if owner is None else owner[at], minlength=n_rows) for at in places])


def _percentiles(drawn: Floats) -> Interval:
    defined = drawn[~np.isnan(drawn)]
    if len(defined) < (1 - _TAIL) * len(drawn):
        return Interval(math.nan, math.nan)
    low, high = np.percentile(defined, (100 * _TAIL, 100 * (1 - _TAIL)))
    return Interval(float(low), float(high))
