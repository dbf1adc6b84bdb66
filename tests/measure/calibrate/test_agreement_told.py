"""What `calibrate` says of the answers that later audits are compared with."""

from dataclasses import replace

import pytest
from scipy.stats import binomtest

from edge_agent.measure.calibrate import words
from edge_agent.measure.calibrate.fit import fit
from edge_agent.measure.calibrate.goals import Goal
from edge_agent.model.calibration import Disagreement
from tests.support.guarantee import synthetic

MADE = fit(synthetic(600), Goal("cloud_rate", 0.2), data="pool", data_sha256="d" * 64, created_at="2026-01-01T00:00:00Z")


def told(different: int, kept: int) -> str:
    assert MADE.calibration
    disagreement = Disagreement(cloud_model="big", kept=kept, different=different)
    made = replace(MADE, calibration=replace(MADE.calibration, disagreement=disagreement))
    (line,) = [line for line in words.lines(made) if line.startswith("agreement")]
    return line


@pytest.mark.parametrize(("different", "kept"), [(14, 70), (175, 700), (3, 20)])
def test_number_and_the_least_rise_are_said(different: int, kept: int) -> None:
    """The limit by scipy: of its two-sided exact interval, which leaves 2.5 % above."""
    line, limit = told(different, kept), f"{binomtest(different, kept).proportion_ci(0.95, 'exact').high:.0%}"
    assert f"in {different} of {kept} kept answers ({different / kept:.0%})" in line and f"only above {limit}" in line


def test_a_comparison_that_misses_a_doubling_is_called_so() -> None:
    assert "(5%)" in told(3, 60) and "miss a doubling" in told(3, 60)
    assert "miss a doubling" in told(4, 30) and "miss a doubling" not in told(14, 70)


def test_too_few_answers_can_show_nothing() -> None:
    assert "too few" in told(1, 1) and "more questions" in told(1, 1)


def test_without_a_comparison_nothing_is_said() -> None:
    assert MADE.calibration and MADE.calibration.disagreement is None
    assert not any(line.startswith("agreement") for line in words.lines(MADE))
