"""The metrics against scikit-learn and scipy, and on two real clouds: GPT-4 and Mixtral on every test question of MMLU."""

import csv

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edge_agent.measure import metrics
from tests.support.paths import SHARED

peer = pytest.importorskip("sklearn.metrics")
calibration = pytest.importorskip("sklearn.calibration")
stats = pytest.importorskip("scipy.stats")
special = pytest.importorskip("scipy.special")

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
CLOUDS = SHARED / "routellm-mmlu"
scores = st.one_of(st.sampled_from(LEVELS), st.floats(0, 1), st.sampled_from((0.33, 0.34)))
answered = st.lists(st.tuples(scores, st.booleans(), st.booleans(), st.integers(0, 3)), min_size=2, max_size=60)
with_clouds = pytest.mark.skipif(not CLOUDS.is_dir(), reason="the recorded answers are not here")


def columns(rows: list) -> tuple[np.ndarray, ...]:
    return tuple(np.array(column, dtype=float) for column in zip(*rows, strict=True))


@given(answered)
def test_auroc_is_that_of_scikit_learn_with_ties_and_weights(rows: list) -> None:
    confidence, right, _, weights = columns(rows)
    assume(0 < right.sum() < len(right))
    assert metrics.auroc(confidence, right) == pytest.approx(peer.roc_auc_score(right, confidence))
    assume((right * weights).sum() > 0 and ((1 - right) * weights).sum() > 0)
    expected = peer.roc_auc_score(right, confidence, sample_weight=weights)
    assert metrics.auroc.resampled(weights[None], confidence, right) == pytest.approx([expected])


@given(answered, st.floats(0.05, 0.95))
def test_auroc_of_benefit_is_that_of_questions_with_weights(rows: list, accuracy: float) -> None:
    """A question that has the benefit with probability w counts as w of one and 1 - w of the other class."""
    confidence, edge, cloud, _ = columns(rows)
    for right in (cloud, np.full(len(cloud), accuracy)):
        helped = (1 - edge) * right
        if 0 < helped.sum() < len(helped):
            label, share = np.repeat([1, 0], len(helped)), np.concatenate([helped, 1 - helped])
            expected = peer.roc_auc_score(label, np.tile(-confidence, 2), sample_weight=share)
            assert metrics.auroc_of_benefit(confidence, edge, right) == pytest.approx(expected)


@given(answered)
def test_concordance_is_somers_d_of_scipy(rows: list) -> None:
    confidence, edge, cloud, _ = columns(rows)
    benefit = cloud - edge
    assume(len(set(benefit)) > 1 and len(set(confidence)) > 1)
    _, codes = np.unique(confidence, return_inverse=True)
    d = stats.somersd(benefit, codes).statistic
    assert metrics.benefit_concordance(confidence, edge, cloud) == pytest.approx((1 - d) / 2)


@given(answered)
def test_brier_is_that_of_scikit_learn(rows: list) -> None:
    confidence, right, _, weights = columns(rows)
    assert metrics.brier(confidence, right) == pytest.approx(peer.brier_score_loss(right, confidence, pos_label=1))
    assume(weights.sum())
    expected = peer.brier_score_loss(right, confidence, sample_weight=weights, pos_label=1)
    assert metrics.brier.resampled(weights[None], confidence, right) == pytest.approx([expected])


@given(answered)
def test_reliability_is_the_calibration_curve_of_scikit_learn(rows: list) -> None:
    confidence, right, _, _ = columns(rows)
    assume((np.abs(confidence * 5 - np.round(confidence * 5)) > 1e-9).all() or set(confidence) <= set(LEVELS))  # an edge has two sides
    centres = (np.arange(5) + 0.5) / 5  # the nearest centre is the bin
    shares, means = calibration.calibration_curve(right, confidence, n_bins=5, pos_label=1)
    table = metrics.reliability(confidence, right, centres)
    used = table.n > 0
    assert table.accuracy[used] == pytest.approx(shares) and table.mean_confidence[used] == pytest.approx(means)
    expected = (table.n[used] / len(right) * np.abs(shares - means)).sum()
    assert metrics.ece(confidence, right, centres) == pytest.approx(expected, abs=1e-12)


@given(answered)
def test_apgr_is_the_area_of_scikit_learn(rows: list) -> None:
    confidence, edge, cloud, _ = columns(rows)
    assume(cloud.sum() > edge.sum())
    curve = metrics.deferral_curve(confidence, edge, cloud)
    expected = (peer.auc(curve.rate, curve.system) - edge.mean()) / (cloud.mean() - edge.mean())
    assert metrics.apgr(confidence, edge, cloud) == pytest.approx(expected)


@given(st.integers(0, 300), st.integers(1, 300))
def test_wilson_interval_is_that_of_scipy(a: int, b: int) -> None:
    expected = stats.binomtest(min(a, b), max(a, b)).proportion_ci(method="wilson")
    assert metrics.wilson(min(a, b), max(a, b)) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)), min_size=2, max_size=6))
def test_divergence_is_the_relative_entropy_of_scipy(pairs: list) -> None:
    p, q = (np.array(column) / sum(column) for column in zip(*pairs, strict=True))
    assert metrics.kl_divergence([p], [q])[0] == pytest.approx(special.rel_entr(p, q).sum(), abs=1e-12)


