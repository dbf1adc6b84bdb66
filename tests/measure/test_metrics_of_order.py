"""The figures of ranking and selective prediction: second ways to compute them, laws, hand-worked cases."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge_agent.measure import metrics

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
scores = st.one_of(st.sampled_from(LEVELS), st.floats(0, 1).map(lambda x: round(x, 6)))
grades = st.sampled_from((0.0, 1.0, 0.3, 0.4, 0.7))
graded = st.lists(st.tuples(scores, grades, grades), min_size=1, max_size=25)  # confidence, edge, cloud
answered = st.lists(st.tuples(scores, st.booleans(), st.booleans()), min_size=1, max_size=40)


def columns(rows: list) -> tuple[np.ndarray, ...]:
    return tuple(np.array(column, dtype=float) for column in zip(*rows, strict=True))


@given(answered)
def test_auroc_of_benefit_marks_what_only_the_cloud_gets_right(rows: list) -> None:
    confidence, edge, cloud = columns(rows)
    helped = (edge == 0) & (cloud == 1)
    pairs = [(a < b) + 0.5 * (a == b) for a, b in itertools.product(confidence[helped], confidence[~helped])]
    assert metrics.auroc_of_benefit(confidence, edge, cloud) == pytest.approx(np.mean(pairs) if pairs else math.nan, nan_ok=True)
    assert metrics.auroc_of_benefit(confidence, edge, cloud) == pytest.approx(1 - metrics.auroc(confidence, helped), nan_ok=True)


@given(graded)
def test_benefit_concordance_is_the_share_of_pairs_in_the_right_order(rows: list) -> None:
    confidence, edge, cloud = columns(rows)
    benefit = np.round(cloud - edge, 9)
    pairs = [
        (confidence[i] < confidence[j]) + 0.5 * (confidence[i] == confidence[j])
        for i, j in itertools.permutations(range(len(rows)), 2)
        if benefit[i] > benefit[j]
    ]
    by_hand = np.mean(pairs) if pairs else math.nan
    assert metrics.benefit_concordance(confidence, edge, cloud) == pytest.approx(by_hand, nan_ok=True)


def test_equal_benefits_are_one_whatever_their_last_bits() -> None:
    assert 0.7 - 0.4 != 0.3 - 0.0
    assert math.isnan(metrics.benefit_concordance([0.1, 0.9], [0.4, 0.0], [0.7, 0.3]))


@given(answered)
def test_graded_benefit_is_the_plain_one_where_nobody_is_harmed(rows: list) -> None:
    confidence, edge, cloud = columns([(c, e, e or k) for c, e, k in rows])
    expected = metrics.auroc_of_benefit(confidence, edge, cloud)
    assert metrics.benefit_concordance(confidence, edge, cloud) == pytest.approx(expected, nan_ok=True)


@given(answered, st.floats(0.1, 0.9))
def test_simulated_cloud_counts_as_many_real_ones(rows: list, accuracy: float) -> None:
    """A cloud that is right with a probability gives what a large number of drawn clouds give together."""
    confidence, edge, _ = columns(rows)
    n = 20
    right = round(accuracy * n)
    drawn = np.tile(np.arange(n) < right, len(rows)).astype(float)
    many = metrics.auroc_of_benefit(np.repeat(confidence, n), np.repeat(edge, n), drawn)
    assert metrics.auroc_of_benefit(confidence, edge, np.full(len(rows), right / n)) == pytest.approx(many, nan_ok=True)


@given(answered)
def test_risk_coverage_curve_by_hand(rows: list) -> None:
    confidence, right, _ = columns(rows)
    curve = metrics.risk_coverage_curve(confidence, right)
    for tau, coverage, risk in zip(*curve, strict=True):
        kept = confidence >= tau
        assert coverage == pytest.approx(kept.mean())
        assert risk == pytest.approx(1 - right[kept].mean())
    assert curve.coverage[-1] == 1 and (np.diff(curve.coverage) > 0).all()


@given(st.lists(st.tuples(st.sampled_from((0.25, 0.5, 0.75)), grades), min_size=1, max_size=6))
def test_aurc_is_the_mean_over_all_orders_of_ties(rows: list) -> None:
    confidence, right = columns(rows)
    areas = []
    for order in itertools.permutations(range(len(rows))):
        if (np.diff(confidence[list(order)]) <= 0).all():
            errors = 1 - right[list(order)]
            areas.append(np.mean(np.cumsum(errors) / np.arange(1, len(rows) + 1)))
    assert metrics.aurc(confidence, right) == pytest.approx(np.mean(areas))


@given(answered)
def test_excess_aurc_is_measured_from_the_best_order(rows: list) -> None:
    confidence, right, _ = columns(rows)
    best = np.sort(right)[::-1]
    optimum = np.mean(np.cumsum(1 - best) / np.arange(1, len(rows) + 1))
    assert metrics.e_aurc(confidence, right) == pytest.approx(metrics.aurc(confidence, right) - optimum, abs=1e-12)
    assert metrics.e_aurc(right, right) == pytest.approx(0, abs=1e-12)


def test_aurc_by_hand() -> None:
    """Four answers, the surest first: right, wrong, right, wrong. The risks are 0, 1/2, 1/3, 1/2."""
    confidence, right = [0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0]
    assert metrics.aurc(confidence, right) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert metrics.e_aurc(confidence, right) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4 - (0 + 0 + 1 / 3 + 1 / 2) / 4)
    assert metrics.accuracy_at_coverage(confidence, right, 0.5) == pytest.approx(0.5)
    assert metrics.accuracy_at_coverage(confidence, right, 0.25) == 1
    assert metrics.accuracy_at_coverage(confidence, right, 0.75) == pytest.approx(2 / 3)
    assert metrics.accuracy_at_coverage([0.5] * 4, right, 0.3) == pytest.approx(0.5)  # within a level any share is like the whole
    assert math.isnan(metrics.accuracy_at_coverage(confidence, right, 0))


def test_excess_aurc_nears_the_formula_of_its_paper() -> None:
    """For many answers with risk r the best order has the area r + (1 - r) ln(1 - r)."""
    right = np.arange(100_000) < 80_000
    assert metrics.aurc(right, right) == pytest.approx(0.2 + 0.8 * math.log(0.8), abs=1e-4)


@given(answered, st.floats(0.01, 1))
def test_accuracy_at_coverage_ends_at_the_accuracy(rows: list, coverage: float) -> None:
    confidence, right, _ = columns(rows)
    assert metrics.accuracy_at_coverage(confidence, right, 1) == pytest.approx(right.mean())
    assert 0 <= metrics.accuracy_at_coverage(confidence, right, coverage) <= 1
    curve = metrics.risk_coverage_curve(confidence, right)
    for at, risk in zip(curve.coverage, curve.risk, strict=True):
        assert metrics.accuracy_at_coverage(confidence, right, at) == pytest.approx(1 - risk)


@given(answered, st.randoms(use_true_random=False), st.floats(0.05, 0.95))
def test_order_of_questions_and_rising_transformations_change_nothing(rows: list, random, share: float) -> None:
    confidence, edge, cloud = columns(rows)
    shuffled = list(rows)
    random.shuffle(shuffled)
    squeezed = (np.round(confidence, 6) ** 2 + 1) / 3  # rising, and of six digits no two fall together
    assume(len(np.unique(squeezed)) == len(np.unique(confidence)))

    def all_of(score: np.ndarray, edge: np.ndarray, cloud: np.ndarray) -> list[float]:
        return [
            *(f(score, edge) for f in (metrics.auroc, metrics.aurc, metrics.e_aurc)),
            *(f(score, edge, cloud) for f in (metrics.auroc_of_benefit, metrics.benefit_concordance, metrics.apgr)),
            metrics.cpt(score, edge, cloud, share),
            metrics.accuracy_at_rate(score, edge, cloud, share),
            metrics.accuracy_at_coverage(score, edge, share),
            *metrics.deferral_curve(score, edge, cloud).system,
            *metrics.cost_accuracy_curve(score, edge, cloud, 1, 50).cost,
        ]

    expected = pytest.approx(all_of(confidence, edge, cloud), nan_ok=True)
    assert all_of(*columns(shuffled)) == expected
    assert all_of(squeezed, edge, cloud) == expected
