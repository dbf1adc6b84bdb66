"""The bootstrap: it resamples whole questions, pairs them, repeats itself, and is as wide as it should be."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.errors import BadData
from edge_agent.measure import metrics

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
rows = st.lists(st.tuples(st.sampled_from((*LEVELS, 0.1, 0.33)), st.booleans(), st.booleans()), min_size=1, max_size=12)
PARAMETERS = {
    "cpt": {"share": 0.5}, "accuracy_at_rate": {"rate": 0.3}, "accuracy_at_coverage": {"coverage": 0.7}, "oracle_accuracy": {"rate": 0.25},
    "ece": {"levels": LEVELS}, "apgr": {"n_bins": 4}, "system_delta_ibc": {"edge_cost": 1, "cloud_cost": 50, "routing_cost": 2},
}  # fmt: skip
OF_ANSWERS = (metrics.auroc, metrics.ece, metrics.brier, metrics.aurc, metrics.e_aurc, metrics.accuracy_at_coverage)
OF_ROUTES = (metrics.auroc_of_benefit, metrics.benefit_concordance, metrics.apgr, metrics.cpt, metrics.accuracy_at_rate)
OF_DEFERRED = (metrics.system_accuracy, metrics.system_lift, metrics.system_pgr, metrics.system_delta_ibc)


def every_metric(score: np.ndarray, edge: np.ndarray, cloud: np.ndarray) -> list[tuple]:
    cases = [(f, (score, edge)) for f in OF_ANSWERS] + [(f, (score, edge, cloud)) for f in OF_ROUTES]
    cases += [(f, (edge, cloud, score < 0.5)) for f in OF_DEFERRED] + [(metrics.oracle_accuracy, (edge, cloud)), (metrics.mean, (edge,))]
    return [(f, columns, PARAMETERS.get(f.__name__, {})) for f, columns in cases]


@given(rows, st.integers(0, 1000))
def test_resample_is_the_metric_of_the_repeated_questions(answered: list, seed: int) -> None:
    score, edge, cloud = (np.array(column, dtype=float) for column in zip(*answered, strict=True))
    weights = np.random.default_rng(seed).integers(0, 4, (3, len(answered)))
    for f, columns, parameters in every_metric(score, edge, cloud):
        repeated = [f(*(np.repeat(column, row) for column in columns), **parameters) for row in weights]
        assert f.resampled(weights, *columns, **parameters) == pytest.approx(repeated, nan_ok=True, abs=1e-9), f.__name__


def test_interval_of_a_mean_is_the_one_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    low, high = metrics.bootstrap(metrics.mean, values)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.03) and high == pytest.approx(values.mean() + half, abs=0.03)


@pytest.mark.parametrize("levels", [True, False])
def test_interval_holds_the_truth_as_often_as_it_says(levels: bool) -> None:
    """Of 200 samples of 400 questions, about 190 intervals of the AUROC hold that of the population."""
    rng = np.random.default_rng(7)
    score = rng.random(50_000)
    right = (rng.random(50_000) < 0.2 + 0.6 * score).astype(float)
    score = np.round(score * 4) / 4 if levels else score
    truth, held = metrics.auroc(score, right), 0
    for _ in range(200):
        at = rng.integers(0, 50_000, 400)
        low, high = metrics.bootstrap(metrics.auroc, score[at], right[at], n_draws=300)
        held += low <= truth <= high
    assert 180 <= held <= 198


def test_counts_of_few_different_rows_draw_from_the_same_distribution() -> None:
    """Five levels are drawn as counts, single scores as questions; the intervals of one figure agree."""
    rng = np.random.default_rng(3)
    right = (rng.random(3000) < 0.7).astype(float)
    as_counts = metrics.bootstrap(metrics.mean, right, n_draws=4000)
    as_questions = metrics.bootstrap(metrics.brier, 1e-9 * rng.random(3000), right, n_draws=4000)  # also the mean, to nine digits
    assert as_counts == pytest.approx(as_questions, abs=0.002)


@pytest.mark.parametrize("n_different", [5, 60, 400])
def test_row_that_occurs_often_is_drawn_often(n_different: int) -> None:
    """Half of 400 answers are one row; its share in the resamples is a half, however many other rows there are."""
    values = np.concatenate([np.ones(200), 2 + np.arange(200) % n_different])
    low, high = metrics.bootstrap(metrics.brier, values == 1, np.zeros(400), n_draws=2000)
    assert (low, high) == pytest.approx((0.45, 0.55), abs=0.01)
    shares = metrics.metric(lambda weights, column: metrics.mean.resampled(weights, column == 1))
    assert metrics.bootstrap(shares, values, n_draws=2000) == pytest.approx((0.45, 0.55), abs=0.01)


def test_same_seed_same_interval() -> None:
    score, right = np.random.default_rng(0).random((2, 500))
    right = np.round(right)
    assert metrics.bootstrap(metrics.auroc, score, right) == metrics.bootstrap(metrics.auroc, score, right)
    assert metrics.bootstrap(metrics.auroc, score, right) != metrics.bootstrap(metrics.auroc, score, right, seed=1)


def test_pairing_sees_what_two_single_intervals_hide() -> None:
    """Two scores that differ little on the same questions: the paired interval is far narrower, and does not hold 0."""
    rng = np.random.default_rng(2)
    score = rng.random(2000)
    right = (rng.random(2000) < 0.2 + 0.6 * score).astype(float)
    noisy = np.clip(score + rng.normal(0, 0.1, 2000), 0, 1)
    difference, (low, high) = metrics.paired_difference(metrics.auroc, (score, right), (noisy, right))
    assert difference == pytest.approx(metrics.auroc(score, right) - metrics.auroc(noisy, right))
    assert 0 < low < difference < high
    a, b = (metrics.bootstrap(metrics.auroc, s, right) for s in (score, noisy))
    assert a.low < b.high  # apart, they overlap
    assert high - low < 0.5 * ((a.high - a.low) + (b.high - b.low))


def test_a_metric_does_not_differ_from_itself() -> None:
    score, right = [0.1, 0.4, 0.6, 0.9] * 10, [0, 1, 0, 1] * 10
    assert metrics.paired_difference(metrics.auroc, (score, right), (score, right)) == (0, (0, 0))


def test_undefined_figure_has_no_interval() -> None:
    assert all(map(math.isnan, metrics.bootstrap(metrics.auroc, [], [])))
    assert all(map(math.isnan, metrics.bootstrap(metrics.auroc, [0.1, 0.2], [1, 1])))
    assert all(map(math.isnan, metrics.bootstrap(metrics.auroc, [0.1, 0.2, 0.3], [1, 0, 1])))  # many resamples have one class
    assert all(map(math.isnan, metrics.paired_difference(metrics.auroc, ([0.1], [1]), ([0.2], [1])).interval))


def test_resamples_of_16200_questions_take_seconds() -> None:
    """The draws share one sort; a loop over questions would take minutes."""
    rng = np.random.default_rng(0)
    score, right = rng.random(16_200), np.round(rng.random(16_200))
    low, high = metrics.bootstrap(metrics.aurc, score, right)
    assert low < 0.5 < high


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.bootstrap(metrics.auroc, [0.5, 0.6], [1]),
        lambda: metrics.bootstrap(metrics.auroc, [0.5, math.nan], [1, 0]),
        lambda: metrics.bootstrap(metrics.auroc, [0.5, 0.6], [1, 0], n_draws=0),
        lambda: metrics.bootstrap(metrics.auroc, [0.5, 1.6], [1, 0]),
        lambda: metrics.bootstrap(metrics.mean),
        lambda: metrics.bootstrap(metrics.mean, [1e308, 1e308]),
        lambda: metrics.bootstrap_mean([1.0, 2.0], 10**400),
        lambda: metrics.bootstrap(metrics.mean, [[1.0]]),
        lambda: metrics.paired_difference(metrics.mean, np.array([1.0]), np.array([1.0])),
        lambda: metrics.paired_difference(metrics.mean, ([1.0],), ([1.0, 2.0],)),
        lambda: metrics.bootstrap_mean(["x"]),
        lambda: metrics.auroc.resampled(np.array([[-1, 1]]), [0.5, 0.6], [1, 0]),
        lambda: metrics.auroc.resampled(np.array([[0.5, 1]]), [0.5, 0.6], [1, 0]),
        lambda: metrics.auroc.resampled(np.array([[1, 1, 1]]), [0.5, 0.6], [1, 0]),
    ],
)
def test_wrong_columns_and_weights_are_refused(call) -> None:
    with pytest.raises(BadData):
        call()
