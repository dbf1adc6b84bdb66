"""The benchmark of target rates: what it measures is what the device would send."""

from dataclasses import replace

import pytest

from benchmarks.recalibrated import RATES, lines, rate_of
from edge_agent.core.errors import BadData
from tests.support.guarantee import results_of, synthetic


def test_rate_counts_low_scores_and_questions_without_confidence() -> None:
    pool = synthetic(1000)
    results = results_of(pool.edge_correct, {"confidence": pool.scores["confidence"]}, pool.no_confidence)
    expected = ((results.scores["confidence"] < 0.5) | results.no_confidence).mean()
    assert rate_of(results, "confidence", 0.5, 0.0, "salt") == pytest.approx(expected)
    assert rate_of(results, "confidence", 1.0, 1.0, "salt") == 1


def test_targets_are_reached_on_other_questions() -> None:
    found = lines(synthetic(4000, seed=1), synthetic(4000, seed=2), "d" * 64)
    assert len(found) == len(RATES) and sum(line.endswith("yes |") for line in found) >= 3


def test_runs_of_different_files_are_refused() -> None:
    one = synthetic(100)
    with pytest.raises(BadData, match="different files"):
        lines(one, replace(one, model=replace(one.model, sha256="c" * 64)), "d" * 64)
