"""What was decided over time: counts for each hour or day, how often the cloud agreed, and how long readings and calls took.

Owns these queries. Reads only. Invariants: the database is held for one stretch of `AT_ONCE` decisions at a time, so an answer never waits
for a long history; a damaged row is left out of the figure that it would belong to, and stops nothing.

Agreement is not accuracy: nobody here knows the right answers. A decision is compared if the cloud answered its question, because the
device deferred it or because it was audited. Recalled decisions are not compared again.
"""

from __future__ import annotations

import bisect
import contextlib
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, time, tzinfo
from typing import Any, NamedTuple

from edge_agent.core.question import same
from edge_agent.core.records import CloudAnswer, Reading
from edge_agent.core.times import iso
from edge_agent.store import binomial
from edge_agent.store.store import Store

DAY_S = 86_400
AT_ONCE = 1000
MOST_DECISIONS = 100_000
MOST_TIMES = 1000
_DAMAGED = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)  # what reading it may raise
_COUNTED = (
    "count(*) AS decisions, coalesce(sum(deferred), 0) AS deferred, sum(route = 'cloud') AS cloud, coalesce(sum(recalled), 0) AS recalled, "
    "coalesce(sum(provisional), 0) AS provisional, sum(provisional AND ending IS NULL) AS waiting, sum(ending IS 'upheld') AS upheld, "
    "sum(ending IS 'overturned') AS overturned, sum(ending IS 'abandoned') AS abandoned"
)


@dataclass(slots=True)
class PeriodCounts:
    """How many decisions there were, and how many of them were what; `agreed` of `compared` had the cloud's answer on the device, too."""

    decisions: int = 0
    deferred: int = 0
    cloud: int = 0
    recalled: int = 0
    provisional: int = 0
    waiting: int = 0
    upheld: int = 0
    overturned: int = 0
    abandoned: int = 0
    compared: int = 0
    agreed: int = 0

    def add(self, found: dict[str, Any]) -> None:
        """Add counts by their names; others are ignored."""
        for name in PeriodCounts.__slots__:
            setattr(self, name, getattr(self, name) + int(found.get(name) or 0))


class Window(NamedTuple):
    """`n` periods of `step_s` seconds, the last one with the moment `now_s` in it; they begin at whole hours or days of a zone.

    `offset_s` is how far the zone is ahead of UTC now. Days of a `zone` begin at its midnights, also before its clocks were changed: such a
    day is longer or shorter than `step_s`. All are Unix times.
    """

    step_s: int
    n: int
    offset_s: int
    now_s: float
    zone: tzinfo | None = None

    @property
    def last(self) -> int:
        """The number of the period that `now_s` is in."""
        if self._has_zone:
            return datetime.fromtimestamp(self.now_s, self.zone).toordinal()
        return math.floor((self.now_s + self.offset_s) / self.step_s)

    def begins_s(self, number: int) -> float:
        """When a period begins."""
        if self._has_zone:
            return datetime.combine(date.fromordinal(number), time(), self.zone).timestamp()
        return float(number * self.step_s - self.offset_s)

    @property
    def bounds_s(self) -> list[float]:
        """When each period begins, the oldest first, and at the end when the last one ends."""
        return [self.begins_s(self.last + number) for number in range(1 - self.n, 2)]

    @property
    def _has_zone(self) -> bool:
        return self.zone is not None and self.step_s == DAY_S


@dataclass(slots=True)
class History:
    """The periods of a window, oldest first, all of them together, and agreement by the printed confidence (of each question's newest
    comparison). `is_complete` is false where there were more decisions than were counted. `n_later` decisions have a time after the
    window: the clock was ahead when they were made.
    """

    window: Window
    periods: dict[int, PeriodCounts]
    total: PeriodCounts = field(default_factory=PeriodCounts)
    compared: dict[str, tuple[float, bool]] = field(default_factory=dict)
    is_complete: bool = True
    n_later: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "complete": self.is_complete,
            "later": self.n_later,
            "periods": [{"begins_at": iso(self.window.begins_s(number)), **asdict(one)} for number, one in self.periods.items()],
            "total": asdict(self.total),
            "reliability": self._reliability(),
        }

    def _reliability(self) -> list[dict[str, Any]]:
        levels: dict[float, list[bool]] = defaultdict(list)
        for level, agrees in self.compared.values():
            levels[level].append(agrees)
        return [
            {"confidence": level, "compared": len(found), "agreed": sum(found), "interval": binomial.interval(sum(found), len(found))}
            for level, found in sorted(levels.items())
        ]


