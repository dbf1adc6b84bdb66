"""Device time only goes forward, never faster than real time, whatever the wall clock does."""

import pathlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.store.device_time import Anchor, Clock, Moment, device_s, read_moment
from edge_agent.store.store import Store
from tests.support.mutation import catches

YEAR_S = 365 * 86_400.0
NOW = Moment("boot-1", 1000.0, 1_800_000_000.0, True)


def by_the_wall(anchor: Anchor, now: Moment) -> float:
    """Mutant: trusts the wall clock."""
    return anchor.device_s + now.wall - anchor.moment.wall


def standing_still_between_boots(anchor: Anchor, now: Moment) -> float:
    """Mutant: counts nothing across a reboot."""
    return device_s(anchor, now) if anchor.moment.boot == now.boot else anchor.device_s


@pytest.mark.parametrize("jump_s", [-86_400.0, -50 * YEAR_S, 86_400.0, 50 * YEAR_S])
@catches(device_s, by_the_wall)
def test_jump_of_the_wall_clock_changes_nothing(part, jump_s: float) -> None:
    later = replace(NOW, uptime_s=NOW.uptime_s + 10, wall=NOW.wall + 10 + jump_s)
    assert part(Anchor(NOW, 500.0), later) == 510.0


@catches(device_s, standing_still_between_boots)
def test_new_boot_counts_at_least_its_uptime(part) -> None:
    """A device boots in the past, unsynchronised: what waits still becomes due."""
    assert part(Anchor(NOW, 500.0), Moment("boot-2", 40.0, 0.0, False)) == 540.0


@catches(device_s, by_the_wall)
def test_time_switched_off_counts_only_if_the_clock_was_right_before_and_after(part) -> None:
    week = replace(NOW, boot="boot-2", uptime_s=40.0, wall=NOW.wall + 7 * 86_400)
    assert part(Anchor(NOW, 0.0), week) == 7 * 86_400
    assert part(Anchor(NOW, 0.0), replace(week, trusted=False)) == 40.0
    assert part(Anchor(replace(NOW, trusted=False), 0.0), week) == 40.0


def test_without_a_boot_id_a_smaller_uptime_means_a_reboot() -> None:
    then = replace(NOW, boot="", trusted=False)
    assert device_s(Anchor(then, 5.0), replace(then, uptime_s=30.0)) == 35.0
    assert device_s(Anchor(then, 5.0), replace(then, uptime_s=then.uptime_s + 3)) == 8.0


moments = st.tuples(st.floats(0.1, 1e6), st.floats(0, 1e6), st.floats(-1e9, 1e9), st.booleans(), st.booleans())


@given(st.lists(moments, max_size=20))
def test_device_time_never_goes_back_or_ahead_of_real_time(steps: list[tuple[float, float, float, bool, bool]]) -> None:
    """In each step the device runs, may be off for a while, and its wall clock is wrong by any amount unless trusted."""
    real, anchor, boot = 0.0, Anchor(Moment("0", 0.0, 0.0, True), 0.0), 0
    for runs_s, off_s, wrong_s, reboots, trusted in steps:
        boot += reboots
        real += runs_s + (off_s if reboots else 0.0)
        uptime_s = runs_s if reboots else anchor.moment.uptime_s + runs_s
        now = Moment(str(boot), uptime_s, real if trusted else real + wrong_s, trusted)
        seconds = device_s(anchor, now)
        assert anchor.device_s + runs_s * (1 - 1e-9) - 1e-6 <= seconds <= real * (1 + 1e-9) + 1e-6
        anchor = Anchor(now, seconds)


def test_processes_and_restarts_agree(tmp_path: pathlib.Path) -> None:
    moment = NOW
    path = tmp_path / "edge-agent.db"
    with Store(path, moment=lambda: moment) as store, Store(path, moment=lambda: moment) as other:
        assert store.clock.now_s() == 0.0
        with store.transaction():
            store.clock.keep()
        moment = replace(NOW, uptime_s=NOW.uptime_s + 100)
        assert store.clock.now_s() == other.clock.now_s() == 100.0
        with store.transaction():
            store.clock.keep()
        moment = Moment("boot-2", 7.0, 0.0, False)
        assert Clock(store.database, lambda: moment).now_s() == Clock(other.database, lambda: moment).now_s() == 107.0


def test_reading_device_time_writes_nothing(tmp_path: pathlib.Path) -> None:
    with Store(tmp_path / "edge-agent.db") as store, store.transaction():
        store.clock.now_s()
        assert store.database.rows("SELECT * FROM clock") == []
        store.clock.keep()
        assert len(store.database.rows("SELECT * FROM clock")) == 1


def test_the_clocks_of_this_device_can_be_read() -> None:
    moment = read_moment()
    assert moment.uptime_s > 0 and moment.wall > 1.7e9 and isinstance(moment.trusted, bool)
    assert read_moment().uptime_s >= moment.uptime_s
