"""The guarantee over 1,000 calibrations from the demo model's held-out questions, at every quantization level."""

import pytest

from benchmarks import guarantee
from tests.support.guarantee import experiment, most_broken


@pytest.mark.parametrize("quantization", guarantee.QUANTIZATIONS)
def test_guarantee_holds_and_finds_what_there_is(quantization: str) -> None:
    answered = guarantee.pool(quantization, 10_000)
    for limit in guarantee.LIMITS:
        for n in guarantee.SIZES:
            found = experiment(answered, limit, n, 1_000, guarantee.SEED)
            assert found.broken <= most_broken(1_000), found
            assert found.target is None or found.good >= 0.8, found
