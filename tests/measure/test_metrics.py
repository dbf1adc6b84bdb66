"""The figures of routing and calibration: published tables, second ways to compute, laws."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.errors import BadData
from edge_agent.measure import metrics

# Published with the FogGen models, percent: cloud only, edge raw, random, system, routed
PUBLISHED = {
    "foggen": [
        (69.5, 57.0, 59.9, 65.8, 23.3), (72.7, 56.9, 60.1, 64.5, 20.4), (74.2, 61.8, 64.2, 69.5, 19.7), (70.7, 55.3, 58.4, 62.4, 20.1),
        (60.1, 42.2, 50.8, 58.1, 47.7), (95.8, 91.3, 91.4, 91.9, 1.0), (74.0, 52.6, 57.1, 62.2, 20.9),
    ],
    "foggen-gemma3-1b": [
        (69.5, 45.4, 53.3, 60.0, 32.8), (72.7, 36.0, 59.1, 66.9, 62.9), (74.2, 49.6, 55.4, 60.6, 23.6), (70.7, 45.4, 52.9, 60.0, 29.8),
        (60.1, 29.3, 48.9, 51.6, 63.6), (95.8, 76.3, 79.4, 84.0, 16.0), (74.0, 39.3, 56.0, 63.1, 48.2),
    ],
    "foggen-gemma3-270m": [
        (69.5, 32.2, 58.2, 60.2, 69.5), (72.7, 30.4, 58.2, 59.5, 65.6), (74.2, 34.3, 64.7, 65.7, 76.3), (70.7, 31.7, 58.5, 59.7, 68.7),
        (60.1, 24.5, 58.3, 58.5, 94.9), (95.8, 43.7, 60.3, 59.3, 31.9), (74.0, 32.2, 59.8, 60.8, 65.9),
    ],
}  # fmt: skip
MEANS = {
    "foggen": (73.9, 59.6, 63.1, 67.8, 21.9),
    "foggen-gemma3-1b": (73.9, 45.9, 57.9, 63.7, 39.5),
    "foggen-gemma3-270m": (73.9, 32.7, 59.7, 60.5, 67.5),
}
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)

levels = st.sampled_from(LEVELS)
fractions = st.floats(0, 1)
scores = st.one_of(levels, fractions, st.sampled_from((0.125, 0.375)))
answered = st.lists(st.tuples(scores, st.booleans(), st.booleans()), min_size=1, max_size=40)  # confidence, edge right, cloud right


def columns(rows: list[tuple[float, bool, bool]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    confidence, edge, cloud = zip(*rows, strict=True)
    return np.array(confidence), np.array(edge, dtype=float), np.array(cloud, dtype=float)


def cloud_is_better(rows: list[tuple[float, bool, bool]]) -> bool:
    return sum(cloud for _, _, cloud in rows) > sum(edge for _, edge, _ in rows)


@pytest.mark.parametrize("row", [row for rows in PUBLISHED.values() for row in rows])
def test_random_column_of_the_published_tables(row: tuple[float, ...]) -> None:
    cloud, edge, random, system, routed = (value / 100 for value in row)
    assert 100 * metrics.random_accuracy(edge, cloud, routed) == pytest.approx(100 * random, abs=0.1)
    assert metrics.lift(system, edge, cloud, routed) == pytest.approx(system - random, abs=0.001)


@pytest.mark.parametrize("model", PUBLISHED)
def test_mean_line_of_the_published_tables_is_the_mean_of_its_columns(model: str) -> None:
    assert np.mean(PUBLISHED[model], axis=0) == pytest.approx(MEANS[model], abs=0.1)


def test_published_mean_lift() -> None:
    lifts = [metrics.lift(*(value / 100 for value in (system, edge, cloud, rate))) for cloud, edge, _, system, rate in PUBLISHED["foggen"]]
    assert 100 * np.mean(lifts) == pytest.approx(4.6, abs=0.1)


@given(answered)
def test_auroc_is_the_share_of_pairs_in_the_right_order(rows: list) -> None:
    confidence, right, _ = columns(rows)
    pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(confidence[right == 1], confidence[right == 0])]
    assert metrics.auroc(confidence, right) == pytest.approx(np.mean(pairs) if pairs else math.nan, nan_ok=True)


@given(answered)
def test_auroc_is_reversed_with_the_score(rows: list) -> None:
    confidence, right, _ = columns([(round(c, 6), e, k) for c, e, k in rows])  # 1 - c must not make new ties
    assert metrics.auroc(1 - confidence, right) == pytest.approx(1 - metrics.auroc(confidence, right), nan_ok=True)


@given(answered)
def test_brier_and_ece_by_hand(rows: list) -> None:
    confidence, right, _ = columns(rows)
    assert metrics.brier(confidence, right) == pytest.approx(sum((c - r) ** 2 for c, r in zip(confidence, right, strict=True)) / len(rows))
    bins: dict[float, list[tuple[float, float]]] = {}
    for c, r in zip(confidence, right, strict=True):
        bins.setdefault(min(reversed(LEVELS), key=lambda level: abs(level - c)), []).append((c, r))
    by_hand = sum(len(b) * abs(np.mean([c for c, _ in b]) - np.mean([r for _, r in b])) for b in bins.values()) / len(rows)
    assert metrics.ece(confidence, right, LEVELS) == pytest.approx(by_hand, abs=1e-9)


def test_calibrated_levels_have_no_calibration_error() -> None:
    confidence = np.repeat([0.25, 0.5, 0.75], 4)
    right = [1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0]
    assert metrics.ece(confidence, right, LEVELS) == 0
    assert metrics.ece(1 - confidence, right, LEVELS) == pytest.approx(1 / 3)
    assert metrics.ece([0.375, 0.5], [1, 0], LEVELS) == pytest.approx(0.0625)  # half way belongs to the higher level


@given(answered, fractions)
def test_no_threshold_beats_the_oracle_and_nothing_beats_the_better_model_for_each_question(rows: list, rate: float) -> None:
    confidence, edge, cloud = columns(rows)
    curve = metrics.deferral_curve(confidence, edge, cloud)
    for tau, share, system in zip(*curve, strict=True):
        deferred = confidence < tau
        assert share == pytest.approx(deferred.mean())
        assert system == pytest.approx(metrics.system_accuracy(edge, cloud, deferred))
        assert system <= metrics.oracle_accuracy(edge, cloud, share) + 1e-9
    assert metrics.oracle_accuracy(edge, cloud, rate) <= np.maximum(edge, cloud).mean() + 1e-9
    assert metrics.oracle_accuracy(edge, cloud, 1) == pytest.approx(np.maximum(edge, cloud).mean())
    assert metrics.oracle_accuracy(edge, cloud, 0) == pytest.approx(edge.mean())


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=7), st.integers(0, 7))
def test_oracle_is_the_best_of_all_choices(rows: list, n_deferred: int) -> None:
    edge, cloud = np.array(rows, dtype=float).T
    n_deferred = min(n_deferred, len(rows))
    choices = itertools.product((False, True), repeat=len(rows))
    best = max(metrics.system_accuracy(edge, cloud, choice) for choice in choices if sum(choice) <= n_deferred)
    assert metrics.oracle_accuracy(edge, cloud, n_deferred / len(rows)) == pytest.approx(best)


def test_oracle_rounds_the_number_of_questions_down() -> None:
    assert metrics.oracle_accuracy([0, 0, 0], [1, 1, 1], 0.6) == pytest.approx(1 / 3)


@given(answered)
def test_curve_goes_from_the_edge_model_to_the_cloud(rows: list) -> None:
    confidence, edge, cloud = columns(rows)
    curve = metrics.deferral_curve(confidence, edge, cloud)
    assert (np.diff(curve.rate) > 0).all() and (np.diff(curve.tau) > 0).all()
    assert (curve.rate[0], curve.rate[-1]) == (0, 1)
    assert (curve.system[0], curve.system[-1]) == (pytest.approx(edge.mean()), pytest.approx(cloud.mean()))


@given(answered.filter(lambda rows: not cloud_is_better(rows)), fractions)
def test_no_gap_is_recovered_from_a_cloud_that_is_no_better(rows: list, share: float) -> None:
    assert math.isnan(metrics.cpt(*columns(rows), share)) and math.isnan(metrics.apgr(*columns(rows)))


@given(answered.filter(cloud_is_better), fractions)
def test_cpt_is_the_first_rate_that_recovers_its_share(rows: list, share: float) -> None:
    confidence, edge, cloud = columns(rows)
    rate = metrics.cpt(confidence, edge, cloud, share)
    curve = metrics.deferral_curve(confidence, edge, cloud)
    recovered = [metrics.pgr(edge.mean(), cloud.mean(), system) for system in curve.system]
    assert np.interp(rate, curve.rate, recovered) == pytest.approx(share, abs=1e-6)
    before = [r for at, r in zip(curve.rate, recovered, strict=True) if at < rate - 1e-9]
    assert all(r <= share + 1e-6 for r in before)


def test_gap_recovered_on_a_case_by_hand() -> None:
    confidence, edge, cloud = [0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], [1, 1, 1, 1]
    assert metrics.apgr(confidence, edge, cloud) == pytest.approx(0.75)  # 0, 1/2, 1, 1, 1
    assert metrics.cpt(confidence, edge, cloud, 0.5) == pytest.approx(0.25)
    assert metrics.cpt(confidence, edge, cloud, 1) == pytest.approx(0.5)
    assert metrics.cpt(confidence, edge, cloud, 0) == 0
    assert metrics.apgr([0.5] * 4, edge, cloud) == pytest.approx(0.5)  # one confidence for all is random routing
    assert metrics.pgr(0.5, 0.9, 0.7) == pytest.approx(0.5)


def test_average_gap_over_ten_bins_by_hand() -> None:
    """RouteLLM's code draws straight lines between eleven rates; here the curve bends between two of them."""
    confidence, edge, cloud = [0.1, 0.2, 0.3, 0.4], [0, 1, 1, 1], [1, 1, 1, 1]
    assert metrics.apgr(confidence, edge, cloud) == pytest.approx(0.875)  # up to 1 at rate 1/4, flat from there
    by_hand = (0 / 2 + 0.4 + 0.8 + 7 * 1 + 1 / 2) / 10  # 0, 0.4, 0.8, 1, ... 1
    assert metrics.apgr(confidence, edge, cloud, n_bins=10) == pytest.approx(by_hand)
    assert metrics.apgr(confidence, edge, cloud, n_bins=4) == pytest.approx(0.875)


