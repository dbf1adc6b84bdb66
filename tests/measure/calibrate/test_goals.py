"""Goals: what is asked for is checked, and cuts reach it."""

import math

import numpy as np
import pytest

from edge_agent.core.errors import BadData
from edge_agent.measure.calibrate import goal_cuts
from edge_agent.measure.calibrate.goals import Goal, money_per_day


@pytest.mark.parametrize(("text", "money"), [("3.00/day", 3.0), ("21/week", 3.0), ("62 / month", 2.0), ("0/day", 0.0)])
def test_budget_is_money_for_a_time(text: str, money: float) -> None:
    assert money_per_day(text) == pytest.approx(money)


@pytest.mark.parametrize("text", ["3", "3/year", "-3/day", "nan/day", "three/day", "", "1e9/day"])
def test_other_budgets_are_refused(text: str) -> None:
    with pytest.raises(BadData, match=r"3\.00/day"):
        money_per_day(text)


@pytest.mark.parametrize(
    "arguments",
    [
        ("cloud_rate", 1.1), ("cloud_rate", math.nan), ("max_local_error", 0.0, 0.05), ("max_local_error", 1.0, 0.05),
        ("max_local_error", 0.1, None), ("max_local_error", 0.1, 0.0), ("max_local_error", 0.1, 1.0), ("budget", 3.0),
        ("budget", math.inf, None, 10), ("budget", 3.0, None, 0), ("speed", 0.1),
    ],
)  # fmt: skip
def test_goal_that_cannot_be_worked_on_is_refused(arguments: tuple) -> None:
    with pytest.raises(BadData):
        Goal(*arguments)


SURE = np.ones(1000, dtype=bool)
DRAWS = (np.arange(1000) * 617 % 1000) / 1000  # evenly spread


def rate_of(cut: goal_cuts.Cut, scores: np.ndarray, sure: np.ndarray = SURE) -> float:
    kept = sure & ~((scores < cut.tau) | ((scores == cut.tau) & (cut.tie_share > DRAWS)))
    return 1 - kept.mean()


@pytest.mark.parametrize("rate", [0.0, 0.013, 0.2, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("levels", [1, 5, 1000])
def test_any_rate_is_reached_even_with_few_levels(rate: float, levels: int) -> None:
    scores = np.floor(np.random.default_rng(0).random(1000) * levels) / levels
    assert rate_of(goal_cuts.for_rate(scores, SURE, rate), scores) == pytest.approx(rate, abs=0.02)


def test_questions_without_a_confidence_count_as_deferred() -> None:
    scores, sure = np.linspace(0, 1, 1000), np.arange(1000) % 4 > 0
    assert rate_of(goal_cuts.for_rate(scores, sure, 0.4), scores, sure) == pytest.approx(0.4, abs=0.005)
    assert rate_of(goal_cuts.for_rate(scores, sure, 0.1), scores, sure) == pytest.approx(0.25, abs=0.005)


def test_accuracy_is_reached_with_the_fewest_questions() -> None:
    scores = np.linspace(0, 1, 1000)
    edge, cloud = (scores > 0.5).astype(float), np.full(1000, 0.9)
    cut = goal_cuts.for_accuracy(scores, SURE, edge, cloud, 0.8)
    kept = scores >= cut.tau
    assert np.where(kept, edge, cloud).mean() == pytest.approx(0.8, abs=0.002)
    assert kept.mean() == pytest.approx(1 - 1 / 3, abs=0.002)  # 0.5 right alone, and each deferred question brings 0.9
    assert goal_cuts.for_accuracy(scores, SURE, edge, cloud, 0.96) is None
    assert goal_cuts.best_accuracy(scores, SURE, edge, cloud) == pytest.approx(0.95, abs=0.001)


def test_cost_defers_what_the_money_pays_for() -> None:
    scores, costs = np.linspace(0, 1, 1000), np.linspace(2, 0, 1000)  # unsure questions are dear
    cut = goal_cuts.for_cost(scores, SURE, costs, 0.36)
    assert costs[scores < cut.tau].sum() / 1000 == pytest.approx(0.36, abs=0.003)
    assert (scores < cut.tau).mean() == pytest.approx(0.2, abs=0.002)
    assert goal_cuts.for_cost(scores, SURE, costs, 1.1) == goal_cuts.NOTHING_KEPT
    assert rate_of(goal_cuts.for_cost(scores, SURE, costs, 0.0), scores) == 0