def history(store: Store, window: Window, check: Callable[[], None] = lambda: None, most: int = MOST_DECISIONS) -> History:
    """What was decided in a window, at most the newest `most`. `check` is called between stretches, and may raise to end it.

    Raises `StorageError`.
    """
    numbers = range(window.last - window.n + 1, window.last + 1)
    found = History(window, {number: PeriodCounts() for number in numbers})
    bounds_s = window.bounds_s
    since_s, until_s = bounds_s[0], bounds_s[-1]
    found.n_later = int(store.database.rows("SELECT count(*) AS n FROM decisions WHERE created_at >= ?", (until_s,))[0]["n"])
    ends = store.database.rows(
        "SELECT min(rowid) AS first, max(rowid) AS last FROM decisions WHERE created_at >= ? AND created_at < ?", (since_s, until_s)
    )[0]
    if ends["last"] is None:
        return found
    found.is_complete = ends["last"] - ends["first"] < most
    low = max(ends["first"], ends["last"] - most + 1)
    for first in range(low, ends["last"] + 1, AT_ONCE):
        check()
        _add(store, found, bounds_s, (first, min(first + AT_ONCE - 1, ends["last"]), since_s, until_s))
    return found


def _place(bounds_s: list[float], step_s: int) -> str:
    """SQL for the place of a decision's period in the window: a division for each run of periods that are as long as usual."""
    runs: list[str] = []
    place = 0
    while place < len(bounds_s) - 1:
        end = place + 1
        usual = bounds_s[end] - bounds_s[place] == step_s
        while usual and end < len(bounds_s) - 1 and bounds_s[end + 1] - bounds_s[end] == step_s:
            end += 1
        number = f"{place} + CAST((d.created_at - {bounds_s[place]!r}) / {step_s} AS INTEGER)" if usual else str(place)
        runs.append(f"WHEN d.created_at < {bounds_s[end]!r} THEN {number}")
        place = end
    return f"CASE {' '.join(runs)} END"


def _add(store: Store, found: History, bounds_s: list[float], stretch: tuple[int, int, float, float]) -> None:
    """Count one stretch of decisions."""
    periods = list(found.periods.values())
    within = "d.rowid BETWEEN ? AND ? AND d.created_at >= ? AND d.created_at < ?"
    for row in store.database.rows(
        f"SELECT {_place(bounds_s, found.window.step_s)} AS place, {_COUNTED} FROM decisions d WHERE {within} GROUP BY 1",
        stretch,
    ):
        periods[row["place"]].add(row)
        found.total.add(row)
    for row in store.database.rows(
        "SELECT d.created_at, d.fingerprint, d.ending, r.reading, c.answer, u.agrees FROM decisions d "
        "LEFT JOIN readings r ON r.id = d.reading_id LEFT JOIN cloud_answers c ON c.id = d.cloud_answer_id "
        "LEFT JOIN audits u ON u.decision_id = d.decision_id "
        f"WHERE {within} AND NOT d.recalled "
        "AND (d.cloud_answer_id IS NOT NULL OR u.agrees IS NOT NULL) ORDER BY d.rowid",
        stretch,
    ):
        with contextlib.suppress(*_DAMAGED):  # or removed to make room
            reading = Reading.from_json(row["reading"])
            agrees, level = _agrees(row, reading.answer), reading.confidence
            if level is not None and 0 <= level <= 1:
                for counted in (periods[bisect.bisect(bounds_s, row["created_at"]) - 1], found.total):
                    counted.add({"compared": 1, "agreed": agrees})
                found.compared[row["fingerprint"]] = (level, agrees)


def _agrees(row: dict[str, Any], answer: str) -> bool:
    if row["ending"] in ("upheld", "overturned"):
        return bool(row["ending"] == "upheld")
    if row["agrees"] is not None:
        return bool(row["agrees"])
    return same(answer, CloudAnswer.from_json(row["answer"]).answer)


class Times(NamedTuple):
    """The median, the 95th percentile and the longest of `n` times; None where there is none."""

    n: int
    p50_ms: float | None
    p95_ms: float | None
    longest_ms: float | None


def reading_times(store: Store) -> Times:
    """How long the model took for the newest `MOST_TIMES` readings. Raises `StorageError`."""
    return _times(store, "SELECT reading AS text FROM readings ORDER BY id DESC LIMIT ?", lambda text: _model_ms(Reading.from_json(text)))


def cloud_times(store: Store) -> Times:
    """How long the cloud took for its newest `MOST_TIMES` answers that are still stored. Raises `StorageError`."""
    sql = "SELECT answer AS text FROM cloud_answers WHERE size_bytes > 0 ORDER BY id DESC LIMIT ?"
    return _times(store, sql, lambda text: CloudAnswer.from_json(text).latency_ms)


def _model_ms(reading: Any) -> float:
    return float(reading.timings.prefill_ms + reading.timings.decode_ms)


def _times(store: Store, sql: str, time_of: Callable[[str], float]) -> Times:
    found = []
    for row in store.database.rows(sql, (MOST_TIMES,)):
        with contextlib.suppress(*_DAMAGED):
            if 0 <= (ms := float(time_of(row["text"]))) < math.inf:
                found.append(ms)
    found.sort()
    if not found:
        return Times(0, None, None, None)
    ranked = [found[math.ceil(share * len(found)) - 1] for share in (0.5, 0.95, 1.0)]  # the nearest rank
    return Times(len(found), *(round(ms, 1) for ms in ranked))
