"""`/edge/events`: how provisional answers end, as Server-Sent Events that a client can resume.

Owns the form of the stream. Invariants: an event's id is the number of an ending, so a client that sends the last id it saw gets each
later ending once and in order, also from a server that was started again; a client that reads too slowly is disconnected.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edge_agent.core.errors import EdgeAgentError
from edge_agent.core.records import Ending
from edge_agent.server import sse
from edge_agent.server.edge.asking import as_object, disconnected, is_id
from edge_agent.server.edge.following import Listener, State
from edge_agent.server.faults import Refusal
from edge_agent.server.service import Service
from edge_agent.store import overview

router = APIRouter(tags=["edge"])
MOST_IDS = 32
HEARTBEAT_S, SEND_TIMEOUT_S, STOP_S = 15.0, 20.0, 1.0
RETRY_MS = 2000
_PAGE = 100
_NUMBER = re.compile(r"[0-9]{1,18}")


@router.get(
    "/edge/events",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}}}, 503: {"description": "Too many streams are open, or the server stops."}},
)
async def events(
    request: Request,
    ids: Annotated[str, Query(description=f"The decisions to hear of, at most {MOST_IDS}, with commas between them.")] = "",
    after: Annotated[str, Query(description="The id of the last event that was seen, for clients that cannot send Last-Event-ID.")] = "",
) -> Response:
    """A stream of events: `state` (the connection to the cloud), `ending` (a provisional answer ended), `gone` (a decision in `ids` was
    deleted) and, for the operator, `decision`.

    Without the operator's token, only the endings of the decisions in `ids` are sent. A client that reconnects sends the last id
    that it saw as `Last-Event-ID`, and misses nothing.
    """
    service: Service = request.app.state.service
    is_operator = request.app.state.access.is_operator(request.headers.get("authorization"))
    named = list(dict.fromkeys(part.strip() for part in ids.split(",") if part.strip()))
    if len(named) > MOST_IDS or not all(is_id(one) for one in named):
        raise Refusal(400, "invalid_ids", f"The ids must be at most {MOST_IDS} ids of decisions, with commas between them.", "ids")
    seen = request.headers.get("last-event-id") or after
    if seen and not _NUMBER.fullmatch(seen):
        raise Refusal(400, "invalid_event_id", "The last event's id must be a number that this server sent.", "Last-Event-ID")
    listener = service.following.listen(None if is_operator and not named else named, True, is_operator)
    return _Stream(request, service, listener, int(seen) if seen else None)


class _Stream(Response):
    """One stream, from the moment that its head is sent, to its end, when its listener leaves."""

    media_type = "text/event-stream"

    def __init__(self, request: Request, service: Service, listener: Listener, seen: int | None) -> None:
        self._request, self._service, self._listener, self._ids, self._seen = request, service, listener, listener.ids, seen
        super().__init__(headers={"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client goes away, reads too slowly, or the server stops."""
        writing = asyncio.ensure_future(self._write(send))
        gone = asyncio.ensure_future(disconnected(self._request))
        closing = asyncio.ensure_future(self._service.following.closing.wait())
        tasks = (writing, gone, closing)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if closing.done():
                await asyncio.wait((writing, gone), timeout=STOP_S, return_when=asyncio.FIRST_COMPLETED)
            if not gone.done() and (not writing.done() or isinstance(writing.exception(), TimeoutError)):
                self._service.hang_up(scope["client"])
            elif writing.done():
                writing.result()
        finally:
            self._service.following.leave(self._listener)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, send: Send) -> None:
        """The whole response. Raises TimeoutError if the client does not take a part in time."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        with contextlib.suppress(EdgeAgentError):  # the store cannot be read: the client connects again
            async for text in self._texts():
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _texts(self) -> AsyncIterator[str]:
        """The events as text."""
        service, listener = self._service, self._listener
        last, newest = await service.aside(self._where)
        state: State | None = None
        told: set[str] = set()  # that are gone
        yield f"retry: {RETRY_MS}\n\n"
        while not service.is_stopping:  # and no await between this and `next`, or the end of the server would not wake it
            if listener.behind:
                listener.behind = False  # before the store is read: what is stored meanwhile comes through the listener
                async for ending in self._stored(last):
                    last = ending.number or last
                    yield sse.event(as_object(ending), "ending", last)
                for decision_id in await self._gone(told):
                    yield sse.event({"decision_id": decision_id}, "gone")
                if state is None:
                    state = await service.aside(service.following.state)
                    last = max(last, newest)
                    yield sse.event(_said(state), "state", last)
                continue
            item = await listener.next(HEARTBEAT_S)
            if isinstance(item, State):
                if item != state:
                    state = item
                    yield sse.event(_said(item), "state")
            elif isinstance(item, Ending):
                if item.number is not None and item.number > last:
                    last = item.number
                    yield sse.event(as_object(item), "ending", last)
            elif item is not None:
                yield sse.event(item, "decision")
            elif not listener.behind and not service.is_stopping:
                yield ": still here\n\n"

    def _where(self) -> tuple[int, int]:
        """The number to begin after, and the newest now.

        A client that has seen nothing gets the endings of the decisions that it names, and otherwise new ones only. A number that
        this file has not reached comes from another file: then all endings come.
        """
        newest = self._service.agent.store.last_end()
        if self._seen is None:
            return (newest if self._ids is None else 0), newest
        return (self._seen if self._seen <= newest else 0), newest

    async def _stored(self, after: int) -> AsyncIterator[Ending]:
        """The endings in the store, in order, that this client may see."""
        store = self._service.agent.store
        while found := await self._service.aside(partial(store.endings, after, _PAGE, self._ids)):
            for ending in found:
                yield ending
            after = found[-1].number or after

    async def _gone(self, told: set[str]) -> list[str]:
        """The named decisions that are not stored and are not in `told`; adds them to it."""
        found = await self._service.aside(partial(overview.forgotten, self._service.agent.store, self._ids or ()))
        new = [decision_id for decision_id in found if decision_id not in told]
        told.update(new)
        return new


def _said(state: State) -> dict[str, Any]:
    return {"connection": state.connection, "waiting": state.waiting, "text": state.text}
