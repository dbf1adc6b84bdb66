"""The whole promise of the test of agreement: 1,000 streams that do not change, at each precision of the calibration."""

import pytest

from edge_agent.store.agreement import DELTA, RateTest
from tests.support.agreement import PlainTest, false_alarms
from tests.support.mutation import catches


@pytest.mark.parametrize("n_before", [100, 400, 2000])
@catches(RateTest, PlainTest)
def test_thousand_unchanged_streams_hardly_ever_warn(part: type[RateTest], n_before: int) -> None:
    """A cloud that errs on 25 % disagrees with about 30 % of what is kept; looked at after each of 2,000 audits."""
    assert false_alarms(part, n_before, rate=0.3, n_streams=1000, n_audits=2000, seed=n_before) <= DELTA
