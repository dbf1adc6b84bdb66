"""Device time: seconds that only go forward, across restarts and whatever the wall clock does.

Owns the one row of `clock`, and how a gap between two starts is judged. Ages, waits and budgets are counted in device time;
the wall clock is for people to read. Invariants: as far as this device can know, device time never runs ahead of real time,
so nothing expires early; it advances while the device runs, so nothing waits forever.

A Raspberry Pi has no clock of its own: it boots in the past, and minutes later its clock jumps by any amount. Within one
boot the kernel's uptime is the truth. Between two boots at least the new uptime has passed; the wall clock's difference
counts only if the kernel called it synchronised both times.
"""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.store.database import Database

_SAVE_EVERY_S = 60.0
_BOOT_ID = pathlib.Path("/proc/sys/kernel/random/boot_id")
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 512  # struct timex is smaller everywhere


@dataclass(frozen=True, slots=True)
class Moment:
    """The device's clocks at one moment: `uptime_s` since `boot` (empty if unknown), `wall` (Unix time), and whether to trust it."""

    boot: str
    uptime_s: float
    wall: float
    trusted: bool


@dataclass(frozen=True, slots=True)
class Anchor:
    """Device time `device_s` at a past moment."""

    moment: Moment
    device_s: float


def device_s(anchor: Anchor, now: Moment) -> float:
    """Device time at `now`: the anchor, plus only the time that has certainly passed."""
    then = anchor.moment
    passed = now.uptime_s - then.uptime_s
    if then.boot != now.boot or passed < 0:  # another boot; without a boot id, only a smaller uptime shows it
        passed = now.uptime_s
        if then.trusted and now.trusted:
            passed = max(passed, now.wall - then.wall)
    return anchor.device_s + passed


def read_moment() -> Moment:
    """The clocks of this device, now."""
    return Moment(_boot(), _uptime(), time.time(), _synchronised())


class Clock:
    """Device time of a database file, the same for all processes that open it. `moment` replaces the device's clocks in tests."""

    def __init__(self, database: Database, moment: Callable[[], Moment] = read_moment, uptime: Callable[[], float] | None = None) -> None:
        self._database, self._moment = database, moment
        self._uptime = uptime or (_uptime if moment is read_moment else lambda: moment().uptime_s)
        self._anchor: Anchor | None = None
        self._saved_uptime_s: float | None = None

    def now_s(self) -> float:
        """Device time, in seconds; only the uptime if the database could not be opened, and so nothing is stored. Reads only."""
        anchor = self._anchor  # another thread may replace it meanwhile
        if anchor is None and not self._database.is_open:
            return self._uptime()
        if anchor is None:
            anchor = self._anchor = self._read(self._moment())
        return anchor.device_s + max(0.0, self._uptime() - anchor.moment.uptime_s)

    def keep(self) -> None:
        """Save the current device time, at most once a minute, inside the caller's transaction.

        A crash or a rollback leaves the older anchor, from which the same time follows again.
        """
        if self._saved_uptime_s is not None and 0 <= self._uptime() - self._saved_uptime_s < _SAVE_EVERY_S:
            return
        now = self._moment()
        self._anchor = self._read(now)
        self._database.write(
            "INSERT OR REPLACE INTO clock (id, boot, uptime_s, device_s, wall, trusted) VALUES (1, ?, ?, ?, ?, ?)",
            (now.boot, now.uptime_s, self._anchor.device_s, now.wall, now.trusted),
        )
        self._saved_uptime_s = now.uptime_s

    def _read(self, now: Moment) -> Anchor:
        """Device time at `now`, computed from the last saved anchor."""
        found = self._database.rows("SELECT boot, uptime_s, wall, trusted, device_s FROM clock")
        if not found:
            return Anchor(now, 0.0)
        row = found[0]
        return Anchor(now, device_s(Anchor(Moment(row["boot"], row["uptime_s"], row["wall"], bool(row["trusted"])), row["device_s"]), now))


def _boot() -> str:
    with contextlib.suppress(OSError):
        return _BOOT_ID.read_text().strip()
    return ""


def _uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _synchronised() -> bool:
    """Whether the kernel calls its wall clock synchronised (adjtimex(2)); False where it cannot be asked."""
    import ctypes

    with contextlib.suppress(AttributeError, OSError):
        state = int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
        return 0 <= state != _TIME_ERROR
    return False
