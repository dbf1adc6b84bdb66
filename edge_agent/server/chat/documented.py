"""What the OpenAPI document says about the answers of these routes; `described.py` adds the errors.

Owns descriptions only.
"""

from __future__ import annotations

from typing import Any

_STREAM: dict[str, Any] = {"text/event-stream": {}, "application/json": {"schema": {"type": "object"}}}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The answer, whole or (with `stream`) as events.", "content": _STREAM},
}
