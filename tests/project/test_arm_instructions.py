"""The check that work on ARM did not grow: it sees a tenth more, and not what two runs of the same code differ by."""

import copy
import json

import pytest

from benchmarks.arm_instructions import PROCESSORS, more_than_before
from tests.support.paths import ROOT

BEFORE = json.loads((ROOT / "benchmarks" / "results" / "arm-instructions.json").read_text())


def test_what_is_measured_is_what_is_kept() -> None:
    assert set(BEFORE) == set(PROCESSORS)
    assert all(set(parts) == {"start", "first_decision", "decision", "recall"} for parts in BEFORE.values())


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("part", ["start", "first_decision", "decision", "recall"])
def test_a_tenth_more_is_seen_and_noise_is_not(processor: str, part: str) -> None:
    now = copy.deepcopy(BEFORE)
    for times, n_lines in ((0.5, 0), (1.03, 0), (1.1, 1)):
        now[processor][part] = round(BEFORE[processor][part] * times)
        assert len(list(more_than_before(now, BEFORE))) == n_lines
    (line,) = more_than_before(now, BEFORE)
    assert line.startswith(f"{processor}: {part.replace('_', ' ')} executes")
