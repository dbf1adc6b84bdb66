"""Server-sent events: how one is written.

Owns the form, for chat clients and for our own stream. Pure. Invariant: an event is ASCII, because some clients also end a line at
U+2028 and other characters that JSON does not escape.
"""

from __future__ import annotations

import json
from typing import Any


def event(data: dict[str, Any], name: str | None = None, event_id: int | None = None) -> str:
    """One event. JSON has no line break in it, so the data is one line."""
    fields = {"event": name, "id": event_id, "data": json.dumps(data)}
    return "".join(f"{key}: {value}\n" for key, value in fields.items() if value is not None) + "\n"
