"""What routing is worth: accuracies, the gap that is recovered, the deferral curve and its bounds.

Owns the formulas over routed answers. `columns.py` checks the input, `thresholds.py` picks a tau. Invariant: questions with the
same confidence are deferred in random order, and the figures are expected values over that order. So any rate can be reached.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_agent.measure.metrics.columns import ROUNDING, Floats, Weights, by_level, count, fraction, mean_of, metric, ratio, shares, truths


class Curve(NamedTuple):
    """A line of straight pieces: the accuracy `system` (p,) at each deferral `rate` (p,), both fractions, the rates rising."""

    rate: Floats
    system: Floats


class DeferralCurve(NamedTuple):
    """The effect of every threshold, in rising order of the deferral rate.

    All arrays are float64 (k + 1,), where k is the number of different confidences. `tau` is the largest threshold with
    that effect, or inf where everything is deferred. `rate` is the share deferred, 0 to 1, and `system` the accuracy.
    Between two points the accuracy is linear: of the questions at one level, a random share is deferred.
    """

    tau: Floats
    rate: Floats
    system: Floats


def random_accuracy(edge: float, cloud: float, rate: float) -> float:
    """The accuracy when questions are deferred at random: `(1 - rate) * edge + rate * cloud`.

    Takes accuracies; nan stays nan. The "random" column of FogGen's tables. Raises `BadData`.
    """
    edge, cloud, rate = fraction("edge", edge), fraction("cloud", cloud), fraction("rate", rate)
    return (1 - rate) * edge + rate * cloud


def lift(system: float, edge: float, cloud: float, rate: float) -> float:
    """The gain from choosing the questions: `system` minus the accuracy of random routing at the same rate, -1 to 1.

    Takes accuracies; nan stays nan. FogGen's "lift". Raises `BadData`.
    """
    return fraction("system", system) - random_accuracy(edge, cloud, rate)


def pgr(edge: float, cloud: float, system: float) -> float:
    """Performance gap recovered: `(system - edge) / (cloud - edge)`, 0 for the edge model alone, 1 for the cloud alone.

    Takes accuracies. Can be below 0 or above 1. nan if the cloud is not better than the edge model, because then there is no
    gap. Source: RouteLLM (Ong et al. 2024, arXiv 2406.18665), where edge and cloud are the weak and the strong model.
    Raises `BadData`.
    """
    edge, cloud, system = fraction("edge", edge), fraction("cloud", cloud), fraction("system", system)
    return (system - edge) / (cloud - edge) if cloud > edge else math.nan


@metric
def system_accuracy(weights: Weights | None, edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike, deferred: npt.ArrayLike) -> Floats:
    """The accuracy of edge and cloud together: the cloud's where `deferred`, the edge model's elsewhere.

    nan without questions. The "system" column of FogGen's tables. Raises `BadData`.
    """
    edge, cloud, ask = _routed(edge_correct, cloud_correct, deferred)
    return mean_of(weights, np.where(ask == 1, cloud, edge))


@metric
def system_lift(weights: Weights | None, edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike, deferred: npt.ArrayLike) -> Floats:
    """`lift` of answers that were routed: `system_accuracy` minus random routing at the rate of `deferred`.

    nan without questions. Raises `BadData`.
    """
    edge, cloud, ask = _routed(edge_correct, cloud_correct, deferred)
    rate, alone, asked = mean_of(weights, ask), mean_of(weights, edge), mean_of(weights, cloud)
    return mean_of(weights, np.where(ask == 1, cloud, edge)) - ((1 - rate) * alone + rate * asked)


@metric
def system_pgr(weights: Weights | None, edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike, deferred: npt.ArrayLike) -> Floats:
    """`pgr` of answers that were routed; nan without questions or without a gap. Raises `BadData`."""
    edge, cloud, ask = _routed(edge_correct, cloud_correct, deferred)
    gained = mean_of(weights, np.where(ask == 1, cloud - edge, 0.0))
    return ratio(gained, _gap(mean_of(weights, cloud) - mean_of(weights, edge)))


@metric
def oracle_accuracy(weights: Weights | None, edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike, rate: float) -> Floats:
    """The best accuracy that any routing can reach if it defers at most `rate` of the questions.

    It defers only questions that the cloud gets right and the edge model gets wrong. The number of questions is rounded
    down. nan without questions or with a nan rate. Raises `BadData`.
    """
    edge, cloud = shares(edge_correct=edge_correct, cloud_correct=cloud_correct)
    rate = fraction("rate", rate)
    gains, counts, (alone,) = by_level(weights, np.maximum(cloud - edge, 0), edge)
    n = counts.sum(axis=-1)
    n_deferred = np.floor(rate * n + ROUNDING)[..., None]  # a rate of k / n gives k
    after = np.cumsum(counts[..., ::-1], axis=-1)  # the largest gains first
    taken = np.clip(n_deferred - (after - counts[..., ::-1]), 0, counts[..., ::-1])
    return ratio(alone.sum(axis=-1) + taken @ gains[::-1], n)


@metric
def accuracy_at_rate(
    weights: Weights | None, confidence: npt.ArrayLike, edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike, rate: float
) -> Floats:
    """The accuracy expected when the share `rate` with the lowest confidence is deferred; any rate can be reached.

    Within a level, the questions are drawn at random. For many rates at once use `numpy.interp(rates, curve.rate, curve.system)`
    with `deferral_curve`. nan without questions or with a nan rate. Raises `BadData`.
    """
    _, rates, system = _curve(weights, confidence, edge_correct, cloud_correct)
    return _interpolated(np.array([fraction("rate", rate)]), rates, system)[..., 0]


def deferral_curve(confidence: npt.ArrayLike, edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike) -> DeferralCurve:
    """The deferral rate and the accuracy at every threshold, from nothing deferred to everything.

    A question is deferred if `confidence < tau`, so the points are where whole levels are deferred; see `DeferralCurve` for what
    lies between. Without questions the arrays are empty. The curve of model cascades (Gupta et al. 2024, arXiv 2404.10136).
    Raises `BadData`.
    """
    values, rate, system = _curve(None, confidence, edge_correct, cloud_correct)
    if not len(values):
        return DeferralCurve(values, values, values)
    return DeferralCurve(np.append(values, np.inf), rate, np.clip(system, 0, 1))  # a sum may exceed 1 by a rounding error


def oracle_curve(edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike) -> Curve:
    """The best accuracy at every rate: first the questions that gain most from the cloud, then no more. Bounds every router.

    Goes flat where only questions are left that the cloud would not improve. Without questions the arrays are empty.
    Raises `BadData`.
    """
    edge, cloud = shares(edge_correct=edge_correct, cloud_correct=cloud_correct)
    if not len(edge):
        return Curve(edge, edge)
    gains, counts, _ = by_level(None, np.maximum(cloud - edge, 0))
    rate = np.append(0.0, np.cumsum(counts[::-1]) / len(edge))
    gained = np.append(0.0, np.cumsum((gains * counts)[::-1]) / len(edge))
    return Curve(rate, np.clip(edge.mean() + gained, 0, 1))


def random_line(edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike) -> Curve:
    """Random routing at every rate: the straight line from the edge model's accuracy to the cloud's. Raises `BadData`."""
    edge, cloud = shares(edge_correct=edge_correct, cloud_correct=cloud_correct)
    if not len(edge):
        return Curve(edge, edge)
    return Curve(np.array([0.0, 1.0]), np.array([edge.mean(), cloud.mean()]))


@metric
def apgr(
    weights: Weights | None,
    confidence: npt.ArrayLike,
    edge_correct: npt.ArrayLike,
    cloud_correct: npt.ArrayLike,
    n_bins: int | None = None,
) -> Floats:
    """Average performance gap recovered: the area under `pgr` over the deferral rate; 0.5 for random routing.

    The area is exact by default: straight lines between all points of `deferral_curve`, which is the integral that defines APGR
    (Ong et al. 2024, arXiv 2406.18665). With `n_bins=10` it is the trapezoid over the rates 0, 0.1, ... 1, as RouteLLM's code
    computes its tables. The paper's text averages `pgr` over ten rates instead: over 0.1, 0.2, ... 1 that is 0.05 higher for
    every router, and random routing would have 0.55. nan where `pgr` is undefined. Raises `BadData`.
    """
    rate, recovered = _recovered(weights, confidence, edge_correct, cloud_correct)
    if n_bins is not None:
        grid = np.linspace(0, 1, count("number of bins", n_bins) + 1)
        rate, recovered = grid, _interpolated(grid, rate, recovered)
    area = np.sum(np.diff(rate, axis=-1) * (recovered[..., 1:] + recovered[..., :-1]) / 2, axis=-1)
    return np.where(np.isnan(recovered[..., -1]), np.nan, area)


@metric
def cpt(
    weights: Weights | None, confidence: npt.ArrayLike, edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike, share: float
) -> Floats:
    """Call-performance threshold: the least share of cloud calls that recovers `share` (0 to 1) of the gap; CPT(50 %) has 0.5.

    Interpolates between the points of `deferral_curve`, as `apgr` does; random routing needs `share` itself. Where the curve
    crosses its goal more than once, the first crossing counts, as in the definition (Ong et al. 2024, arXiv 2406.18665);
    RouteLLM's code interpolates as if the curve were rising, which agrees on rising curves. nan where `pgr` is undefined.
    Raises `BadData`.
    """
    goal = fraction("share", share)
    rate, recovered = _recovered(weights, confidence, edge_correct, cloud_correct)
    reached = recovered >= goal - ROUNDING
    at = np.argmax(reached, axis=-1)[..., None]
    before = np.maximum(at - 1, 0)
    x0, x1 = np.take_along_axis(rate, before, axis=-1), np.take_along_axis(rate, at, axis=-1)
    y0, y1 = np.take_along_axis(recovered, before, axis=-1), np.take_along_axis(recovered, at, axis=-1)
    part = np.where(at > 0, np.minimum(ratio(goal - y0, y1 - y0), 1.0), 0.0)
    return np.where(reached.any(axis=-1), (x0 + part * (x1 - x0))[..., 0], np.nan)  # nothing is reached without a gap


def _curve(
    weights: Weights | None, confidence: npt.ArrayLike, edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike
) -> tuple[Floats, Floats, Floats]:
    """The confidences, rising (k,), and the rates and accuracies before each and after the last, (..., k + 1)."""
    score, edge, cloud = shares(confidence=confidence, edge_correct=edge_correct, cloud_correct=cloud_correct)
    values, counts, (alone, gains) = by_level(weights, score, edge, cloud - edge)
    n = counts.sum(axis=-1, keepdims=True)
    rate = ratio(np.cumsum(_from_zero(counts), axis=-1), n)
    system = ratio(alone.sum(axis=-1, keepdims=True) + np.cumsum(_from_zero(gains), axis=-1), n)
    return values, rate, system


def _recovered(
    weights: Weights | None, confidence: npt.ArrayLike, edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike
) -> tuple[Floats, Floats]:
    """`pgr` along the deferral curve: rates and recovered shares, both (..., k + 1); nan without a gap."""
    _, rate, system = _curve(weights, confidence, edge_correct, cloud_correct)
    edge = system[..., :1]
    return rate, ratio(system - edge, _gap(system[..., -1:] - edge))


def _gap(gap: Floats) -> Floats:
    """The gap, nan if there is none; sums of fractions leave a rounding error where it is 0."""
    return np.where(gap > ROUNDING, gap, np.nan)


def _from_zero(values: Floats) -> Floats:
    return np.concatenate([np.zeros((*values.shape[:-1], 1)), values], axis=-1)


def _interpolated(at: Floats, x: Floats, y: Floats) -> Floats:
    """The lines through the points (x, y), both (..., p), at `at` (r,): (..., r)."""
    if x.ndim == 1:
        return np.interp(at, x, y)
    return np.array([np.interp(at, row, height) for row, height in zip(x, y, strict=True)]).reshape(len(x), len(at))


def _routed(edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike, deferred: npt.ArrayLike) -> list[Floats]:
    edge, cloud = shares(edge_correct=edge_correct, cloud_correct=cloud_correct)
    return [edge, cloud, truths("deferred", deferred, len(edge))]
