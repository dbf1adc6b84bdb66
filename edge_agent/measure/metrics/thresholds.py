"""Which tau reaches a goal: a rate, an accuracy or a cost.

Owns the way from a goal to (tau, tie_share), which `routing.is_below` applies. Gives no guarantee for other questions: a tau that
reaches its goal here may miss it elsewhere by the sampling error. Invariant: questions that must go to the cloud anyway count
towards every goal, and no tau changes them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_agent.core.errors import BadData
from edge_agent.measure.metrics.columns import ROUNDING, Floats, by_level, cost, costs, fraction, shares, truths
from edge_agent.measure.metrics.intervals import wilson_of


class Threshold(NamedTuple):
    """Defer below `tau` (0 to 1), and of the questions with exactly that score the share `tie_share` (0 to 1), by their draws."""

    tau: float
    tie_share: float


class AchievedRate(NamedTuple):
    """The deferral rate that was wanted, the one that came of it, and its 95 % Wilson interval; all fractions."""

    target: float
    rate: float
    low: float
    high: float


NOTHING, EVERYTHING = Threshold(0.0, 0.0), Threshold(1.0, 1.0)
"""The thresholds that keep every answer and that keep none."""


def deferred_by(score: npt.ArrayLike, threshold: Threshold, draws: npt.ArrayLike | None = None) -> npt.NDArray[np.bool_]:
    """Which questions a threshold defers (n,): `routing.is_below` for columns.

    `draws` are the questions' own numbers, 0 to below 1 (`routing.draw`); only a `tie_share` of 0 needs none. Raises `BadData`.
    """
    (scores,) = shares(score=score)
    tau, tie_share = fraction("tau", threshold[0]), fraction("tie_share", threshold[1])
    if draws is None and tie_share != 0:
        raise BadData(f"The tie share is {tie_share:g}; give the draws of the questions, which decide at the threshold.")
    own = np.zeros(len(scores)) if draws is None else _draws(draws, len(scores))
    below: npt.NDArray[np.bool_] = (scores < tau) | ((scores == tau) & (own < tie_share))
    return below


def threshold_for_rate(
    score: npt.ArrayLike, rate: float, draws: npt.ArrayLike | None = None, always: npt.ArrayLike | None = None
) -> Threshold:
    """The threshold that defers the share `rate` of the questions, whatever their ties.

    Without `draws`, `tie_share` is the fraction of a level that is wanted, and the rate is right in expectation. With the
    questions' `draws`, `tie_share` lies between two of them, so that exactly the nearest whole number of these questions is
    deferred. `always` is true where a question goes to the cloud whatever its score (no confidence); where these are more than
    `rate`, nothing else is deferred. Needs no gold answers. Raises `BadData`, also without questions.
    """
    scores, own, n_always = _routable(score, draws, always)
    return _at(scores, own, _finite("rate", rate) * (len(scores) + n_always) - n_always)


def threshold_for_accuracy(
    score: npt.ArrayLike,
    edge_correct: npt.ArrayLike,
    cloud_correct: npt.ArrayLike,
    accuracy: float,
    draws: npt.ArrayLike | None = None,
    always: npt.ArrayLike | None = None,
) -> Threshold | None:
    """The threshold with the lowest deferral rate whose expected accuracy is at least `accuracy`; None if no rate reaches it.

    The accuracy is that of edge and cloud together on these questions, expected over the order within a level. `draws` and
    `always` are those of `threshold_for_rate`. Raises `BadData`, also without questions.
    """
    goal = _finite("accuracy", accuracy)
    _, edge, cloud = shares(score=score, edge_correct=edge_correct, cloud_correct=cloud_correct)
    scores, own, _ = _routable(score, draws, always)
    free = _free(len(edge), always)
    _, counts, (gains,) = by_level(None, scores, (cloud - edge)[free])
    fixed = edge[free].sum() + cloud[~free].sum()
    system = (fixed + np.append(0.0, np.cumsum(gains))) / len(edge)
    reached = np.flatnonzero(system >= goal - ROUNDING)
    if not len(reached):
        return None
    at = int(reached[0])
    if at == 0:
        return NOTHING
    part = min(1.0, max(0.0, (goal - system[at - 1]) / (system[at] - system[at - 1])))
    before = counts[: at - 1].sum()
    return _at(scores, own, float(before + part * counts[at - 1]), up=True)


def threshold_for_cost(
    score: npt.ArrayLike,
    edge_cost: npt.ArrayLike,
    cloud_cost: npt.ArrayLike,
    budget: float,
    draws: npt.ArrayLike | None = None,
    always: npt.ArrayLike | None = None,
) -> Threshold | None:
    """The threshold with the highest deferral rate whose expected cost of a question is at most `budget`; None if none is so cheap.

    `edge_cost` is paid for every question and `cloud_cost` for a deferred one, each one number or one for each question. `draws` and
    `always` are those of `threshold_for_rate`. Needs no gold answers. Raises `BadData`, also without questions.
    """
    most = cost("budget", budget)
    scores, own, _ = _routable(score, draws, always)
    n = len(shares(score=score)[0])
    free = _free(n, always)
    spent, call = costs("edge_cost", edge_cost, n), costs("cloud_cost", cloud_cost, n)
    left = most * n - spent.sum() - call[~free].sum()
    if left < -ROUNDING * max(1.0, most * n):
        return None
    left = max(left, 0.0)
    values, counts, (paid,) = by_level(None, scores, call[free])
    after = np.append(0.0, np.cumsum(paid))
    at = int(np.searchsorted(after, left * (1 + ROUNDING), side="right")) - 1  # the levels that are deferred whole
    if at == len(values):
        return EVERYTHING
    part = (left - after[at]) / paid[at]
    return _at(scores, own, float(counts[:at].sum() + min(max(part, 0.0), 1.0) * counts[at]), down=True)


def achieved_rate(deferred: npt.ArrayLike, target: float) -> AchievedRate:
    """The rate of `deferred` (0 or 1 for each question) beside the one that was wanted; nan without questions. Raises `BadData`."""
    (flags,) = shares(deferred=deferred)
    flags = truths("deferred", flags, len(flags))
    rate = float(flags.mean()) if len(flags) else math.nan
    low, high = wilson_of(np.array(rate), np.array(len(flags)))
    return AchievedRate(fraction("target", target), rate, float(low), float(high))


def _at(scores: Floats, draws: Floats | None, n_deferred: float, up: bool = False, down: bool = False) -> Threshold:
    """The threshold that defers `n_deferred` of the scores; a fraction of a question is rounded to the nearest, up or down."""
    n_deferred = min(max(n_deferred, 0.0), float(len(scores)))
    if draws is not None:
        n_deferred = math.ceil(n_deferred - ROUNDING) if up else math.floor(n_deferred + (ROUNDING if down else 0.5))
    if n_deferred <= ROUNDING:
        return NOTHING
    if n_deferred >= len(scores) - ROUNDING:
        return EVERYTHING
    values, counts, _ = by_level(None, scores)
    after = np.cumsum(counts)
    level = int(np.searchsorted(after, n_deferred + ROUNDING))
    wanted = n_deferred - (after[level] - counts[level])
    if wanted <= ROUNDING:
        return Threshold(float(values[level]), 0.0)
    if draws is None:
        return Threshold(float(values[level]), float(wanted / counts[level]))
    own = np.sort(draws[scores == values[level]])
    return Threshold(float(values[level]), float((own[int(wanted) - 1] + own[int(wanted)]) / 2))


def _routable(score: npt.ArrayLike, draws: npt.ArrayLike | None, always: npt.ArrayLike | None) -> tuple[Floats, Floats | None, int]:
    """The scores and draws that a threshold decides, and how many questions are deferred whatever it is."""
    (scores,) = shares(score=score)
    if not len(scores):
        raise BadData("There are no scores; give at least one, to choose a threshold from.")
    free = _free(len(scores), always)
    own = None if draws is None else _draws(draws, len(scores))[free]
    return scores[free], own, int((~free).sum())


def _free(n: int, always: npt.ArrayLike | None) -> npt.NDArray[np.bool_]:
    return np.ones(n, bool) if always is None else truths("always", always, n) == 0


def _draws(draws: npt.ArrayLike, n: int) -> Floats:
    (own,) = shares(draws=draws)
    if len(own) != n:
        raise BadData(f"There are {len(own)} draws for {n} scores; give one for each.")
    return own


def _finite(name: str, value: float) -> float:
    number = fraction(name, value)
    if math.isnan(number):
        raise BadData(f"The value of {name} is nan; give a fraction from 0 to 1.")
    return number
