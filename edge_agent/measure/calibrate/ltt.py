"""Learn then Test: which taus keep few errors, with a bound on the probability of being wrong (Angelopoulos et al. 2021, arXiv 2110.01052).

Owns the exact binomial test, the sequence of tests and how many questions a test needs. Chooses no sequence. Invariant: the sequence is
fixed before the first answer of the test part is looked at; the tests then go on until one does not reject. So the probability that any
rejected tau has a larger error than the limit is at most delta: only the first such tau of the sequence can be rejected wrongly.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_agent.measure.calibrate.extra import scipy
from edge_agent.measure.results import Bools, Floats

Counts = npt.NDArray[np.int64]
_MOST_KEPT = 60_000  # where more would be needed, the error is as good as the limit


@dataclass(frozen=True, slots=True, eq=False)
class Cuts:
    """Places to cut a score, each keeping all that the one before keeps: score above `taus`, or equal with a draw of at least `ties`."""

    taus: Floats
    ties: Floats

    def __len__(self) -> int:
        return len(self.taus)

    def kept(self, scores: Floats, with_confidence: Bools, draws: Floats) -> Bools:
        """Which questions each cut keeps (cut, question): those that `routing.is_below` does not find below."""
        tau, tie = self.taus[:, None], self.ties[:, None]
        kept: Bools = with_confidence & ~((scores < tau) | ((scores == tau) & (draws < tie)))
        return kept


@dataclass(frozen=True, slots=True, eq=False)
class Tested:
    """The tests of a sequence: answers kept, errors among them, p-values, and how many were rejected before the first that was not."""

    kept: Counts
    errors: Counts
    p_values: Floats
    n_rejected: int


def p_value(errors: npt.ArrayLike, kept: npt.ArrayLike, limit: float) -> Floats:
    """P(Bin(kept, limit) <= errors): how likely so few errors are if the true error is `limit`. 1 where nothing is kept.

    It is exact and holds whatever the number kept is: given that number, the errors of independent questions are binomial.
    """
    return np.asarray(scipy("stats").binom.cdf(errors, kept, limit), dtype=np.float64)


def in_order(cuts: Cuts, scores: Floats, with_confidence: Bools, draws: Floats, wrong: Bools, limit: float, delta: float) -> Tested:
    """Test the cuts in their order, each against the hypothesis that its error is larger than `limit`."""
    n_kept, errors = np.zeros((2, len(cuts)), dtype=np.int64)
    for at in range(len(cuts)):  # one after the other: all at once would take (cut, question) bytes
        kept = Cuts(cuts.taus[at : at + 1], cuts.ties[at : at + 1]).kept(scores, with_confidence, draws)[0]
        n_kept[at], errors[at] = kept.sum(), (kept & wrong).sum()
    p = p_value(errors, n_kept, limit)
    return Tested(n_kept, errors, p, int(np.argmin(np.r_[p <= delta, False])))


def fewest(limit: float, delta: float) -> int:
    """How many answers must be kept so that a test without any error rejects: 59 for 5 % and 29 for 10 %, at delta 0.05."""
    n = max(1, math.ceil(math.log(delta) / math.log1p(-limit)))
    return n if (1 - limit) ** n <= delta else n + 1


@functools.lru_cache(maxsize=64)
def most_errors(limit: float, delta: float, n_max: int) -> Counts:
    """The most errors with which a test of 0, 1, ... `n_max` kept answers still rejects; -1 where no test can. Shape (n_max + 1,)."""
    stats, kept = scipy("stats"), np.arange(n_max + 1)
    found = np.where(kept > 0, stats.binom.ppf(delta, np.maximum(kept, 1), limit), 0).astype(np.int64)
    most: Counts = np.where(stats.binom.cdf(found, kept, limit) <= delta, found, found - 1)
    most[0] = -1
    most.setflags(write=False)
    return most


def power(kept: npt.ArrayLike, error: npt.ArrayLike, limit: float, delta: float) -> Floats:
    """The probability that a test of `kept` answers rejects if their true error is `error`."""
    kept, error = np.broadcast_arrays(np.asarray(kept, dtype=np.int64), np.asarray(error, dtype=np.float64))
    n_max = 1 << int(max(1, kept.max(initial=1))).bit_length()  # few different sizes, so that their tables are found again
    most = most_errors(limit, delta, n_max)[kept]
    return np.where(most >= 0, scipy("special").bdtr(np.maximum(most, 0).astype(float), kept.astype(np.int64), error), 0.0)


def needed(shares: Floats, errors: Floats, limit: float, delta: float, chance: float = 0.8) -> tuple[float, float] | None:
    """How many questions a test needs so that it rejects with this `chance`, and the share that it then keeps; None if no number helps.

    A cut that keeps one of the `shares` has the error of `errors` beside it. The least number over all cuts is returned.
    """
    sizes = np.unique(np.round(np.geomspace(fewest(limit, delta), _MOST_KEPT, 400))).astype(np.int64)
    best: tuple[float, float] | None = None
    for share, error in zip(shares, errors, strict=True):
        enough = sizes[power(sizes, error, limit, delta) >= chance] if error < limit else sizes[:0]
        if len(enough) and (best is None or enough[0] / share < best[0]):
            best = float(enough[0] / share), float(share)
    return best
