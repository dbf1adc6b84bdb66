"""The guarantee over many calibrations from a synthetic pool; tests/slow has the demo model's."""

import pytest

from tests.support.guarantee import Outcome, experiment, most_broken, synthetic

SPLITS = 150
POOL = synthetic(6000, seed=1)


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return [experiment(POOL, limit, n, SPLITS) for limit, n in ((0.05, 800), (0.1, 50), (0.1, 400), (0.2, 150))]


def test_limit_is_broken_in_at_most_delta_of_the_splits(outcomes: list[Outcome]) -> None:
    assert max(found.broken for found in outcomes) <= most_broken(SPLITS)


def test_observed_error_without_a_test_breaks_it(outcomes: list[Outcome]) -> None:
    assert min(found.empirical for found in outcomes if found.n > 100) > most_broken(SPLITS)


def test_what_can_be_found_is_found(outcomes: list[Outcome]) -> None:
    with_target = [found for found in outcomes if found.target is not None]
    assert len(with_target) >= 2 and min(found.good for found in with_target) >= 0.8
