"""The metrics of routing and calibration: pure functions over arrays and accuracies.

Owns the formulas, with their sources where they are not ours. Does not know models, files or questions. Every share is a
fraction 0 to 1, never a percentage. Invariant: an undefined figure (no data, only one class, no gap) is nan, never a
made-up number, and input that cannot be a share raises `BadData`.

Arrays have one dimension and one entry for each question, of anything that numpy converts to floats. `edge_correct` and
`cloud_correct` are 1 where that model is right and 0 where it is wrong (or, for a simulated cloud, the probability of being
right). `confidence` is the score of the edge model. `deferred` is true where the cloud was asked.
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
    """The effect of every threshold, in rising order of the deferral rate.

    All arrays are float64 (k + 1,), where k is the number of different confidences. `tau` is the largest threshold with
    that effect, or inf where everything is deferred. `rate` is the share deferred, 0 to 1, and `system` the accuracy.
    """

    tau: Floats
    rate: Floats
    system: Floats


def random_accuracy(edge: float, cloud: float, rate: float) -> float:
    """The accuracy when questions are deferred at random: `(1 - rate) * edge + rate * cloud`.

    Takes accuracies; nan stays nan. The "random" column of FogGen's tables. Raises `BadData`.
    """
    edge, cloud, rate = _share("edge", edge), _share("cloud", cloud), _share("rate", rate)
    return (1 - rate) * edge + rate * cloud


def system_accuracy(edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike, deferred: npt.ArrayLike) -> float:
    """The accuracy of edge and cloud together: the cloud's where `deferred`, the edge model's elsewhere.

    nan without questions. The "system" column of FogGen's tables. Raises `BadData`.
    """
    edge, cloud, ask = _shares(edge_correct=edge_correct, cloud_correct=cloud_correct, deferred=deferred)
    if ((ask != 0) & (ask != 1)).any():
        raise BadData("Not all entries of deferred are true or false; give true where the cloud was asked, and false elsewhere.")
    return _mean(np.where(ask == 1, cloud, edge))


def oracle_accuracy(edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike, rate: float) -> float:
    """The best accuracy that any routing can reach if it defers at most `rate` of the questions.

    It defers only questions that the cloud gets right and the edge model gets wrong. The number of questions is rounded
    down. nan without questions or with a nan rate. Raises `BadData`.
    """
    edge, cloud = _shares(edge_correct=edge_correct, cloud_correct=cloud_correct)
    rate = _share("rate", rate)
    if not len(edge) or math.isnan(rate):
        return math.nan
    n_deferred = math.floor(rate * len(edge) + _ROUNDING)  # a rate of k / n gives k
    gains = np.sort(np.maximum(cloud - edge, 0))[::-1]
    return float((edge.sum() + gains[:n_deferred].sum()) / len(edge))


def lift(system: float, edge: float, cloud: float, rate: float) -> float:
    """The gain from choosing the questions: `system` minus the accuracy of random routing at the same rate, -1 to 1.

    Takes accuracies; nan stays nan. FogGen's "lift". Raises `BadData`.
    """
    return _share("system", system) - random_accuracy(edge, cloud, rate)


def pgr(edge: float, cloud: float, system: float) -> float:
    """Performance gap recovered: `(system - edge) / (cloud - edge)`, 0 for the edge model alone, 1 for the cloud alone.

    Takes accuracies. Can be below 0 or above 1. nan if the cloud is not better than the edge model, because then there is no
    gap. This is our definition; papers may use the name for another formula. Raises `BadData`.
    """
    edge, cloud, system = _share("edge", edge), _share("cloud", cloud), _share("system", system)
    return (system - edge) / (cloud - edge) if cloud > edge else math.nan


def deferral_curve(confidence: npt.ArrayLike, edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike) -> DeferralCurve:
    """The deferral rate and the accuracy at every threshold, from nothing deferred to everything.

    A question is deferred if `confidence < tau`, so equal confidences are deferred together. Without questions the arrays
    are empty. Raises `BadData`.
    """
    score, edge, cloud = _shares(confidence=confidence, edge_correct=edge_correct, cloud_correct=cloud_correct)
    if not len(score):
        return DeferralCurve(score, score, score)
    values, group, counts = np.unique(score, return_inverse=True, return_counts=True)
    gains = np.bincount(group, weights=cloud - edge)
    rate = np.concatenate([[0], np.cumsum(counts)]) / len(score)
    system = np.concatenate([[edge.sum()], edge.sum() + np.cumsum(gains)]) / len(score)
    return DeferralCurve(np.append(values, np.inf), rate, np.clip(system, 0, 1))  # a sum may exceed 1 by a rounding error


def apgr(confidence: npt.ArrayLike, edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike) -> float:
    """Average performance gap recovered: the area under `pgr` over the deferral rate; 0.5 for random routing.

    The area is exact, with straight lines between the points of `deferral_curve`, as if equal confidences were deferred in
    random order. Do not compare it with means over a few chosen rates. nan where `pgr` is undefined. Raises `BadData`.
    """
    rate, recovered = _recovered(confidence, edge_correct, cloud_correct)
    return float(np.sum(np.diff(rate) * (recovered[1:] + recovered[:-1]) / 2)) if len(rate) else math.nan


def cpt(confidence: npt.ArrayLike, edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike, share: float) -> float:
    """Call-performance threshold: the lowest deferral rate that recovers `share` (0 to 1) of the gap.

    Interpolates between the points of `deferral_curve`, as `apgr` does. nan where `pgr` is undefined. Our own definition,
    like `pgr`. Raises `BadData`.
    """
    rate, recovered = _recovered(confidence, edge_correct, cloud_correct)
    share = _share("share", share)
    if not len(rate) or math.isnan(share):
        return math.nan
    at = int(np.argmax(recovered >= share - _ROUNDING))  # the last point recovers everything, so one exists
    if at == 0:
        return 0.0
    part = (share - recovered[at - 1]) / (recovered[at] - recovered[at - 1])
    return float(rate[at - 1] + min(part, 1.0) * (rate[at] - rate[at - 1]))


def auroc(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> float:
    """The probability that a right answer has a higher confidence than a wrong one, 0 to 1; ties count half.

    Uses ranks (Mann-Whitney U), O(n log n). `correct` holds only 0 and 1. nan if all answers are right or all are wrong.
    Source: Hanley & McNeil 1982, Radiology 143(1). Raises `BadData`.
    """
    score, right = _shares(confidence=confidence, correct=correct)
    if ((right != 0) & (right != 1)).any():
        raise BadData("Not all entries of correct are 0 or 1; AUROC needs answers that are right or wrong.")
    n_right = int(right.sum())
    n_wrong = len(right) - n_right
    if not n_right or not n_wrong:
        return math.nan
    _, group, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # from 1; equal confidences share their mean rank
    above = ranks[group][right == 1].sum() - n_right * (n_right + 1) / 2
    return float(above / (n_right * n_wrong))


def ece(confidence: npt.ArrayLike, correct: npt.ArrayLike, levels: npt.ArrayLike) -> float:
    """Expected calibration error: the mean distance between confidence and accuracy over bins, 0 to 1.

    A bin holds the confidences that are nearest to one of `levels` ((k,), rising; a tie goes to the higher one). Its mean
    confidence is compared with its accuracy. nan without questions. Source: Guo et al. 2017 (arXiv 1706.04599), with the
    levels of the model as bins. Raises `BadData`.
    """
    score, right = _shares(confidence=confidence, correct=correct)
    (at,) = _shares(levels=levels)
    if not len(at) or (np.diff(at) <= 0).any():
        raise BadData(f"The levels are {at.tolist()!s:.80}; give at least one, in rising order.")
    if not len(score):
        return math.nan
    bins = np.searchsorted((at[1:] + at[:-1]) / 2, score, side="right")
    gaps = np.bincount(bins, weights=score - right)  # sums, because the size of a bin cancels out with its weight
    return float(np.abs(gaps).sum() / len(score))


def brier(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> float:
    """The mean squared distance between the confidence and the outcome (0 or 1), 0 to 1; lower is better.

    nan without questions. Source: Brier 1950, Monthly Weather Review 78(1). Raises `BadData`.
    """
    score, right = _shares(confidence=confidence, correct=correct)
    return _mean((score - right) ** 2)


def ibc(system: float, edge: float, system_cost: float, edge_cost: float) -> float:
    """Incremental benefit per cost: the accuracy gained over the edge model for each unit of additional cost.

    Accuracies are 0 to 1; costs are 0 or more, all in the same unit. nan if there is no additional cost. Our own
    definition, like `pgr`. Raises `BadData`.
    """
    gained = _share("system", system) - _share("edge", edge)
    paid = _cost("system_cost", system_cost) - _cost("edge_cost", edge_cost)
    return gained / paid if paid else math.nan


def delta_ibc(system: float, edge: float, cloud: float, system_cost: float, edge_cost: float, cloud_cost: float) -> float:
    """By how much the `ibc` of routing exceeds that of the cloud alone, as a fraction: 0.5 means 50 % more.

    0 for random routing. nan if either is undefined or the cloud gains nothing. Our own definition. Raises `BadData`.
    """
    routed, base = ibc(system, edge, system_cost, edge_cost), ibc(cloud, edge, cloud_cost, edge_cost)
    return (routed - base) / base if base else math.nan


def kl_divergence(p: npt.ArrayLike, q: npt.ArrayLike) -> Floats:
    """The divergence of each distribution in `q` from the one in `p`: `sum(p * log(p / q))`, in nats.

    Both are float64 (n, k) with one distribution in each row; returns (n,). A `q` of 0 counts as 1e-12, so that one
    impossible outcome does not make a mean infinite. Source: Kullback and Leibler 1951. Raises `BadData`.
    """
    a, b = np.asarray(p, np.float64), np.asarray(q, np.float64)
    if a.ndim != 2 or a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()) or min(a.min(), b.min()) < 0:
        raise BadData(f"Cannot compare distributions of shapes {a.shape} and {b.shape}; give two tables of probabilities of one shape.")
    b = np.maximum(b, _LEAST_PROBABILITY)
    terms = np.where(a > 0, a * np.log(np.where(a > 0, a, 1.0) / b), 0.0)
    divergence: Floats = np.maximum(terms.sum(axis=1), 0.0)
    return divergence


def bootstrap_mean(values: npt.ArrayLike, n_draws: int = 1000) -> Interval:
    """The 95 % bootstrap interval of a mean, with a fixed seed; nan without values."""
    array = np.asarray(values, np.float64)
    if not len(array):
        return Interval(math.nan, math.nan)
    rng = np.random.default_rng(0)
    means = [float(rng.choice(array, len(array)).mean()) for _ in range(n_draws)]
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(low), float(high))


def wilson(n_right: int, n: int) -> Interval:
    """The 95 % interval of a share, from `n_right` of `n`; nan if `n` is 0.

    Source: Wilson 1927, Journal of the American Statistical Association 22. Raises `BadData`.
    """
    if not 0 <= n_right <= n:
        raise BadData(f"{n_right} of {n} is not a share; give counts with 0 <= n_right <= n.")
    if n == 0:
        return Interval(math.nan, math.nan)
    share, z2 = n_right / n, _Z_95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def _recovered(confidence: npt.ArrayLike, edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike) -> tuple[Floats, Floats]:
    """`pgr` along the deferral curve: rates and recovered shares, both (k + 1,); empty if undefined."""
    curve = deferral_curve(confidence, edge_correct, cloud_correct)
    nothing = np.empty(0)
    if not len(curve.rate):
        return nothing, nothing
    edge, cloud = curve.system[0], curve.system[-1]
    if cloud - edge <= _ROUNDING:  # sums of fractions: without a gap, a rounding error may remain
        return nothing, nothing
    return curve.rate, (curve.system - edge) / (cloud - edge)


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan


def _shares(**arrays: npt.ArrayLike) -> list[Floats]:
    """The arrays as float64 (n,), all of one length. Raises `BadData` with the name of a wrong one."""
    checked: list[Floats] = []
    for name, array in arrays.items():
        try:
            values = np.asarray(array, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise BadData(f"The array {name} does not hold numbers ({error}); give fractions from 0 to 1.") from error
        if values.ndim != 1:
            raise BadData(f"The array {name} has {values.ndim} dimensions; give one.")
        wrong = values[~((values >= 0) & (values <= 1))]
        if len(wrong):
            raise BadData(f"The array {name} holds {wrong[0]:g}; give fractions from 0 to 1.")
        if checked and len(values) != len(checked[0]):
            raise BadData(f"{name} has {len(values)} entries but {next(iter(arrays))} has {len(checked[0])}; give arrays of one length.")
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
