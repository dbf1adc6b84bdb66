"""The checks of a setting's value: each returns the value in its right type, or raises `BadSetting` that names where it came from.

Owns what is allowed. Knows neither the settings nor their use. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from edge_agent.core.config.limits import DAY_S
from edge_agent.core.errors import BadSetting

POLICIES = ("prefer_local", "only_local", "prefer_cloud", "only_cloud")
PROFILES = ("plain", "foggen")
WAYS_OF_ANSWERING = ("letter", "option", "option-prior")
CLOUD_APIS = ("auto", "chat", "decisions", "systemone")
LANGUAGES = ("en", "kk", "ru")
FOREVER, NONE, AUTO = "forever", "none", "auto"
MOST = 10**12  # of anything: in bytes, seconds or millionths it still fits a 64-bit integer, which is what SQLite adds with
_MOST_PRICE = 10**9  # per million tokens: a year of calls at this price fits, too
_MOST_TOKENS = 1_000_000
_FRAMING = frozenset(
    {
        "accept-encoding", "connection", "content-length", "content-type", "expect", "host", "keep-alive", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "x-client-request-id",
    }
)  # headers that edge-agent or HTTP itself must set  # fmt: skip
_OWN_FIELDS = {
    **dict.fromkeys(("model", "messages", "stream", "n"), "edge-agent sets it"),
    **dict.fromkeys(("max_tokens", "max_completion_tokens"), "use cloud_max_tokens, which a budget counts"),
    "temperature": "use cloud_temperature",
}


def text(value: Any, source: str) -> str:
    """A text that UTF-8 can hold."""
    if not isinstance(value, str) or not value.strip() or any("\ud800" <= c <= "\udfff" for c in value):
        raise BadSetting(f"{source} is {_shown(value)}; give a text in UTF-8.")
    return value


def secret_text(value: Any, source: str) -> str:
    """Like `text`, for a value that no message may show."""
    if not isinstance(value, str) or not value.strip() or any("\ud800" <= c <= "\udfff" for c in value):
        raise BadSetting(f"{source} is not a text in UTF-8; give one in quotation marks.")
    return value


def address(value: Any, source: str) -> str:
    """An http or https address with a host. Whoever connects there checks the rest; a password is not shown."""
    found, wanted = text(value, source), "write it like https://api.example.com/v1"
    try:
        parts = urlsplit(found.strip())
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        is_usable = is_usable and found.strip().isprintable() and " " not in parts.netloc
    except ValueError:
        is_usable = False
    if not is_usable:
        shown = found.rpartition("@")[2].partition("?")[0]
        raise BadSetting(f"{source} is {_shown(shown)}, which is not an http or https address; {wanted}.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise BadSetting(f"{source} is an address at {parts.hostname} with a password, a query or a fragment; {wanted}.")
    return found


def path(value: Any, source: str) -> str:
    """A path, or a name."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise BadSetting(f"{source} is {_shown(value)}; give a path or a name.")
    return value


def calibration(value: Any, source: str) -> str:
    """`auto`, `none`, or the start of a sha256."""
    found = value.strip().lower() if isinstance(value, str) else ""
    if found not in (AUTO, NONE) and not re.fullmatch("[0-9a-f]{6,64}", found):
        raise BadSetting(f"{source} is {_shown(value)}; give auto, none, or at least 6 characters of a calibration's sha256.")
    return found


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


def port(value: Any, source: str) -> int:
    """A port of TCP; 0 means a free one."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 65_535:
        raise BadSetting(f"{source} is {_shown(value)}; give a port from 0 to 65535.")
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


def profile(value: Any, source: str) -> str:
    """The name of a profile."""
    if value not in PROFILES:
        raise BadSetting(f"{source} is {_shown(value)}; give one of {', '.join(PROFILES)}.")
    return str(value)


def answers(value: Any, source: str) -> str:
    """A way in which a plain model answers."""
    if value not in WAYS_OF_ANSWERING:
        raise BadSetting(f"{source} is {_shown(value)}; give one of {', '.join(WAYS_OF_ANSWERING)}.")
    return str(value)


def cloud_api(value: Any, source: str) -> str:
    """The name of an API of a cloud, or `auto`."""
    if value not in CLOUD_APIS:
        raise BadSetting(f"{source} is {_shown(value)}; give one of {', '.join(CLOUD_APIS)}.")
    return str(value)


def language(value: Any, source: str) -> str:
    """A language that the pages speak."""
    if value not in LANGUAGES:
        raise BadSetting(f"{source} is {_shown(value)}; give one of {', '.join(LANGUAGES)}.")
    return str(value)


def header_value(value: Any, source: str) -> str:
    """A text that an HTTP header can carry."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise BadSetting(f"{source} has a character that an HTTP header cannot carry; check how it was copied.")
    return value.strip()


def tokens(value: Any, source: str) -> int:
    """A number of tokens, 1 to a million."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST_TOKENS:
        raise BadSetting(f"{source} is {_shown(value)}; give a whole number from 1 to {_MOST_TOKENS}.")
    return value


def temperature(value: Any, source: str) -> float | str:
    """A number from 0 to 2, or `none`."""
    if value == NONE:
        return NONE
    if not 0 <= (number := _number(value)) <= 2:
        raise BadSetting(f'{source} is {_shown(value)}; give a number from 0 to 2, or "{NONE}".')
    return number


def body_fields(value: Any, source: str) -> dict[str, Any]:
    """Fields for the body of a request: a table that JSON can hold, without the fields that are not for it to set."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) and name for name in value):
        raise BadSetting(f"{source} is not a table of fields; write it like {{ top_p = 0.9 }}.")
    for name in value:
        if why := _OWN_FIELDS.get(name.strip().lower()):
            raise BadSetting(f"{source} has the field '{name}', which cannot be set there ({why}); remove it.")
    import json  # seldom needed, and `--help` imports this file

    try:
        json.dumps(dict(value), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:  # a date, nan, half a surrogate pair
        raise BadSetting(f"{source} has a value that JSON cannot hold; use texts, numbers, true, false, lists and tables.") from error
    return dict(value)


def headers(value: Any, source: str) -> dict[str, str]:
    """Headers for a request: a table of names and texts; messages never show a value, because it may be a key."""
    if not isinstance(value, Mapping):
        raise BadSetting(f'{source} is not a table of headers; write it like {{ X-Team = "kiosk" }}.')
    seen: set[str] = set()
    for name, text in value.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,200}", name):
            start = re.match(r"[A-Za-z0-9_-]{0,60}", str(name))  # after it may stand a value, which may be a key
            raise BadSetting(f"{source} has a name that no HTTP header can have; it starts with '{start[0] if start else ''}'; correct it.")
        if name.lower() in _FRAMING:
            raise BadSetting(f"{source} has '{name}', which only edge-agent may set; remove it.")
        if name.lower() in seen:
            raise BadSetting(f"{source} has '{name}' twice; keep one.")
        if not isinstance(text, str) or not text.strip():
            raise BadSetting(f"{source} has no text for '{name}'; give one in quotation marks.")
        header_value(text, f"'{name}' in {source}")
        seen.add(name.lower())
    return {name: text.strip() for name, text in value.items()}
