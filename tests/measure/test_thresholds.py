"""From a goal to a threshold: it agrees with the rule that decides, ties reach every rate, and no goal is missed."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core import routing
from edge_agent.core.errors import BadData
from edge_agent.measure import metrics
from edge_agent.measure.metrics import Threshold

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
fractions = st.floats(0, 1)
scores = st.one_of(st.sampled_from(LEVELS), fractions)
score_lists = st.lists(scores, min_size=1, max_size=40)
answered = st.lists(st.tuples(scores, st.booleans(), st.booleans()), min_size=1, max_size=40)


def draws(n: int, salt: str = "s") -> np.ndarray:
    """The draws of n questions, as the running system makes them."""
    return np.array([routing.draw(hashlib.sha256(str(i).encode()).hexdigest(), salt) for i in range(n)])


def expected_deferred(score: np.ndarray, threshold: Threshold) -> np.ndarray:
    """How likely each question is deferred, over its draw."""
    return (score < threshold.tau) + (score == threshold.tau) * threshold.tie_share


@given(score_lists, st.one_of(fractions, st.sampled_from(LEVELS)), st.one_of(fractions, st.sampled_from((0.0, 1.0))))
def test_columns_are_deferred_as_single_questions_are(values: list, tau: float, tie_share: float) -> None:
    own = draws(len(values))
    one_by_one = [routing.is_below(value, tau, tie_share, draw) for value, draw in zip(values, own, strict=True)]
    assert metrics.deferred_by(values, Threshold(tau, tie_share), own).tolist() == one_by_one


@given(score_lists, fractions)
def test_any_rate_is_reached_in_expectation(values: list, rate: float) -> None:
    threshold = metrics.threshold_for_rate(values, rate)
    assert expected_deferred(np.array(values), threshold).mean() == pytest.approx(rate, abs=1e-6)


@given(score_lists, fractions)
def test_any_rate_is_reached_on_the_questions_with_their_draws(values: list, rate: float) -> None:
    own = draws(len(values))
    threshold = metrics.threshold_for_rate(values, rate, own)
    assert metrics.deferred_by(values, threshold, own).sum() == pytest.approx(rate * len(values), abs=0.5 + 1e-6)


@given(score_lists, st.lists(fractions, min_size=2, max_size=2).map(sorted))
def test_higher_rate_never_keeps_what_a_lower_one_sends(values: list, rates: list) -> None:
    own = draws(len(values))
    low, high = (metrics.deferred_by(values, metrics.threshold_for_rate(values, rate, own), own) for rate in rates)
    assert (low <= high).all()


@given(score_lists, fractions, fractions)
def test_raising_tau_never_keeps_more(values: list, first: float, second: float) -> None:
    own = draws(len(values))
    for tie_share in (0.0, 0.3, 1.0):
        low, high = (metrics.deferred_by(values, Threshold(tau, tie_share), own).sum() for tau in sorted((first, second)))
        assert low <= high


def test_one_level_for_all_reaches_every_rate() -> None:
    """All questions have one confidence: without draws only 0 and 1 could be reached."""
    own = draws(1000)
    for rate in (0.0, 0.1, 0.25, 0.5, 0.777, 1.0):
        threshold = metrics.threshold_for_rate([0.5] * 1000, rate, own)
        assert metrics.deferred_by([0.5] * 1000, threshold, own).mean() == pytest.approx(rate, abs=1e-9)
    elsewhere = metrics.deferred_by([0.5] * 1000, metrics.threshold_for_rate([0.5] * 1000, 0.3, own), draws(1000, "other"))
    assert elsewhere.mean() == pytest.approx(0.3, abs=0.05)  # other draws, so within sampling error


def test_threshold_for_rate_by_hand() -> None:
    values = [0.0, 0.25, 0.25, 0.25, 0.25, 0.5, 0.5, 0.75, 1.0, 1.0]
    assert metrics.threshold_for_rate(values, 0.0) == (0.0, 0.0)
    assert metrics.threshold_for_rate(values, 0.1) == (0.25, 0.0)
    assert metrics.threshold_for_rate(values, 0.2) == (0.25, pytest.approx(0.25))
    assert metrics.threshold_for_rate(values, 0.5) == (0.5, 0.0)
    assert metrics.threshold_for_rate(values, 0.9) == (1.0, pytest.approx(0.5))
    assert metrics.threshold_for_rate(values, 1.0) == (1.0, 1.0)


def test_draw_at_the_tie_share_keeps_the_answer() -> None:
    assert metrics.deferred_by([0.5, 0.5, 0.5], Threshold(0.5, 0.25), [0.0, 0.25, 0.5]).tolist() == [True, False, False]
    assert metrics.deferred_by([0.25, 0.5], Threshold(0.5, 0.0)).tolist() == [True, False]


def test_questions_without_confidence_count_towards_the_rate() -> None:
    values, always = [0.0, 0.0, 0.5, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0], [1, 1] + [0] * 8
    assert metrics.threshold_for_rate(values, 0.3, always=always) == (0.5, pytest.approx(0.5))
    assert metrics.threshold_for_rate(values, 0.1, always=always) == (0.0, 0.0)  # they are more than that already
    assert metrics.threshold_for_rate(values, 1.0, always=always) == (1.0, 1.0)


@given(answered, fractions)
def test_accuracy_is_reached_at_the_lowest_rate(rows: list, goal: float) -> None:
    score, edge, cloud = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    curve = metrics.deferral_curve(score, edge, cloud)
    threshold = metrics.threshold_for_accuracy(score, edge, cloud, goal)
    if threshold is None:
        assert curve.system.max() < goal
        return
    chance = expected_deferred(score, threshold)
    assert (chance * cloud + (1 - chance) * edge).mean() >= goal - 1e-6
    below = np.linspace(0, max(chance.mean() - 1e-4, 0), 50)
    if chance.mean() > 1e-4:
        assert (np.interp(below, curve.rate, curve.system) <= goal + 1e-6).all()


@given(answered, st.floats(0, 60), st.booleans())
def test_cost_stays_within_the_budget_and_uses_it(rows: list, budget: float, each: bool) -> None:
    score = np.array([row[0] for row in rows])
    call = np.linspace(10, 50, len(rows)) if each else 50.0
    threshold = metrics.threshold_for_cost(score, 1.0, call, budget)
    if threshold is None:
        assert budget < 1
        return
    spent = 1 + (expected_deferred(score, threshold) * call).mean()
    assert spent <= budget + 1e-6
    assert spent == pytest.approx(budget, abs=1e-6) or threshold == (1.0, 1.0)


def test_questions_without_confidence_count_towards_accuracy_and_cost() -> None:
    """One of five goes to the cloud anyway: with one more, three of five are right, and two calls are paid."""
    score, edge, cloud, always = [0.0, 0.2, 0.4, 0.6, 0.8], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]
    assert metrics.threshold_for_accuracy(score, edge, cloud, 0.4, always=always) == (0.0, 0.0)
    assert metrics.threshold_for_accuracy(score, edge, cloud, 0.6, always=always) == (0.4, 0.0)
    assert metrics.threshold_for_cost(score, 1, 5, 3, always=always) == (0.4, 0.0)


def test_budget_in_whole_questions_is_not_exceeded() -> None:
    values, own = [0.5] * 10, draws(10)
    threshold = metrics.threshold_for_cost(values, 0, 1.0, 0.39, own)
    assert metrics.deferred_by(values, threshold, own).sum() == 3
    assert metrics.deferred_by(values, metrics.threshold_for_cost(values, 0, 1.0, 0.3, own), own).sum() == 3
    assert metrics.threshold_for_cost(values, 0, 0.0, 0.0) == (1.0, 1.0)  # a cloud that costs nothing


def test_goals_that_cannot_be_reached_have_no_threshold() -> None:
    assert metrics.threshold_for_accuracy([0.1, 0.9], [0, 0], [1, 0], 0.9) is None
    assert metrics.threshold_for_cost([0.1, 0.9], 2.0, 1.0, 1.5) is None
    assert metrics.threshold_for_cost([0.1, 0.9], 1.0, 1.0, 1.5, always=[1, 1]) is None


def test_achieved_rate_stands_beside_its_target() -> None:
    achieved = metrics.achieved_rate([True] * 22 + [False] * 78, 0.2)
    assert achieved[:2] == (0.2, pytest.approx(0.22)) and achieved[2:] == metrics.wilson(22, 100)
    assert math.isnan(metrics.achieved_rate([], 0.2).rate)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.threshold_for_rate([], 0.5), "no scores"),
        (lambda: metrics.threshold_for_rate([0.5], 20), "20"),
        (lambda: metrics.threshold_for_rate([0.5], math.nan), "nan"),
        (lambda: metrics.threshold_for_rate([0.5], 0.5, [0.1, 0.2]), "2 draws for 1 scores"),
        (lambda: metrics.threshold_for_rate([0.5], 0.5, always=[0.5]), "always"),
        (lambda: metrics.threshold_for_rate([0.5], 0.5, always=[1, 0]), "always has 2 entries"),
        (lambda: metrics.threshold_for_accuracy([0.5], [1], [1, 1], 0.5), "cloud_correct has 2"),
        (lambda: metrics.threshold_for_cost([0.5], -1, 1, 1), "edge_cost is -1"),
        (lambda: metrics.threshold_for_cost([0.5], 1, [1, 2], 1), "cloud_cost has the shape"),
        (lambda: metrics.threshold_for_cost([0.5], 1, 1, math.inf), "budget is inf"),
        (lambda: metrics.deferred_by([0.5], Threshold(0.5, 0.5)), "draws"),
        (lambda: metrics.deferred_by([0.5], Threshold(2, 0)), "tau is 2"),
    ],
)  # fmt: skip
def test_wrong_goal_is_refused_and_named(call, words: str) -> None:
    with pytest.raises(BadData, match=words):
        call()