def test_curve_that_crosses_its_goal_twice_counts_the_first_time() -> None:
    confidence, edge, cloud = [0.1, 0.2, 0.3, 0.4], [0, 1, 0, 0], [1, 0, 1, 1]  # recovers 1/2, 0, 1/2, 1
    assert metrics.cpt(confidence, edge, cloud, 0.25) == pytest.approx(0.125)
    assert metrics.cpt(confidence, edge, cloud, 0.75) == pytest.approx(0.875)


@given(answered, fractions)
def test_accuracy_at_rate_is_the_mean_over_all_draws_within_a_level(rows: list, rate: float) -> None:
    confidence, edge, cloud = columns(rows)
    order = np.argsort(confidence, kind="stable")
    n_deferred = round(rate * len(rows))
    if len(set(confidence)) == len(confidence):
        deferred = np.isin(np.arange(len(rows)), order[:n_deferred])
        assert metrics.accuracy_at_rate(confidence, edge, cloud, n_deferred / len(rows)) == pytest.approx(
            np.where(deferred, cloud, edge).mean()
        )
    one_level = metrics.accuracy_at_rate(np.full(len(rows), 0.5), edge, cloud, rate)
    assert one_level == pytest.approx(metrics.random_accuracy(edge.mean(), cloud.mean(), rate))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=7), st.integers(0, 7))
