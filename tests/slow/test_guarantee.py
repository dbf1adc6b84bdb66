"""The guarantee over many calibrations from the demo model's held-out questions, at every quantization level.

`python -m benchmarks.guarantee` makes 1,000 at each size; EDGE_AGENT_TEST_SPLITS chooses how many are made here.
"""

import os

import pytest

from benchmarks import guarantee
from tests.support.guarantee import experiment, least_found, most_broken

SPLITS = int(os.environ.get("EDGE_AGENT_TEST_SPLITS", "100"))


@pytest.mark.parametrize("quantization", guarantee.QUANTIZATIONS)
def test_guarantee_holds_and_finds_what_there_is(quantization: str) -> None:
    answered = guarantee.pool(quantization, 10_000)
    for limit in guarantee.LIMITS:
        for n in guarantee.SIZES:
            found = experiment(answered, limit, n, SPLITS, guarantee.SEED)
            assert found.broken <= most_broken(SPLITS), found
            assert found.target is None or found.good >= least_found(SPLITS), found
