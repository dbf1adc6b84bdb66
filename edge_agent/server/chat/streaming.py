"""Replies to chat clients as a stream of events, and what the OpenAPI document says of them; `described.py` adds the errors.

Owns how events are sent, not what is in them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from fastapi.responses import StreamingResponse

from edge_agent.server.chat.asking import ChatAnswer

_KINDS = {"text/event-stream": {}, "application/json": {"schema": {"type": "object"}}}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The answer, whole or (with `stream`) as events.", "content": _KINDS},
}


def streamed(events: Iterable[str], found: ChatAnswer) -> StreamingResponse:
    """The events as a reply. They are all known, so no thread is needed to make them."""

    async def sent() -> AsyncIterator[str]:
        for event in events:
            yield event

    return StreamingResponse(sent(), headers=found.headers, media_type="text/event-stream")
