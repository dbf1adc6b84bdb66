"""The checks of a setting's value: each returns the value in its right type, or raises `BadSetting` that names where it came from.

Owns what is allowed. Knows neither the settings nor their use. Pure.
"""

from __future__ import annotations

import math
from typing import Any

from edge_agent.core.errors import BadSetting
from edge_agent.core.limits import DAY_S

POLICIES = ("prefer_local", "only_local", "prefer_cloud", "only_cloud")
FOREVER = "forever"
MOST = 10**12  # of anything: in bytes, seconds or millionths it still fits a 64-bit integer, which is what SQLite adds with
_MOST_PRICE = 10**9  # per million tokens: a year of calls at this price fits, too


def text(value: Any, source: str) -> str:
    """A text that UTF-8 can hold."""
    if not isinstance(value, str) or not value.strip() or any("\ud800" <= c <= "\udfff" for c in value):
        raise BadSetting(f"{source} is {_shown(value)}; give a text in UTF-8.")
    return value


def path(value: Any, source: str) -> str:
    """A path, or a name."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise BadSetting(f"{source} is {_shown(value)}; give a path or a name.")
    return value


def _number(value: Any) -> float:
    """The value as a number; NaN if it is not one."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _shown(value: Any) -> str:
    """The value as an error names it. Python refuses to print an integer of more than 4,300 digits."""
    try:
        return f"{value!r:.200}"
    except ValueError:
        return "a number of thousands of digits"


def fraction(value: Any, source: str) -> float:
    """A number from 0 to 1."""
    if not 0 <= (number := _number(value)) <= 1:
        raise BadSetting(f"{source} is {_shown(value)}; give a number from 0 to 1.")
    return number


def positive(value: Any, source: str) -> float:
    """A number above 0, up to `MOST`."""
    number = math.nan if isinstance(value, str) else _number(value)
    if not 0 < number <= MOST:
        raise BadSetting(f"{source} is {_shown(value)}; give a number above 0 and up to {MOST:,}.")
    return number


def price(value: Any, source: str) -> float:
    """What a million tokens cost."""
    number = math.nan if isinstance(value, str) else _number(value)
    if not 0 <= number <= _MOST_PRICE:
        raise BadSetting(f"{source} is {_shown(value)}; give a number from 0 to {_MOST_PRICE:,}.")
    return number


def seconds(value: Any, source: str) -> float:
    """A number of seconds, up to a day."""
    number = math.nan if isinstance(value, str) else _number(value)
    if not 0 < number <= DAY_S:
        raise BadSetting(f"{source} is {_shown(value)}; give a number of seconds above 0 and up to {DAY_S:.0f}.")
    return number


def days(value: Any, source: str) -> float | str:
    """A number of days above 0, up to `MOST`, or `forever`."""
    if value == FOREVER:
        return FOREVER
    if not 0 < (number := _number(value)) <= MOST:
        raise BadSetting(f'{source} is {_shown(value)}; give a number of days above 0 and up to {MOST:,}, or "{FOREVER}".')
    return number


def count(value: Any, source: str) -> int:
    """A whole number, 0 to `MOST`."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST:
        raise BadSetting(f"{source} is {_shown(value)}; give a whole number from 0 to {MOST:,}.")
    return value


def texts(value: Any, source: str) -> tuple[str, ...]:
    """A list of texts."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(text, str) and text for text in value):
        raise BadSetting(f"{source} is {_shown(value)}; give a list of texts.")
    return tuple(value)


def yes_or_no(value: Any, source: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise BadSetting(f"{source} is {_shown(value)}; give true or false.")
    return value


def policy(value: Any, source: str) -> str:
    """The name of a policy."""
    if value not in POLICIES:
        raise BadSetting(f"{source} is {_shown(value)}; give one of {', '.join(POLICIES)}.")
    return str(value)


def header_value(value: Any, source: str) -> str:
    """A text that an HTTP header can carry."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise BadSetting(f"{source} has a character that an HTTP header cannot carry; check how it was copied.")
    return value.strip()
