"""What the first part of the questions chooses: where to cut a score, the sequence of tests, and how good a readout is.

Owns how scores are cut at a share, ties included, and what a test is predicted to find. Never sees the other parts, so it may look at
its answers as often as it likes: a bad choice costs power, never the guarantee. Invariant: the cuts of a sequence keep more and more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_agent.measure.calibrate import ltt
from edge_agent.measure.calibrate.extra import scipy
from edge_agent.measure.calibrate.ltt import Cuts
from edge_agent.measure.results import Bools, Floats

_STEP = 1.06  # each cut of a sequence keeps this many times what the one before keeps
_NEAR_BEST = 0.01  # starts whose predicted power is this near to the best are as good
_START = 0.75  # how far from the strictest of them to the widest; at either end, a small error of the prediction costs much power
_CLEARLY = 2.0  # standard errors
_QUANTILES = (np.arange(8) + 0.5) / 8  # of the error that is not known exactly
_TREND = np.array([-2.0, 6.0])  # of the logit of an error over the rank from -0.5 (surest) to 0.5, before any answer is seen
_PRECISION = np.array([1 / 4, 1 / 25])
_TREND_WORTH = 30.0  # kept answers that the trend counts as
_SPREAD, _WEIGHTS = np.array([-(3**0.5), 0.0, 3**0.5]), np.array([1.0, 4.0, 1.0]) / 6  # Gauss-Hermite for the number that is kept


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Scores of one part from the highest down, equal ones together: `values`, how many are that high (`counts`) and `wrong` among them.

    Both are cumulative. `n` is the number of questions of the part, with those that have no confidence and are never kept.
    """

    values: Floats
    counts: Floats
    wrong: Floats
    n: int

    @staticmethod
    def of(scores: Floats, with_confidence: Bools, wrong: Floats) -> Ranking:
        """Rank the questions that can be kept."""
        values, places, counts = np.unique(-scores[with_confidence], return_inverse=True, return_counts=True)
        errors = np.bincount(places, weights=wrong[with_confidence], minlength=len(values))
        return Ranking(-values, np.cumsum(counts, dtype=np.float64), np.cumsum(errors), len(scores))

    @property
    def n_kept(self) -> float:
        """How many can be kept at most."""
        return float(self.counts[-1]) if len(self.counts) else 0.0

    def cuts(self, keep: Floats) -> Cuts:
        """Cuts that keep as many questions of this part as `keep` says; within equal scores, a share by draw."""
        at = np.minimum(np.searchsorted(self.counts, keep - 1e-9), len(self.counts) - 1)
        above = np.r_[0.0, self.counts][at]
        size = self.counts[at] - above
        ties = np.where(size > 1, np.clip(1 - (keep - above) / size, 0.0, 1.0), 0.0)  # a score of its own needs no draw
        return Cuts(self.values[at], np.where(ties < 1e-9, 0.0, ties))

    def errors(self, keep: Floats) -> Floats:
        """How many errors are expected among the `keep` that a cut keeps."""
        found: Floats = np.interp(keep, np.r_[0.0, self.counts], np.r_[0.0, self.wrong])
        return found

    def trend(self, keep: Floats) -> Floats:
        """The errors among `keep` by a smooth trend: a logistic regression on the rank, whose prior is that surer answers err less.

        Few answers near the top of a ranking say little about its error; the trend lends them what all answers say together.
        """
        sizes, wrong = np.diff(self.counts, prepend=0.0), np.diff(self.wrong, prepend=0.0)
        rank = np.stack([np.ones_like(sizes), (self.counts - sizes / 2) / self.n_kept - 0.5])  # (2, value)
        weights = _TREND
        for _ in range(8):  # Newton's method; the prior keeps it bounded
            error = 1 / (1 + np.exp(-np.clip(weights @ rank, -30, 30)))
            gradient = rank @ (wrong - sizes * error) - _PRECISION * (weights - _TREND)
            weights = weights + np.linalg.solve((rank * (sizes * error * (1 - error))) @ rank.T + np.diag(_PRECISION), gradient)
        error = 1 / (1 + np.exp(-np.clip(weights @ rank, -30, 30)))
        found: Floats = np.interp(keep, np.r_[0.0, self.counts], np.r_[0.0, np.cumsum(sizes * error)])
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """The cuts to test, in their order, with the `shares` of all questions that they keep and the power predicted for each.

    `gain` is the largest share times its power: what readouts are compared by. `best` is the share that has it.
    """

    cuts: Cuts
    shares: Floats
    predicted: Floats
    gain: float
    best: float


