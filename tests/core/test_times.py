"""Moments as people and programs read them."""

import math
import time
from datetime import datetime, timedelta, timezone

import pytest

from edge_agent.core.times import clock, iso, local

MOMENT = 1795685929.7


@pytest.fixture(autouse=True)
def almaty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-5")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_programs_get_local_time_with_its_zone() -> None:
    assert iso(MOMENT) == "2026-11-26T14:38:49+05:00"
    assert datetime.fromisoformat(iso(MOMENT) or "") == datetime(2026, 11, 26, 14, 38, 49, tzinfo=timezone(timedelta(hours=5)))


def test_people_get_the_day_and_the_time_or_the_year() -> None:
    assert local(MOMENT, now=MOMENT + 3600) == "26 Nov 14:38"
    assert local(MOMENT, now=MOMENT + 3e7 * 2) == "26 Nov 2026"
    assert clock(MOMENT) == "14:38:49"


@pytest.mark.parametrize("damaged", [None, 1e300, math.nan, math.inf, "x"])
def test_damaged_time_is_none(damaged: float) -> None:
    assert iso(damaged) is None and local(damaged) == ""
