"""What routing by one score brings: FogGen's table by domain, and the achieved beside the target rates.

Owns the lines of these tables. The formulas are in `metrics`. Invariant: a question without a confidence is always deferred.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_agent.measure import metrics
from edge_agent.measure.evaluation.figures import Routing, Share, Target
from edge_agent.measure.metrics import Threshold

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
TARGETS = (0.1, 0.2, 0.3, 0.5)
_MEANS = ("cloud", "edge", "random", "system", "routed", "lift")


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """The questions of one readout that have a gold answer and a score, as columns (n,).

    `cloud` is nan everywhere if there is no cloud, and nowhere otherwise. `draws` are the questions' own numbers for ties, and
    `chosen_on` is true for the half on which thresholds and weights are chosen.
    """

    domains: tuple[str, ...]
    score: Floats
    edge: Floats
    cloud: Floats
    no_confidence: Bools
    draws: Floats
    chosen_on: Bools
    cost: Floats

    @property
    def has_cloud(self) -> bool:
        """Whether the cloud's answers are known."""
        return bool(len(self.cloud)) and not math.isnan(self.cloud[0])

    @property
    def routed_score(self) -> Floats:
        """The score, 0 where there is no confidence: the first to be deferred."""
        return np.where(self.no_confidence, 0.0, self.score)

    def deferred(self, threshold: Threshold) -> Bools:
        """Which questions go to the cloud."""
        below: Bools = metrics.deferred_by(self.score, threshold, self.draws) | self.no_confidence
        return below


def share_of(flags: npt.ArrayLike) -> Share:
    """The share of entries that are 1; entries that are nan are left out."""
    values = np.asarray(flags, np.float64)
    values = values[~np.isnan(values)]
    n, count = len(values), float(values.sum())
    low, high = metrics.wilson(count, n)  # type: ignore[arg-type]  # a sum of grades may be a fraction
    return Share(n, int(count) if count.is_integer() else count, count / n if n else math.nan, low, high)


def table(scored: Scored, tau: float) -> tuple[tuple[Routing, ...], Routing]:
    """FogGen's table: a line for each domain, and the means of the lines."""
    deferred, names = scored.deferred(Threshold(tau, 0.0)), np.array(scored.domains, dtype=object)
    lines = tuple(
        line(domain, scored.edge[own], scored.cloud[own], deferred[own])
        for domain in sorted(set(scored.domains))
        for own in [names == domain]
    )
    means = {name: float(np.mean([getattr(each, name) for each in lines])) if lines else math.nan for name in _MEANS}
    return lines, Routing("mean", sum(each.questions for each in lines), edge_low=math.nan, edge_high=math.nan, **means)


def line(domain: str, edge: Floats, cloud: Floats, deferred: Bools) -> Routing:
    """One line of the table; without a cloud, its accuracy and what follows from it are nan."""
    alone, rate = share_of(edge), float(np.mean(deferred)) if len(deferred) else math.nan
    asked = float(np.mean(cloud)) if len(cloud) else math.nan
    system = math.nan if math.isnan(asked) else metrics.system_accuracy(edge, cloud, deferred)
    return Routing(
        domain=domain,
        questions=len(edge),
        cloud=asked,
        edge=alone.share,
        edge_low=alone.low,
        edge_high=alone.high,
        random=metrics.random_accuracy(alone.share, asked, rate),
        system=system,
        routed=rate,
        lift=metrics.lift(system, alone.share, asked, rate),
    )


def targets(scored: Scored, rates: Sequence[float] = TARGETS) -> tuple[Target, ...]:
    """For each wanted rate, a threshold from one half and what it does on the other; none if a half is empty."""
    half = scored.chosen_on
    if not half.any() or half.all():
        return ()
    found = []
    for rate in rates:
        threshold = metrics.threshold_for_rate(scored.score[half], rate, always=scored.no_confidence[half])
        deferred = scored.deferred(threshold)[~half]
        achieved = metrics.achieved_rate(deferred, rate)
        own = line("", scored.edge[~half], scored.cloud[~half], deferred)
        found.append(
            Target(
                rate, threshold.tau, threshold.tie_share, len(deferred), achieved.rate, achieved.low, achieved.high, own.system, own.lift
            )
        )
    return tuple(found)