def test_random_routing_of_questions_has_no_lift_on_average(rows: list, n_deferred: int) -> None:
    """Over all choices of that many questions, each as likely as another."""
    edge, cloud = np.array(rows, dtype=float).T
    choices = [c for c in itertools.product((0, 1), repeat=len(rows)) if sum(c) == min(n_deferred, len(rows))]
    assert np.mean([metrics.system_lift(edge, cloud, choice) for choice in choices]) == pytest.approx(0, abs=1e-9)


@given(answered, fractions)
def test_figures_of_routed_answers_follow_from_their_accuracies(rows: list, tau: float) -> None:
    confidence, edge, cloud = columns(rows)
    deferred = confidence < tau
    system, rate = metrics.system_accuracy(edge, cloud, deferred), float(deferred.mean())
    accuracies = float(edge.mean()), float(cloud.mean())
    assert metrics.system_lift(edge, cloud, deferred) == pytest.approx(metrics.lift(system, *accuracies, rate), abs=1e-12)
    assert metrics.system_pgr(edge, cloud, deferred) == pytest.approx(metrics.pgr(*accuracies, system), nan_ok=True, abs=1e-9)


@given(answered)
def test_no_router_leaves_the_curve_of_the_oracle(rows: list) -> None:
    confidence, edge, cloud = columns(rows)
    oracle, line, curve = (
        metrics.oracle_curve(edge, cloud),
        metrics.random_line(edge, cloud),
        metrics.deferral_curve(confidence, edge, cloud),
    )
    bound = np.interp(curve.rate, oracle.rate, oracle.system)
    assert (curve.system <= bound + 1e-9).all()
    assert (np.interp(curve.rate, line.rate, line.system) <= bound + 1e-9).all()
    assert (oracle.rate[0], oracle.rate[-1]) == (0, pytest.approx(1)) and (np.diff(oracle.system) >= -1e-12).all()
    for n_deferred in range(len(rows) + 1):
        rate = n_deferred / len(rows)
        assert np.interp(rate, oracle.rate, oracle.system) == pytest.approx(metrics.oracle_accuracy(edge, cloud, rate))
    best = (1 + edge - cloud) / 2  # a score that knows what the cloud gains
    knowing = metrics.deferral_curve(best, edge, cloud)
    until = knowing.rate <= ((cloud > edge).mean() + 1e-9)
    assert knowing.system[until] == pytest.approx(np.interp(knowing.rate, oracle.rate, oracle.system)[until])


