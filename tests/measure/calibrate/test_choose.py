"""Where a score is cut, ties included, and where a sequence begins."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.measure.calibrate import choose, ltt
from edge_agent.measure.calibrate.choose import Ranking


def ranking(scores, wrong=None) -> Ranking:
    values = np.asarray(scores, dtype=float)
    return Ranking.of(values, np.ones(len(values), dtype=bool), np.zeros(len(values)) if wrong is None else np.asarray(wrong, dtype=float))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=80), st.floats(0.02, 1.0))
def test_cut_keeps_the_share_even_within_equal_scores(levels: list[int], share: float) -> None:
    """With evenly spread draws, what is kept differs from the aim by less than a question."""
    scores = np.array(levels) / 6
    keep = max(1.0, share * len(scores))
    cut = ranking(scores).cuts(np.array([keep]))
    kept = (scores > cut.taus[0]).sum() + (scores == cut.taus[0]).sum() * (1 - cut.ties[0])
    assert abs(kept - keep) < 1


def test_a_score_of_its_own_needs_no_draw() -> None:
    cuts = ranking(np.linspace(0, 1, 50)).cuts(np.linspace(1, 50, 40))
    assert not cuts.ties.any()


def test_expected_errors_within_equal_scores_are_shared() -> None:
    found = ranking([1.0, 0.5, 0.5, 0.5, 0.5], [0, 1, 0, 1, 0]).errors(np.array([1.0, 3.0, 5.0]))
    assert found.tolist() == [0, 1, 2]


def test_sequence_keeps_more_and_more_and_begins_where_a_test_can_reject() -> None:
    rng = np.random.default_rng(0)
    rank = rng.random(400)
    found = choose.sequence(ranking(1 - rank, rng.random(400) < rank**4), 1400, 0.1, 0.05)
    assert (np.diff(found.shares) > 0).all() and len(found.shares) <= 40
    assert found.shares[0] * 1400 >= ltt.fewest(0.1, 0.05)
    assert found.shares[-1] == 1 and found.predicted[0] > 0.9


def test_where_nothing_is_safe_the_best_is_tested_all_the_same() -> None:
    found = choose.sequence(ranking(np.linspace(1, 0, 40), np.ones(40)), 140, 0.1, 0.05)
    assert len(found.cuts) and found.predicted.max() < 0.01


def test_without_a_confidence_there_is_nothing_to_test() -> None:
    nothing = Ranking.of(np.ones(10), np.zeros(10, dtype=bool), np.zeros(10))
    assert len(choose.sequence(nothing, 40, 0.1, 0.05).cuts) == 0


def test_levels_can_be_kept_in_part() -> None:
    """Of a single level, a sequence keeps more and more by draw."""
    found = choose.sequence(ranking(np.ones(100), np.zeros(100)), 350, 0.1, 0.05)
    assert set(found.cuts.taus) == {1.0} and (np.diff(found.cuts.ties) < 0).all() and found.cuts.ties[-1] == 0


@pytest.mark.parametrize(("noise", "clearly"), [(0.0, False), (0.6, True)])
def test_only_a_clear_difference_counts(noise: float, clearly: bool) -> None:
    rng = np.random.default_rng(1)
    rank = rng.random(600)
    wrong = (rng.random(600) < rank**3).astype(float)
    good, other = 1 - rank, 1 - rank + noise * rng.standard_normal(600)
    everything = np.ones(600, dtype=bool)
    assert choose.is_clearly_better(good, other, everything, wrong, 0.6) == clearly
    assert not choose.is_clearly_better(other, good, everything, wrong, 0.6)
