"""Where to cut a score for a goal that is not tested: a cloud rate, an accuracy, a budget.

Owns these three rules. Each looks at the choosing part alone; what came of it is measured on the reporting part. Invariant: of all cuts
that reach the goal on the choosing part, the one that sends the fewest questions is taken, for a budget the most that it pays for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_agent.measure.calibrate.choose import Ranking
from edge_agent.measure.results import Bools, Floats


@dataclass(frozen=True, slots=True)
class Cut:
    """One cut, the share of questions that it keeps, and what the choosing part says it reaches."""

    tau: float
    tie_share: float
    share: float


NOTHING_KEPT = Cut(1.0, 1.0, 0.0)


def for_rate(scores: Floats, with_confidence: Bools, rate: float) -> Cut:
    """The cut that defers the share `rate`; questions without a confidence are deferred in any case, so it may be more."""
    ranking = Ranking.of(scores, with_confidence, np.zeros_like(scores))
    return _at(ranking, (1 - rate) * ranking.n)


def for_accuracy(scores: Floats, with_confidence: Bools, edge: Floats, cloud: Floats, accuracy: float) -> Cut | None:
    """The cut that defers least among those with at least this system accuracy; None if there is none."""
    ranking = Ranking.of(scores, with_confidence, cloud - edge)  # what is lost by keeping
    room = float(cloud.sum()) - accuracy * ranking.n + 1e-9
    counts, lost = np.r_[0.0, ranking.counts], np.r_[0.0, ranking.wrong]
    good = np.flatnonzero(lost <= room)
    if not len(good):
        return None
    last = int(good[-1])
    keep = float(counts[last])
    if last + 1 < len(counts):  # a share of the next scores still fits
        keep += float((counts[last + 1] - counts[last]) * max(0.0, room - lost[last]) / (lost[last + 1] - lost[last]))
    return _at(ranking, keep)


def best_accuracy(scores: Floats, with_confidence: Bools, edge: Floats, cloud: Floats) -> float:
    """The highest system accuracy that any cut has."""
    ranking = Ranking.of(scores, with_confidence, cloud - edge)
    return float((cloud.sum() - np.r_[0.0, ranking.wrong].min()) / ranking.n)


def for_cost(scores: Floats, with_confidence: Bools, costs: Floats, cost: float) -> Cut:
    """The cut that defers most among those that cost at most `cost` a question, on average over all questions."""
    ranking = Ranking.of(scores, with_confidence, costs)  # what is saved by keeping
    saved = float(costs.sum()) - cost * ranking.n
    if saved <= 0:
        return NOTHING_KEPT
    counts, savings = np.r_[0.0, ranking.counts], np.r_[0.0, ranking.wrong]
    if saved >= savings[-1]:
        return _at(ranking, ranking.n_kept)
    return _at(ranking, float(np.interp(saved, savings, counts)))


def _at(ranking: Ranking, keep: float) -> Cut:
    """The cut that keeps this many of a part."""
    if keep < 0.5 or not ranking.n_kept:
        return NOTHING_KEPT
    if keep >= ranking.n_kept - 1e-9:
        return Cut(0.0, 0.0, ranking.n_kept / ranking.n)
    cuts = ranking.cuts(np.array([keep]))
    return Cut(float(cuts.taus[0]), float(cuts.ties[0]), keep / ranking.n)
