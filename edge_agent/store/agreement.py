"""A test that may be looked at after every audit: has the cloud come to disagree more often with the answers that the device keeps?

Owns the test. Reads nothing. Invariant: if the disagreement has not risen, the whole probability that it ever warns, however long it
runs and however often it is looked at, is at most `delta`.

**What is tested.** A calibration was measured with a cloud that gave another answer on `different` of `kept` questions whose answers it
would keep. Audits bring the same comparison for a random share of the questions that the device has kept since. The hypothesis: whatever
came before, the next audit differs with a probability of at most p0, the rate at the time of the calibration. The test says that
agreement fell. It cannot say why: the questions, the device's model or the cloud may have changed, or any of them may be wrong.

**The rate p0 is not known, only estimated.** Half of delta pays for that: u is the exact upper limit of p0 at the confidence
1 - delta/2 (`binomial.upper`). With the other half, the audits are tested against u. If p0 <= u, the hypothesis with u is true whenever
that with p0 is; p0 > u happens with probability delta/2 at most. So both errors together are at most delta (union bound).

**The evidence.** For a higher rate q, the likelihood ratio of one audit is q/u if it differs and (1-q)/(1-u) if it does not. Its
expectation is at most 1 while the rate is at most u, whatever came before, so the product over audits is a test supermartingale
(Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2023: a bet of fixed size). So is
any convex mixture of such products: over several q, because the new rate is not known; and over the audit at which the bet begins,
because the change may come late, when an early bet has lost everything (Shin, Ramdas and Rinaldo, "E-detectors", 2023; here the weights
of all beginnings sum to 1, so the mixture is itself an e-process, and not only a detector with a long mean time to a false alarm). The
weight of beginning at audit s is 1/log2(s+1) - 1/log2(s+2): they sum to 1, and a late beginning costs about s log(s)^2.

**The warning.** A nonnegative supermartingale that begins at 1 ever reaches 2/delta with probability delta/2 at most (Ville 1939).
So the warning comes when the evidence first reaches 2/delta, and it stays: a new calibration begins a new test. A binomial test
that is repeated after each audit has no such limit, and warns on nearly every stream that is long enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from edge_agent.store import binomial

DELTA = 0.05
_MOST = 1e300  # a number; evidence beyond it says no more
STEPS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8)  # the rates that are bet on, as shares of the way from u to 1


@dataclass(slots=True)
class RateTest:
    """The test, one result after the other; each costs a few multiplications.

    Before, `cases` of `n_before` were cases (answers that differed). `limit` is u, the highest rate that this leaves possible; 1 means
    that nothing can be tested. `evidence` is the e-value now, `highest` the highest it ever was, `warned_after` the number of results
    at the warning.
    """

    cases: int
    n_before: int
    delta: float = DELTA
    n: int = 0
    n_cases: int = 0
    evidence: float = 1.0
    highest: float = 1.0
    warned_after: int | None = None
    limit: float = field(init=False)
    _rates: tuple[float, ...] = field(init=False)
    _bets: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.limit = binomial.upper(self.cases, self.n_before, self.delta / 2)
        self._rates = tuple(self.limit + step * (1 - self.limit) for step in STEPS)
        self._bets = [0.0] * len(STEPS)

    @property
    def threshold(self) -> float:
        """The evidence at which it warns."""
        return 2 / self.delta

    @property
    def can_warn(self) -> bool:
        """Whether a higher rate is possible at all."""
        return self.limit < 1

    @property
    def has_risen(self) -> bool:
        """Whether it has warned."""
        return self.warned_after is not None

    def add(self, is_case: bool) -> None:
        """Take in one more result."""
        self.n += 1
        self.n_cases += is_case
        if not self.can_warn:
            return
        begins = (_not_begun(self.n - 1) - _not_begun(self.n)) / len(STEPS)
        for i, rate in enumerate(self._rates):
            ratio = rate / self.limit if is_case else (1 - rate) / (1 - self.limit)
            self._bets[i] = min((self._bets[i] + begins) * ratio, _MOST)
        self.evidence = math.fsum(self._bets) + _not_begun(self.n)
        self.highest = max(self.highest, self.evidence)
        if self.warned_after is None and self.evidence >= self.threshold:
            self.warned_after = self.n

    def add_all(self, results: Iterable[bool]) -> Self:
        """Take in results in their order; returns itself."""
        for is_case in results:
            self.add(is_case)
        return self


def _not_begun(n: int) -> float:
    """The weight of all bets that begin after result n."""
    return 1 / math.log2(n + 2)