def sequence(ranking: Ranking, n_test: int, limit: float, delta: float) -> Sequence:
    """A sequence that begins where a rejection is most probable, and goes on towards keeping more.

    It never begins where so few are kept that no test can reject, unless nothing else is left to test.
    """
    most = ranking.n_kept
    if not most:
        return Sequence(Cuts(np.empty(0), np.empty(0)), np.empty(0), np.empty(0), 0.0, 0.0)
    keep = steps(ranking, ltt.fewest(limit, delta) * ranking.n / max(1, n_test))
    shares = keep / ranking.n
    predicted = _predicted(ranking, keep, n_test, limit, delta)
    near = np.flatnonzero(predicted >= predicted.max() - _NEAR_BEST)
    start = round(near[0] + _START * (near[-1] - near[0]))
    gains = shares * predicted
    at = int(gains.argmax())
    return Sequence(ranking.cuts(keep[start:]), shares[start:], predicted[start:], float(gains[at]), float(shares[at]))


def steps(ranking: Ranking, least: float) -> Floats:
    """How many to keep at each cut of a sequence: from `least` (at least one) up to all, each `_STEP` times the one before."""
    most = ranking.n_kept
    n_steps = 1 + int(np.log(most / min(most, max(1.0, least))) / np.log(_STEP))
    keep: Floats = most / np.float64(_STEP) ** np.arange(n_steps)[::-1]
    return keep


def _predicted(ranking: Ranking, keep: Floats, n_test: int, limit: float, delta: float) -> Floats:
    """The power of a test at each cut, on average over the errors that agree with the few seen, and over the number kept."""
    errors, shares = ranking.errors(keep), keep / ranking.n
    trend = np.clip(ranking.trend(keep) / keep, 1e-4, 1 - 1e-4)
    a, b = errors + _TREND_WORTH * trend, keep - errors + _TREND_WORTH * (1 - trend)
    error = scipy("special").betaincinv(a[:, None], b[:, None], _QUANTILES)
    spread = np.sqrt(n_test * shares * (1 - np.minimum(shares, 1)))[:, None] * _SPREAD
    kept = np.clip(np.floor(n_test * shares[:, None] + spread), 0, n_test)
    found: Floats = (ltt.power(kept[:, :, None], error[:, None, :], limit, delta).mean(2) * _WEIGHTS).sum(1)
    return found


def is_clearly_better(one: Floats, other: Floats, with_confidence: Bools, wrong: Floats, share: float) -> bool:
    """Whether `one` score keeps fewer errors than the `other` where both keep this share: by more than two standard errors, paired."""
    if len(wrong) < 2:
        return False
    lost = [_keeps(score, with_confidence, share) * wrong for score in (one, other)]
    fewer = lost[1] - lost[0]
    error = float(fewer.std(ddof=1)) / len(fewer) ** 0.5
    return bool(fewer.mean() > _CLEARLY * error and error > 0)


def _keeps(scores: Floats, with_confidence: Bools, share: float) -> Floats:
    """How much of each question is kept at a share, 0 to 1; within equal scores all have the same part."""
    ranking = Ranking.of(scores, with_confidence, np.zeros_like(scores))
    if not ranking.n_kept:
        return np.zeros_like(scores)
    cut = ranking.cuts(np.array([min(ranking.n_kept, max(1.0, share * len(scores)))]))
    kept: Floats = with_confidence * ((scores > cut.taus[0]) + (scores == cut.taus[0]) * (1 - cut.ties[0]))
    return kept