def test_reliability_of_levels_by_hand() -> None:
    table = metrics.reliability([0.0, 0.5, 0.6, 0.5, 1.0, 1.0], [0, 1, 0, 1, 1, 1], LEVELS)
    assert table.n.tolist() == [1, 0, 3, 0, 2] and table.level.tolist() == list(LEVELS)
    assert table.accuracy[[0, 2, 4]] == pytest.approx([0, 2 / 3, 1]) and table.mean_confidence[2] == pytest.approx(1.6 / 3)
    assert np.isnan(table.accuracy[[1, 3]]).all() and np.isnan(table.low[[1, 3]]).all()
    assert (table.low[2], table.high[2]) == pytest.approx(metrics.wilson(2, 3))


def test_incremental_benefit_per_cost_by_hand() -> None:
    assert metrics.ibc(0.7, 0.6, system_cost=11, edge_cost=1) == pytest.approx(0.01)
    assert metrics.delta_ibc(0.7, 0.6, 0.8, system_cost=11, edge_cost=1, cloud_cost=101) == pytest.approx(4)
    assert math.isnan(metrics.ibc(0.7, 0.6, 1, 1)) and math.isnan(metrics.delta_ibc(0.7, 0.6, 0.6, 2, 1, 3))


def test_incremental_benefit_in_the_accounts_of_automix() -> None:
    """1 for an answer of the small model, 1 for its verifications, 50 for the large model: half of ten questions are asked again."""
    edge, cloud = [1, 1, 1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1, 0]
    deferred = [1, 0, 0, 0, 0, 1, 1, 1, 0, 1]
    system_cost, gained = 1 + 1 + 0.5 * 50, 0.3
    by_hand = (gained / (system_cost - 1)) / (0.4 / (50 - 1)) - 1
    prices = {"edge_cost": 1, "cloud_cost": 50, "routing_cost": 1}
    assert metrics.system_delta_ibc(edge, cloud, deferred, **prices) == pytest.approx(by_hand)
    assert metrics.delta_ibc(0.8, 0.5, 0.9, system_cost, 1, 50) == pytest.approx(by_hand)
    each = {name: [price] * 10 for name, price in prices.items()}
    assert metrics.system_delta_ibc(edge, cloud, deferred, **each) == pytest.approx(by_hand)
    assert math.isnan(metrics.system_delta_ibc(edge, edge, deferred, 1, 50))  # the cloud gains nothing
    assert math.isnan(metrics.system_delta_ibc(edge, cloud, [0] * 10, 1, 50))  # nothing is paid
    assert math.isnan(metrics.delta_ibc(0.6, 0.5, 0.4, 2, 1, 3))  # a benefit that is below 0 has no meaningful ratio


