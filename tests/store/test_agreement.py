"""The test of agreement: it warns of a rise, hardly ever without one, and its limits are exact."""

import itertools
import math
import random
import statistics
from fractions import Fraction

import pytest

from edge_agent.store import binomial
from edge_agent.store.agreement import DELTA, STEPS, RateTest
from tests.support.agreement import PlainTest, RateKnown, false_alarms, latencies
from tests.support.mutation import catches


def at_most(cases: int, n: int, rate: Fraction) -> Fraction:
    """The probability of at most so many cases, exactly."""
    return sum((math.comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in range(cases + 1)), Fraction(0))


@pytest.mark.parametrize(("cases", "n"), [(0, 1), (0, 59), (1, 1), (3, 10), (30, 100), (99, 100), (100, 100), (199, 640)])
def test_limits_are_exact(cases: int, n: int) -> None:
    """At the limit, so few cases have exactly the probability alpha."""
    limit = binomial.upper(cases, n, 0.025)
    if cases == n:
        assert limit == 1
    else:
        assert float(at_most(cases, n, Fraction(limit))) == pytest.approx(0.025, rel=1e-9)
    assert binomial.lower(n - cases, n, 0.025) == pytest.approx(1 - limit, abs=1e-15)


def test_without_errors_59_questions_are_needed_for_5_percent() -> None:
    """The published numbers of exact tests at the level of 5 %."""
    assert binomial.upper(0, 59, 0.05) < 0.05 < binomial.upper(0, 58, 0.05)
    assert binomial.upper(0, 29, 0.05) < 0.1 < binomial.upper(0, 28, 0.05)


def test_beta_function_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for a, b, x in itertools.product((1, 7, 300, 30_000), (1, 5, 700, 70_000), (1e-6, 0.01, 0.3, 0.5, 0.999)):
        assert binomial.beta_share(a, b, x) == pytest.approx(stats.beta.cdf(x, a, b), rel=1e-7, abs=1e-12)


@pytest.mark.parametrize("n", [1, 5, 12])
def test_evidence_has_the_mean_1_at_the_limit(n: int) -> None:
    """Over all streams of n audits, each with its probability: so the mixture is a martingale, and the warning has a limit."""
    mean = 0.0
    for stream in itertools.product([False, True], repeat=n):
        test = RateTest(3, 10).add_all(stream)
        mean += test.evidence * test.limit ** sum(stream) * (1 - test.limit) ** (n - sum(stream))
    assert mean == pytest.approx(1, rel=1e-12)


@catches(RateTest, PlainTest, RateKnown)
def test_unchanged_stream_hardly_ever_warns(part: type[RateTest]) -> None:
    """A cloud that errs on 25 %; the rate is estimated from 100 kept questions, and each stream is looked at after each of 600 audits."""
    assert false_alarms(part, n_before=100, rate=0.3, n_streams=300, n_audits=600, seed=4) <= DELTA


def test_rise_is_noticed_and_more_of_it_earlier() -> None:
    medians = [statistics.median(latencies(400, 0.3, risen, after=300, n_streams=40, seed=2)) for risen in (0.5, 0.6, 0.8)]
    assert 400 > medians[0] > 110 > medians[1] > 45 > medians[2]


def test_late_rise_is_noticed() -> None:
    """After 5,000 audits without one, a single bet from the beginning would have lost everything."""
    late = statistics.median(latencies(2000, 0.3, 0.6, after=5000, n_streams=5, seed=3))
    assert late < 120
    rng = random.Random(3)
    test = RateTest(600, 2000)
    alone = [1.0] * len(STEPS)
    for n in range(5120):
        is_case = rng.random() < (0.3 if n < 5000 else 0.6)
        alone = [bet * (q / test.limit if is_case else (1 - q) / (1 - test.limit)) for bet, q in zip(alone, test._rates, strict=True)]
    assert statistics.fmean(alone) < 1e-6


def test_warning_stays() -> None:
    test = RateTest(10, 100).add_all([True] * 20)
    warned = test.warned_after
    assert warned and test.has_risen and test.evidence >= test.threshold == 2 / DELTA
    test.add_all([False] * 500)
    assert test.warned_after == warned and test.evidence < test.threshold <= test.highest


@pytest.mark.parametrize(("cases", "n"), [(0, 0), (5, 5)])
def test_nothing_can_be_tested_where_every_rate_is_possible(cases: int, n: int) -> None:
    test = RateTest(cases, n).add_all([True] * 1000)
    assert not test.can_warn and not test.has_risen and (test.n, test.n_cases, test.evidence) == (1000, 1000, 1.0)


def test_endless_rise_stays_a_number() -> None:
    assert math.isfinite(RateTest(0, 10_000).add_all([True] * 5000).evidence)
