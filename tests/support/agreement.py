"""Streams of audits, and mutants of their test: what the rate is at each audit is known here, as it never is outside."""

import random

from edge_agent.store import binomial
from edge_agent.store.agreement import DELTA, RateTest


class PlainTest(RateTest):
    """Mutant: a plain binomial test at the level delta, repeated after each audit."""

    def add(self, is_case: bool) -> None:
        self.n += 1
        self.n_cases += is_case
        if self.warned_after is None and self._p_value() < DELTA:
            self.warned_after = self.n

    def _p_value(self) -> float:
        """The probability of at least as many cases at the estimated rate."""
        return binomial.beta_share(self.n_cases, self.n - self.n_cases + 1, self.cases / self.n_before) if self.n_cases else 1.0


class RateKnown(RateTest):
    """Mutant: takes the estimated rate for the true one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit = self.cases / self.n_before


def started(kind: type[RateTest], n_before: int, rate: float, rng: random.Random) -> RateTest:
    """A test whose rate is estimated from `n_before` draws."""
    return kind(sum(rng.random() < rate for _ in range(n_before)), n_before)


def false_alarms(kind: type[RateTest], n_before: int, rate: float, n_streams: int, n_audits: int, seed: int) -> float:
    """In what share of streams whose rate does not change it warns."""
    rng, warned = random.Random(seed), 0
    for _ in range(n_streams):
        test = started(kind, n_before, rate, rng)
        for _ in range(n_audits):
            test.add(rng.random() < rate)
            if test.has_risen:
                warned += 1
                break
    return warned / n_streams


def latencies(n_before: int, rate: float, risen: float, after: int, n_streams: int, seed: int, most: int = 5000) -> list[int]:
    """How many audits after the rise each stream warns, `most` if it does not; streams that warn before it are drawn again."""
    rng, found = random.Random(seed), []
    while len(found) < n_streams:
        test = started(RateTest, n_before, rate, rng)
        test.add_all(rng.random() < rate for _ in range(after))
        if test.has_risen:
            continue
        while not test.has_risen and test.n < after + most:
            test.add(rng.random() < risen)
        found.append(test.n - after)
    return found