@given(answered, st.floats(0, 5), st.floats(0, 100))
def test_cost_curve_is_the_deferral_curve_with_prices(rows: list, edge_cost: float, cloud_cost: float) -> None:
    confidence, edge, cloud = columns(rows)
    curve, plain = (
        metrics.cost_accuracy_curve(confidence, edge, cloud, edge_cost, cloud_cost),
        metrics.deferral_curve(confidence, edge, cloud),
    )
    assert curve.cost == pytest.approx(edge_cost + plain.rate * cloud_cost)
    assert (
        curve.tau.tolist() == plain.tau.tolist() and curve.rate == pytest.approx(plain.rate) and curve.system == pytest.approx(plain.system)
    )


def test_cost_curve_with_the_price_of_each_call() -> None:
    calls = metrics.call_costs([1000, 3000, 0], [100, 500, 0], 2.0, 10.0)
    assert calls == pytest.approx([0.003, 0.011, 0])
    curve = metrics.cost_accuracy_curve([0.9, 0.1, 0.1], [1, 0, 0], [1, 1, 0], [0.001, 0.002, 0], calls)
    assert curve.cost == pytest.approx([0.001, 0.001 + 0.011 / 3, 0.001 + 0.014 / 3])
    assert curve.system == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert math.isnan(metrics.call_costs([math.nan], [3], 1, 1)[0])


@given(fractions, fractions, fractions)
def test_random_routing_has_no_lift(edge: float, cloud: float, rate: float) -> None:
    random = metrics.random_accuracy(edge, cloud, rate)
    assert metrics.lift(min(max(random, 0), 1), edge, cloud, rate) == pytest.approx(0, abs=1e-9)


@given(st.floats(0, 0.4), st.floats(0.5, 1), st.floats(0.02, 1))
def test_random_routing_has_the_incremental_benefit_of_the_cloud(edge: float, cloud: float, rate: float) -> None:
    random = metrics.random_accuracy(edge, cloud, rate)
    assert metrics.delta_ibc(random, edge, cloud, 1 + 50 * rate, 1, 51) == pytest.approx(0, abs=1e-6)


def test_interval_of_nothing_is_undefined() -> None:
    assert all(math.isnan(end) for end in metrics.wilson(0, 0))


@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_interval_holds_the_share_and_mirrors(a: int, b: int) -> None:
    n_right, n = min(a, b), max(a, b)
    low, high = metrics.wilson(n_right, n)
    assert 0 <= low <= n_right / n + 1e-12 and n_right / n - 1e-12 <= high <= 1
    assert metrics.wilson(n - n_right, n) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_wilson_interval_of_the_literature() -> None:
    """Newcombe 1998 (Statistics in Medicine 17), table I: 81 of 263, 15 of 148, 0 of 20."""
    for n_right, n, interval in ((81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611))):
        assert metrics.wilson(n_right, n) == pytest.approx(interval, abs=5e-5)


