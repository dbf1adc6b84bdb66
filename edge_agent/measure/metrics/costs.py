"""What accuracy costs: IBC, the cost-accuracy curve, and the price of a call.

Owns the formulas with money (or time, or passes) in them. Costs are numbers of 0 or more, all in one unit, per question.
Invariant: the edge model reads every question before it is routed, so its cost is paid also where the cloud is asked.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_agent.core.errors import BadData
from edge_agent.measure.metrics.columns import (
    LARGEST,
    Floats,
    Weights,
    by_level,
    cost,
    costs,
    fraction,
    mean_of,
    metric,
    numbers,
    ratio,
    shares,
    truths,
)

_PER_TOKENS = 1_000_000


class CostCurve(NamedTuple):
    """The effect of every threshold, in rising order of the cost. All arrays are (k + 1,), as in `DeferralCurve`.

    `cost` is the mean cost of a question. Between two points all of `rate`, `cost` and `system` are linear.
    """

    tau: Floats
    rate: Floats
    cost: Floats
    system: Floats


def ibc(system: float, edge: float, system_cost: float, edge_cost: float) -> float:
    """Incremental benefit per cost: the accuracy gained over the edge model for each unit of additional cost.

    `(system - edge) / (system_cost - edge_cost)`. Accuracies are 0 to 1; costs are 0 or more, all in the same unit. nan if there
    is no additional cost. Source: AutoMix (Aggarwal et al. 2024, NeurIPS, arXiv 2310.12963). Raises `BadData`.
    """
    gained = fraction("system", system) - fraction("edge", edge)
    paid = cost("system_cost", system_cost) - cost("edge_cost", edge_cost)
    return gained / paid if paid > 0 else math.nan


def delta_ibc(system: float, edge: float, cloud: float, system_cost: float, edge_cost: float, cloud_cost: float) -> float:
    """By how much the `ibc` of routing exceeds that of the cloud alone, as a fraction: 0.5 means 50 % more.

    `(ibc_system - ibc_cloud) / ibc_cloud`; AutoMix (arXiv 2310.12963) prints it in percent. In AutoMix's accounts `cloud_cost` is
    the price of the cloud alone, while a deferred question also paid for the edge model, so random routing lies a little below 0.
    It is exactly 0 if `cloud_cost` includes a reading by the edge model. nan if either is undefined or the cloud gains nothing.
    Raises `BadData`.
    """
    routed, base = ibc(system, edge, system_cost, edge_cost), ibc(cloud, edge, cloud_cost, edge_cost)
    return (routed - base) / base if base > 0 else math.nan


@metric
def system_delta_ibc(
    weights: Weights | None,
    edge_correct: npt.ArrayLike,
    cloud_correct: npt.ArrayLike,
    deferred: npt.ArrayLike,
    edge_cost: npt.ArrayLike,
    cloud_cost: npt.ArrayLike,
    routing_cost: npt.ArrayLike = 0.0,
) -> Floats:
    """`delta_ibc` of answers that were routed, in AutoMix's accounts.

    Each question costs `edge_cost + routing_cost`, and `cloud_cost` on top where it is deferred; the cloud alone costs `cloud_cost`.
    `routing_cost` is what the router asks of the edge model beside the answer, such as AutoMix's verifications. Costs are one
    number or one for each question. nan as `delta_ibc`. Raises `BadData`.
    """
    edge, cloud = shares(edge_correct=edge_correct, cloud_correct=cloud_correct)
    n = len(edge)
    ask = truths("deferred", deferred, n)
    own, call, extra = costs("edge_cost", edge_cost, n), costs("cloud_cost", cloud_cost, n), costs("routing_cost", routing_cost, n)
    gain = mean_of(weights, np.where(ask == 1, cloud - edge, 0.0))
    routed = _slope(gain, mean_of(weights, extra + ask * call))
    base = _slope(mean_of(weights, cloud - edge), mean_of(weights, call - own))
    return ratio(routed - base, np.where(base > 0, base, np.nan))


def cost_accuracy_curve(
    confidence: npt.ArrayLike,
    edge_correct: npt.ArrayLike,
    cloud_correct: npt.ArrayLike,
    edge_cost: npt.ArrayLike,
    cloud_cost: npt.ArrayLike,
) -> CostCurve:
    """The mean cost of a question and the accuracy at every threshold, from nothing deferred to everything.

    `edge_cost` is paid for every question and `cloud_cost` where the cloud is asked; each is one number or one for each question
    (`call_costs`). For the accuracy at any cost use `numpy.interp(at, curve.cost, curve.system)`. Without questions the arrays are
    empty. Raises `BadData`.
    """
    score, edge, cloud = shares(confidence=confidence, edge_correct=edge_correct, cloud_correct=cloud_correct)
    n = len(score)
    own, call = costs("edge_cost", edge_cost, n), costs("cloud_cost", cloud_cost, n)
    if not n:
        return CostCurve(score, score, score, score)
    values, counts, (gains, paid) = by_level(None, score, cloud - edge, call)
    rate, spent, gained = (np.append(0.0, np.cumsum(column)) / n for column in (counts, paid, gains))
    return CostCurve(np.append(values, np.inf), rate, own.mean() + spent, np.clip(edge.mean() + gained, 0, 1))


def call_costs(prompt_tokens: npt.ArrayLike, completion_tokens: npt.ArrayLike, prompt_price: float, completion_price: float) -> Floats:
    """The price of each call (n,), from its tokens and the prices of a million tokens; nan where the tokens are nan (not known).

    Raises `BadData`.
    """
    read, written = numbers("prompt_tokens", prompt_tokens), numbers("completion_tokens", completion_tokens)
    if read.shape != written.shape or read.ndim != 1:
        raise BadData(f"The tokens have the shapes {read.shape} and {written.shape}; give two arrays of one length.")
    if any(((tokens < 0) | (tokens >= LARGEST)).any() for tokens in (read, written)):
        raise BadData("Some numbers of tokens are below 0 or infinite; give counts, or nan where they are not known.")
    return (read * cost("prompt_price", prompt_price) + written * cost("completion_price", completion_price)) / _PER_TOKENS


def _slope(gained: Floats, paid: Floats) -> Floats:
    return ratio(gained, np.where(paid > 0, paid, np.nan))
