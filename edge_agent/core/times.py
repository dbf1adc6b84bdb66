"""Moments as people and programs read them.

Owns both forms, so that every command prints the same. Times come from the wall clock, which may have been wrong: ages and
orders never rest on it. Pure.
"""

from __future__ import annotations

from datetime import datetime


def iso(seconds: float | None) -> str | None:
    """A Unix time for programs: ISO 8601 in local time, with the offset of its zone. None if there is none, or it is damaged."""
    moment = _local(seconds)
    return moment.isoformat(timespec="seconds") if moment else None


def local(seconds: float | None, now: float | None = None) -> str:
    """A Unix time for people, in local time: `26 Nov 18:30`, or `26 Nov 2025` if that was another year than at `now`."""
    if not (moment := _local(seconds)):
        return ""
    today = _local(now) or datetime.now()
    return moment.strftime("%d %b %H:%M" if moment.year == today.year else "%d %b %Y")


def clock(seconds: float) -> str:
    """The time of day at a Unix time, for people: `18:30:09`."""
    moment = _local(seconds)
    return moment.strftime("%H:%M:%S") if moment else ""


def _local(seconds: float | None) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds).astimezone()
    except (ValueError, OverflowError, OSError, TypeError):
        return None