def test_metrics_without_data_are_nan() -> None:
    assert all(map(math.isnan, (metrics.auroc([], []), metrics.ece([], [], LEVELS), metrics.brier([], []))))
    assert all(map(math.isnan, (metrics.system_accuracy([], [], []), metrics.oracle_accuracy([], [], 0.5), metrics.apgr([], [], []))))
    assert math.isnan(metrics.cpt([], [], [], 0.5)) and math.isnan(metrics.auroc([0.1, 0.2], [1, 1]))
    assert math.isnan(metrics.random_accuracy(math.nan, 0.5, 0.5)) and math.isnan(metrics.pgr(0.9, 0.9, 0.9))
    assert [len(part) for part in metrics.deferral_curve([], [], [])] == [0, 0, 0]
    assert [len(part) for part in metrics.cost_accuracy_curve([], [], [], 1, 2)] == [0, 0, 0, 0]
    assert {len(part) for f in (metrics.oracle_curve, metrics.random_line, metrics.risk_coverage_curve) for part in f([], [])} == {0}
    assert math.isnan(metrics.system_lift([], [], [])) and math.isnan(metrics.system_pgr([], [], []))
    assert (
        math.isnan(metrics.system_delta_ibc([], [], [], 1, 50)) and math.isnan(metrics.aurc([], [])) and math.isnan(metrics.e_aurc([], []))
    )
    assert math.isnan(metrics.accuracy_at_coverage([], [], 0.5)) and math.isnan(metrics.accuracy_at_rate([], [], [], 0.5))
    assert math.isnan(metrics.auroc_of_benefit([], [], [])) and math.isnan(metrics.benefit_concordance([], [], []))
    assert metrics.reliability([], [], LEVELS).n.tolist() == [0] * 5 and math.isnan(metrics.mean([]))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.auroc([0.1], [0, 1]), "2 entries but confidence has 1"),
        (lambda: metrics.auroc([1.5], [1]), "1.5"),
        (lambda: metrics.auroc([math.nan], [1]), "nan"),
        (lambda: metrics.auroc([0.5], [0.5]), "right or wrong"),
        (lambda: metrics.brier([[0.5]], [[1]]), "2 dimensions"),
        (lambda: metrics.brier(["sure"], [1]), "does not hold numbers"),
        (lambda: metrics.brier([[0.5], [0.5, 0.6]], [1, 1]), "does not hold numbers"),
        (lambda: metrics.ece([0.5], [1], []), "rising"),
        (lambda: metrics.ece([0.5], [1], [0.5, 0.5]), "rising"),
        (lambda: metrics.system_accuracy([1], [1], [0.5]), "true or false"),
        (lambda: metrics.random_accuracy(59.6, 0.7, 0.2), "59.6"),
        (lambda: metrics.oracle_accuracy([1], [1], -0.1), "-0.1"),
        (lambda: metrics.ibc(0.5, 0.4, math.inf, 1), "system_cost"),
        (lambda: metrics.wilson(3, 2), "3 of 2"),
        (lambda: metrics.wilson(None, 2), "None of 2"),
        (lambda: metrics.wilson(1, math.inf), "1 of inf"),
        (lambda: metrics.ibc(0.5, 0.4, 1e308, 1), "system_cost"),
        (lambda: metrics.pgr("much", 0.5, 0.5), "much"),
        (lambda: metrics.pgr(None, 0.5, 0.5), "None"),
        (lambda: metrics.brier([1j], [1]), "does not hold numbers"),
        (lambda: metrics.brier(None, [1]), "0 dimensions"),
        (lambda: metrics.apgr([0.5], [0], [1], n_bins=0), "bins is 0"),
        (lambda: metrics.apgr([0.5], [0], [1], n_bins=10**400), "bins is 1000"),
        (lambda: metrics.cpt([0.5], [0], [1], 50), "share is 50"),
        (lambda: metrics.accuracy_at_coverage([0.5], [0], 2), "coverage is 2"),
        (lambda: metrics.system_lift([1, 0], [1, 0], [1]), "deferred has 1"),
        (lambda: metrics.system_delta_ibc([1], [1], [1], math.nan, 1), "edge_cost is nan"),
        (lambda: metrics.call_costs([-1], [1], 1, 1), "below 0"),
        (lambda: metrics.call_costs([1, 2], [1], 1, 1), "shapes"),
        (lambda: metrics.kl_divergence([[]], []), "shapes"),
    ],
)  # fmt: skip
def test_value_that_is_not_a_share_is_refused_and_named(call, words: str) -> None:
    with pytest.raises(BadData, match=words):
        call()


NO_COLUMNS = [
    None, 0.5, "x", ["x", "y"], [[0.5, 0.5]], [0.5], [math.nan, 1], [math.inf, 1], [-0.1, 1], [1.1, 1], [1j, 1], [{}, 1], [10**400, 1],
]  # fmt: skip
OF_ANSWERS = (metrics.auroc, metrics.brier, metrics.aurc, metrics.e_aurc, metrics.risk_coverage_curve)
OF_ROUTES = (metrics.apgr, metrics.auroc_of_benefit, metrics.benefit_concordance, metrics.deferral_curve)
OF_DEFERRED = (metrics.system_accuracy, metrics.system_lift, metrics.system_pgr)
OF_COLUMNS = [(2, (*OF_ANSWERS, metrics.oracle_curve, metrics.random_line)), (3, (*OF_ROUTES, *OF_DEFERRED))]


@pytest.mark.parametrize(("function", "n"), [(f, n) for n, functions in OF_COLUMNS for f in functions])
@pytest.mark.parametrize("wrong", NO_COLUMNS, ids=range(len(NO_COLUMNS)))
def test_column_that_holds_anything_else_is_refused(function, n: int, wrong: object) -> None:
    for place in range(n):
        with pytest.raises(BadData):
            function(*(wrong if i == place else [1, 0] for i in range(n)))


def test_auroc_of_many_is_fast() -> None:
    """A comparison of all pairs would need 10^10 entries."""
    n = 200_000
    assert metrics.auroc(np.arange(n) / n, np.arange(n) % 2) == pytest.approx(0.5, abs=1e-4)
