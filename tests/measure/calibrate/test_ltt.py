"""Learn then Test: exact p-values, and a sequence that ends at the first test that does not reject."""

import math
from fractions import Fraction

import numpy as np
import pytest

from edge_agent.core import routing
from edge_agent.measure.calibrate import ltt


def test_p_value_is_the_exact_binomial_tail() -> None:
    limit = Fraction(3, 20)
    tail = sum(math.comb(40, k) * limit**k * (1 - limit) ** (40 - k) for k in range(3))
    assert ltt.p_value(2, 40, 0.15) == pytest.approx(float(tail), rel=1e-12)
    assert ltt.p_value(0, 0, 0.15) == 1


@pytest.mark.parametrize(("limit", "n"), [(0.05, 59), (0.1, 29), (0.2, 14), (0.01, 299)])
def test_fewest_answers_without_an_error(limit: float, n: int) -> None:
    assert ltt.fewest(limit, 0.05) == n
    assert ltt.p_value(0, n, limit) <= 0.05 < ltt.p_value(0, n - 1, limit)


@pytest.mark.parametrize("delta", [0.01, 0.05, 0.2])
def test_most_errors_is_where_the_test_turns(delta: float) -> None:
    most = ltt.most_errors(0.1, delta, 300)
    kept = np.arange(301)
    assert (ltt.p_value(np.maximum(most, 0), kept, 0.1)[most >= 0] <= delta).all()
    assert (ltt.p_value(most + 1, kept, 0.1)[1:] > delta).all()


def test_power_is_the_rate_of_rejections() -> None:
    rng = np.random.default_rng(3)
    errors = rng.binomial(200, 0.06, 20_000)
    assert ltt.power(200, 0.06, 0.1, 0.05) == pytest.approx((ltt.p_value(errors, 200, 0.1) <= 0.05).mean(), abs=0.01)
    assert ltt.power(28, 0.0, 0.1, 0.05) == 0 and ltt.power(29, 0.0, 0.1, 0.05) == 1


def test_cuts_keep_what_the_router_keeps() -> None:
    rng = np.random.default_rng(4)
    scores, draws, certain = rng.integers(0, 5, 400) / 4, rng.random(400), rng.random(400) > 0.1
    taus, ties = np.repeat(np.arange(5) / 4, 3), np.tile([0.0, 0.4, 1.0], 5)
    kept = ltt.Cuts(taus, ties).kept(scores, certain, draws)
    for row, tau, tie in zip(kept, taus, ties, strict=True):
        below = [routing.is_below(float(score), float(tau), float(tie), float(draw)) for score, draw in zip(scores, draws, strict=True)]
        assert row.tolist() == [sure and not low for sure, low in zip(certain.tolist(), below, strict=True)]


def test_sequence_ends_at_the_first_test_that_does_not_reject() -> None:
    """The third cut would be rejected, but the second is not: the error among the kept is not monotone in tau."""
    wrong = np.zeros(400, dtype=bool)
    wrong[40:60] = True  # so 60 kept answers have a third of errors, and 400 have a twentieth
    scores = np.linspace(1, 0, 400)
    cuts = ltt.Cuts(scores[[39, 59, 399]], np.zeros(3))
    found = ltt.in_order(cuts, scores, np.ones(400, dtype=bool), np.zeros(400), wrong, 0.1, 0.05)
    assert found.kept.tolist() == [40, 60, 400] and found.errors.tolist() == [0, 20, 20]
    assert found.p_values[2] < 0.05 < found.p_values[1]
    assert found.n_rejected == 1


def test_all_or_none_may_be_rejected() -> None:
    scores, sure = np.linspace(1, 0, 100), np.ones(100, dtype=bool)
    cuts = ltt.Cuts(scores[[49, 99]], np.zeros(2))
    assert ltt.in_order(cuts, scores, sure, np.zeros(100), np.zeros(100, dtype=bool), 0.1, 0.05).n_rejected == 2
    assert ltt.in_order(cuts, scores, sure, np.zeros(100), np.ones(100, dtype=bool), 0.1, 0.05).n_rejected == 0


def test_needed_is_the_least_number_with_the_chance() -> None:
    n, share = ltt.needed(np.array([0.2, 0.5]), np.array([0.0, 0.04]), 0.1, 0.05)
    at = round(n * share)
    error = 0.0 if share == 0.2 else 0.04
    assert ltt.power(at, error, 0.1, 0.05) >= 0.8
    assert ltt.needed(np.array([0.5]), np.array([0.1]), 0.1, 0.05) is None
