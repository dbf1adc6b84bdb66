"""What the OpenAPI document says about the replies of these routes.

Owns descriptions only.
"""

from __future__ import annotations

from typing import Any

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": "string"},
                "param": {"type": ["string", "null"]},
            },
        }
    },
}
_STATUSES = {
    400: "The request is wrong, or the text is no question for this model.",
    401: "A token is missing or wrong.",
    403: "The Host or the Origin is not allowed.",
    404: "There is no such model.",
    405: "The method is not allowed.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    414: "The query is too long.",
    415: "The body is not JSON.",
    431: "The headers are too large.",
    500: "A bug.",
    502: "Only the cloud may answer, and it does not.",
    503: "Too many requests wait, or the server starts or stops; ask again after Retry-After.",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": words, "content": {"application/json": {"schema": _ERROR}}} for status, words in _STATUSES.items()
}
_STREAM = {"text/event-stream": {"schema": {"type": "string"}}, "application/json": {"schema": {"type": "object"}}}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The answer, whole or (with `stream`) as events.", "content": _STREAM},
    **ERRORS,
}