def test_bootstrap_interval_is_near_the_percentiles_of_scipy() -> None:
    rng = np.random.default_rng(5)
    values = rng.exponential(1, 300)
    expected = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=rng).confidence_interval
    assert metrics.bootstrap(metrics.mean, values, n_draws=4000) == pytest.approx((expected.low, expected.high), abs=0.02)


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_apgr_and_cpt_as_the_code_of_routellm_computes_them(seed: int) -> None:
    """Eleven thresholds at the deciles of the score, straight lines between their points, a trapezoid; for a rising curve."""
    rng = np.random.default_rng(seed)
    score = rng.permutation(1000) / 1000
    edge = (rng.random(1000) < score).astype(float)
    cloud = np.ones(1000)
    rates = np.linspace(0, 1, 11)
    accuracy = [np.where(score < np.quantile(score, rate) if rate < 1 else True, cloud, edge).mean() for rate in rates]
    area = np.trapezoid(accuracy, rates)
    weak, strong = edge.mean(), cloud.mean()
    assert metrics.apgr(score, edge, cloud, n_bins=10) == pytest.approx((area - weak) / (strong - weak), abs=2e-3)
    assert metrics.apgr(score, edge, cloud) == pytest.approx((area - weak) / (strong - weak), abs=0.02)
    for share in (0.2, 0.5, 0.8):
        assert metrics.cpt(score, edge, cloud, share) == pytest.approx(np.interp(weak + share * (strong - weak), accuracy, rates), abs=0.03)


@pytest.fixture(scope="module")
def clouds() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mixtral right, GPT-4 right, the length of each prompt, and the number of its subject."""
    weak, strong, lengths, subjects = [], [], [], []
    for number, path in enumerate(sorted(CLOUDS.glob("mmlu_*.csv"))):
        with path.open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                weak.append(row["mistralai/Mixtral-8x7B-Instruct-v0.1"] == "True")
                strong.append(row["gpt-4-1106-preview"] == "True")
                lengths.append(len(row["prompt"]))
                subjects.append(number)
    return np.array(weak, float), np.array(strong, float), np.array(lengths, float), np.array(subjects)


@with_clouds
def test_two_real_clouds_are_as_right_as_recorded(clouds: tuple) -> None:
    weak, strong, _, subjects = clouds
    assert len(weak) == 14_042 and len(set(subjects)) == 57
    assert weak.mean() == pytest.approx(0.681, abs=5e-4) and strong.mean() == pytest.approx(0.806, abs=5e-4)


@with_clouds
def test_random_router_between_real_clouds_recovers_half_the_gap(clouds: tuple) -> None:
    """Of 20 random routers, about one has an interval that misses 0.5; their mean is near it."""
    weak, strong, _, _ = clouds
    areas, held = [], 0
    for seed in range(20):
        score = np.random.default_rng(seed).random(len(weak))
        low, high = metrics.bootstrap(metrics.apgr, score, weak, strong, n_draws=200)
        areas.append(metrics.apgr(score, weak, strong))
        held += low <= 0.5 <= high
        for share in (0.2, 0.5, 0.8):
            assert metrics.cpt(score, weak, strong, share) == pytest.approx(share, abs=0.1)
    assert held >= 17 and np.mean(areas) == pytest.approx(0.5, abs=0.01)
    assert metrics.apgr(np.full(len(weak), 0.5), weak, strong) == pytest.approx(0.5)  # one level, deferred by draws


@with_clouds
def test_no_router_between_real_clouds_beats_the_oracle(clouds: tuple) -> None:
    weak, strong, lengths, subjects = clouds
    oracle = metrics.oracle_curve(weak, strong)
    by_subject = np.array([weak[subjects == number].mean() for number in range(57)])[subjects]
    routers = [np.random.default_rng(seed).random(len(weak)) for seed in range(5)]
    routers += [lengths / lengths.max(), 1 - lengths / lengths.max(), by_subject, np.round(by_subject * 4) / 4, weak]
    routers += [(1 + weak - strong) / 2, np.clip((1 + weak - strong) / 2 + np.random.default_rng(0).normal(0, 0.2, len(weak)), 0, 1)]
    for score in routers:
        curve = metrics.deferral_curve(score, weak, strong)
        assert (curve.system <= np.interp(curve.rate, oracle.rate, oracle.system) + 1e-12).all()
        for rate in (0.05, 0.2, 0.5, 0.9):
            assert metrics.accuracy_at_rate(score, weak, strong, rate) <= metrics.oracle_accuracy(weak, strong, rate) + 1e-4
    knowing = metrics.deferral_curve((1 + weak - strong) / 2, weak, strong)
    assert knowing.system[1] == pytest.approx(oracle.system[-1])  # who knows the gain is the oracle
    assert metrics.auroc_of_benefit((1 + weak - strong) / 2, weak, strong) == 1


@with_clouds
def test_subject_is_worth_something_between_real_clouds(clouds: tuple) -> None:
    """The accuracy of the weak cloud by subject routes better than chance, beyond its interval; chance does not."""
    weak, strong, _, subjects = clouds
    half = np.random.default_rng(0).random(len(weak)) < 0.5
    score = np.array([weak[(subjects == number) & half].mean() for number in range(57)])[subjects]
    weak, strong, score = weak[~half], strong[~half], score[~half]
    low, _ = metrics.bootstrap(metrics.apgr, score, weak, strong)
    assert low > 0.5
    chance = np.random.default_rng(1).random(len(weak))
    difference, interval = metrics.paired_difference(metrics.apgr, (score, weak, strong), (chance, weak, strong), n_draws=300)
    assert 0 < interval.low < difference < interval.high
