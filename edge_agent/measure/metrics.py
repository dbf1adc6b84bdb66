"""The figures of routing and calibration: pure functions over arrays and accuracies.

Owns the formulas, and their sources where they are not ours; knows no model, no file, no question. Every share is a
fraction 0 to 1, never a percentage. Invariant: a figure that is undefined (nothing measured, one class only, no gap to
close) is nan, never a made-up number, and input that cannot be a share raises `BadData`.

Arrays are 1-dimensional, one entry a question, of anything numpy makes floats of: `edge_correct` and `cloud_correct`
hold 1 where that model is right and 0 where it is wrong (or a probability of being right, for a simulated cloud),
`confidence` the edge model's score, `deferred` true where the cloud was asked.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_agent.core.errors import BadData

Floats = npt.NDArray[np.float64]
_Z_95 = 1.959963984540054  # the normal distribution's 97.5 % point
_ROUNDING = 1e-9
_LEAST_PROBABILITY = 1e-12


class Interval(NamedTuple):
    """The 95 % confidence interval of a share or a mean."""

    low: float
    high: float


class DeferralCurve(NamedTuple):
    """What every threshold would do, in rising order of the deferral rate.

    All float64 (k + 1,), k being the number of different confidences: `tau` is the largest threshold with that
    effect, inf where even the highest confidence is deferred; `rate` the share deferred, 0 to 1; `system` the
    accuracy then.
    """

    tau: Floats
    rate: Floats
    system: Floats


def random_accuracy(edge: float, cloud: float, rate: float) -> float:
    """Accuracy when questions are deferred at random: `(1 - rate) * edge + rate * cloud`.

    From accuracies; nan stays nan. The "random" column of FogGen's tables. Raises `BadData`.
    """
    edge, cloud, rate = _share("edge", edge), _share("cloud", cloud), _share("rate", rate)
    return (1 - rate) * edge + rate * cloud


def system_accuracy(edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike, deferred: npt.ArrayLike) -> float:
    """Accuracy of edge and cloud together: the cloud's where `deferred`, the edge model's elsewhere.

    nan without questions. The "system" column of FogGen's tables. Raises `BadData`.
    """
    edge, cloud, ask = _shares(edge_correct=edge_correct, cloud_correct=cloud_correct, deferred=deferred)
    if ((ask != 0) & (ask != 1)).any():
        raise BadData("The entries of deferred are not all true or false; say for every question whether the cloud was asked.")
    return _mean(np.where(ask == 1, cloud, edge))


def oracle_accuracy(edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike, rate: float) -> float:
    """The best accuracy that any routing can reach while it defers at most `rate` of the questions.

    It defers those that the cloud wins and the edge model loses, and no others; the number of questions is rounded
    down. nan without questions or with a nan rate. Raises `BadData`.
    """
    edge, cloud = _shares(edge_correct=edge_correct, cloud_correct=cloud_correct)
    rate = _share("rate", rate)
    if not len(edge) or math.isnan(rate):
        return math.nan
    n_deferred = math.floor(rate * len(edge) + _ROUNDING)  # a rate that was k / n comes back as k
    gains = np.sort(np.maximum(cloud - edge, 0))[::-1]
    return float((edge.sum() + gains[:n_deferred].sum()) / len(edge))


def lift(system: float, edge: float, cloud: float, rate: float) -> float:
    """What choosing the questions is worth: `system` minus random routing's accuracy at the same rate, -1 to 1.

    From accuracies; nan stays nan. FogGen's "lift". Raises `BadData`.
    """
    return _share("system", system) - random_accuracy(edge, cloud, rate)


def pgr(edge: float, cloud: float, system: float) -> float:
    """Performance gap recovered: `(system - edge) / (cloud - edge)`, 0 for the edge model alone, 1 for the cloud alone.

    From accuracies; may leave 0 to 1. nan where the cloud is no better than the edge model: there is no gap.
    Defined here: papers that use the name may mean another formula. Raises `BadData`.
    """
    edge, cloud, system = _share("edge", edge), _share("cloud", cloud), _share("system", system)
    return (system - edge) / (cloud - edge) if cloud > edge else math.nan


def deferral_curve(confidence: npt.ArrayLike, edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike) -> DeferralCurve:
    """Rate and accuracy at every threshold, from nothing deferred to everything.

    A question is deferred where `confidence < tau`, so equal confidences go together. Without questions the arrays are
    empty. Raises `BadData`.
    """
    score, edge, cloud = _shares(confidence=confidence, edge_correct=edge_correct, cloud_correct=cloud_correct)
    if not len(score):
        return DeferralCurve(score, score, score)
    values, group, counts = np.unique(score, return_inverse=True, return_counts=True)
    gains = np.bincount(group, weights=cloud - edge)
    rate = np.concatenate([[0], np.cumsum(counts)]) / len(score)
    system = np.concatenate([[edge.sum()], edge.sum() + np.cumsum(gains)]) / len(score)
    return DeferralCurve(np.append(values, np.inf), rate, np.clip(system, 0, 1))  # a sum may pass 1 by its last bit


def apgr(confidence: npt.ArrayLike, edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike) -> float:
    """Average performance gap recovered: the area under `pgr` over the deferral rate; 0.5 for random routing.

    The area is exact, with straight lines between the points of `deferral_curve` (equal confidences deferred in random
    order): not a mean over chosen rates, so not to be compared with figures made that way. nan where `pgr` is undefined.
    Raises `BadData`.
    """
    rate, recovered = _recovered(confidence, edge_correct, cloud_correct)
    return float(np.sum(np.diff(rate) * (recovered[1:] + recovered[:-1]) / 2)) if len(rate) else math.nan


def cpt(confidence: npt.ArrayLike, edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike, share: float) -> float:
    """Call-performance threshold: the least deferral rate at which `share` (0 to 1) of the gap is recovered.

    Between two points of `deferral_curve` the line counts, as in `apgr`. nan where `pgr` is undefined.
    Defined here, as `pgr`. Raises `BadData`.
    """
    rate, recovered = _recovered(confidence, edge_correct, cloud_correct)
    share = _share("share", share)
    if not len(rate) or math.isnan(share):
        return math.nan
    at = int(np.argmax(recovered >= share - _ROUNDING))  # the last point recovers everything, so there is one
    if at == 0:
        return 0.0
    part = (share - recovered[at - 1]) / (recovered[at] - recovered[at - 1])
    return float(rate[at - 1] + min(part, 1.0) * (rate[at] - rate[at - 1]))


def auroc(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> float:
    """Probability that a right answer has a higher confidence than a wrong one, ties counting half, 0 to 1.

    By ranks (Mann-Whitney U), O(n log n). `correct` holds only 0 and 1. nan where all answers are right or all wrong.
    Source: Hanley & McNeil 1982, Radiology 143(1). Raises `BadData`.
    """
    score, right = _shares(confidence=confidence, correct=correct)
    if ((right != 0) & (right != 1)).any():
        raise BadData("The entries of correct are not all 0 or 1; AUROC needs answers that are right or wrong.")
    n_right = int(right.sum())
    n_wrong = len(right) - n_right
    if not n_right or not n_wrong:
        return math.nan
    _, group, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # counted from 1; equal confidences share their mean rank
    above = ranks[group][right == 1].sum() - n_right * (n_right + 1) / 2
    return float(above / (n_right * n_wrong))


def ece(confidence: npt.ArrayLike, correct: npt.ArrayLike, levels: npt.ArrayLike) -> float:
    """Expected calibration error: the mean distance between confidence and share right, over bins, 0 to 1.

    A bin holds the confidences nearest to one of `levels` ((k,), rising; half way belongs to the higher one), and its
    mean confidence is compared with the share right in it. nan without questions.
    Source: Guo et al. 2017 (arXiv 1706.04599), with the model's own levels for bins. Raises `BadData`.
    """
    score, right = _shares(confidence=confidence, correct=correct)
    (at,) = _shares(levels=levels)
    if not len(at) or (np.diff(at) <= 0).any():
        raise BadData(f"The levels are {at.tolist()!s:.80}; give at least one, in rising order.")
    if not len(score):
        return math.nan
    bins = np.searchsorted((at[1:] + at[:-1]) / 2, score, side="right")
    gaps = np.bincount(bins, weights=score - right)  # of sums: the bin's size cancels against its weight
    return float(np.abs(gaps).sum() / len(score))


def brier(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> float:
    """Mean squared distance between confidence and being right, 0 to 1; lower is better.

    nan without questions. Source: Brier 1950, Monthly Weather Review 78(1). Raises `BadData`.
    """
    score, right = _shares(confidence=confidence, correct=correct)
    return _mean((score - right) ** 2)


def ibc(system: float, edge: float, system_cost: float, edge_cost: float) -> float:
    """Incremental benefit per cost: accuracy gained over the edge model for each unit of cost beyond its own.

    Accuracies 0 to 1; costs 0 or more in any one unit. nan where nothing more is paid.
    Defined here, as `pgr`. Raises `BadData`.
    """
    gained = _share("system", system) - _share("edge", edge)
    paid = _cost("system_cost", system_cost) - _cost("edge_cost", edge_cost)
    return gained / paid if paid else math.nan


def delta_ibc(system: float, edge: float, cloud: float, system_cost: float, edge_cost: float, cloud_cost: float) -> float:
    """How much more a router's `ibc` is than the cloud's, as a fraction: 0.5 is half as much again; 0 for random routing.

    nan where either is undefined, or where the cloud gains nothing. Defined here, as `ibc`. Raises `BadData`.
    """
    routed, base = ibc(system, edge, system_cost, edge_cost), ibc(cloud, edge, cloud_cost, edge_cost)
    return (routed - base) / base if base else math.nan


def kl_divergence(p: npt.ArrayLike, q: npt.ArrayLike) -> Floats:
    """How far each distribution in `q` is from the one in `p`: `sum(p * log(p / q))`, in nats.

    Both float64 (n, k), each row a distribution; gives (n,). A `q` of 0 counts as 1e-12, so that one impossible outcome does
    not make a mean infinite. Source: Kullback and Leibler 1951. Raises `BadData`.
    """
    a, b = np.asarray(p, np.float64), np.asarray(q, np.float64)
    if a.ndim != 2 or a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()) or min(a.min(), b.min()) < 0:
        raise BadData(f"Distributions of shapes {a.shape} and {b.shape} cannot be compared; give two tables of probabilities of one shape.")
    b = np.maximum(b, _LEAST_PROBABILITY)
    terms = np.where(a > 0, a * np.log(np.where(a > 0, a, 1.0) / b), 0.0)
    divergence: Floats = np.maximum(terms.sum(axis=1), 0.0)
    return divergence


def bootstrap_mean(values: npt.ArrayLike, n_draws: int = 1000) -> Interval:
    """The 95 % bootstrap interval of a mean, drawn with a fixed seed; nan without values."""
    array = np.asarray(values, np.float64)
    if not len(array):
        return Interval(math.nan, math.nan)
    rng = np.random.default_rng(0)
    means = [float(rng.choice(array, len(array)).mean()) for _ in range(n_draws)]
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(low), float(high))


def wilson(n_right: int, n: int) -> Interval:
    """The 95 % interval of a share of which `n_right` of `n` were seen; nan without any.

    Source: Wilson 1927, Journal of the American Statistical Association 22. Raises `BadData`.
    """
    if not 0 <= n_right <= n:
        raise BadData(f"{n_right} of {n} is no share; give counts with 0 <= n_right <= n.")
    if n == 0:
        return Interval(math.nan, math.nan)
    share, z2 = n_right / n, _Z_95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def _recovered(confidence: npt.ArrayLike, edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike) -> tuple[Floats, Floats]:
    """`pgr` along the deferral curve: rates and shares recovered, both (k + 1,); empty where undefined."""
    curve = deferral_curve(confidence, edge_correct, cloud_correct)
    nothing = np.empty(0)
    if not len(curve.rate):
        return nothing, nothing
    edge, cloud = curve.system[0], curve.system[-1]
    if cloud - edge <= _ROUNDING:  # sums of fractions, so "no gap" may come out as a last bit
        return nothing, nothing
    return curve.rate, (curve.system - edge) / (cloud - edge)


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan


def _shares(**arrays: npt.ArrayLike) -> list[Floats]:
    """The arrays as float64 (n,), all of one length, or `BadData` naming the one that is wrong."""
    checked: list[Floats] = []
    for name, array in arrays.items():
        try:
            values = np.asarray(array, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise BadData(f"The array {name} is not of numbers ({error}); give fractions from 0 to 1.") from error
        if values.ndim != 1:
            raise BadData(f"The array {name} has {values.ndim} dimensions; give one.")
        wrong = values[~((values >= 0) & (values <= 1))]
        if len(wrong):
            raise BadData(f"The array {name} holds {wrong[0]:g}; give fractions from 0 to 1.")
        if checked and len(values) != len(checked[0]):
            raise BadData(f"The array {name} has {len(values)} entries and {next(iter(arrays))} {len(checked[0])}; give as many of each.")
        checked.append(values)
    return checked


def _share(name: str, value: float) -> float:
    if not (math.isnan(value) or 0 <= value <= 1):
        raise BadData(f"The value of {name} is {value!r}; give a fraction from 0 to 1.")
    return float(value)


def _cost(name: str, value: float) -> float:
    if not 0 <= value < math.inf:
        raise BadData(f"The value of {name} is {value!r}; give a cost of 0 or more.")
    return float(value)
