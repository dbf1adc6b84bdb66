"""`/edge/decisions` and `/edge/queue`: what was decided and what waits, for the operator.

Owns these pages and what the operator may do to a row of the queue. Invariant: a GET changes nothing.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from edge_agent.cloud.queue_row import shown
from edge_agent.core.errors import BadQuestion
from edge_agent.server.edge.asking import is_id
from edge_agent.server.faults import Refusal
from edge_agent.server.service import Service
from edge_agent.store import overview
from edge_agent.store.export import as_logged, parsed, plain

router = APIRouter(tags=["operator"])
MOST_ROWS = 500
_OPEN = ("ready", "sending", "dead", "expired")
_MOST_NUMBER = 10**15
_NUMBER = re.compile(r"[0-9]{1,15}")  # of a row: few enough digits for SQLite, with zeros before it, too
_OPERATOR: dict[int | str, dict[str, Any]] = {401: {"description": "The operator's token is missing or wrong."}}
Kind = Literal["kept", "deferred", "cloud", "waiting", "upheld", "overturned", "abandoned"]
State = Literal["ready", "sending", "done", "dead", "expired", "cancelled"]


@router.get("/edge/decisions", responses=_OPERATOR)
async def decisions(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 20,
    before: Annotated[str | None, Query(max_length=64)] = None,
    kind: Annotated[Kind | None, Query(description="Only decisions of this kind.")] = None,
    text: Annotated[str, Query(max_length=200, description="Only decisions with this text in the question or in an option.")] = "",
) -> JSONResponse:
    """The newest decisions, newest first, like `edge-agent log --json`. `next` is the `before` of the next page; null on the last one.

    With `kind` or `text`, at most 20,000 decisions are searched for a page, so one that is not full may still have a `next`.
    """
    service: Service = request.app.state.service
    if before is not None and not is_id(before):
        raise Refusal(400, "invalid_cursor", "The before must be the next of an earlier page.", "before")
    try:
        found = await service.aside(lambda: overview.decisions_before(service.agent.store, before, limit, kind, text))
    except BadQuestion as error:
        raise Refusal(404, "no_such_decision", str(error), "before") from error
    page = [as_logged({**row, "options": parsed(row["options"])}) for row in plain(found.rows)]
    return JSONResponse({"decisions": plain(page), "next": found.next})


@router.get("/edge/queue", responses=_OPERATOR)
async def queue(
    request: Request,
    state: Annotated[list[State] | None, Query(max_length=6)] = None,
    after: Annotated[int, Query(ge=0, le=_MOST_NUMBER)] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 100,
) -> JSONResponse:
    """The queue: how many rows are in each state, how long the oldest has waited, and a page of rows, like `edge-agent queue list --json`.

    Without `state`, rows that are done or cancelled are left out. `next` is the `after` of the next page; null on the last one.
    """
    service: Service = request.app.state.service

    def read() -> dict[str, Any]:
        store, outbox = service.agent.store, service.agent.outbox
        now = overview.queue(store)
        rows = outbox.list(*(state or _OPEN), after=after, limit=limit + 1)
        now_s = store.clock.now_s()
        return {
            "waiting": now.waiting,
            "oldest_s": now.oldest_s,
            "states": overview.queue_states(store),
            "rows": [shown(row, store, now_s) for row in rows[:limit]],
            "next": rows[limit - 1].queue_id if len(rows) > limit else None,
        }

    return JSONResponse(await service.aside(read))


_CHANGED: dict[int | str, dict[str, Any]] = {
    **_OPERATOR,
    404: {"description": "There is no such row."},
    409: {"description": "The row was answered, is being sent, or its question waits as another row."},
}


@router.post("/edge/queue/{queue_id}/retry", responses=_CHANGED)
async def retry(request: Request, queue_id: str) -> JSONResponse:
    """Make a row ready to be sent again, with all its attempts and a new time to live. Returns the row."""
    service: Service = request.app.state.service
    return await _change(service, queue_id, "retry")


@router.post("/edge/queue/{queue_id}/drop", responses=_CHANGED)
async def drop(request: Request, queue_id: str) -> JSONResponse:
    """Drop a row: it is never sent, and the device's own answer stays. Returns the row."""
    service: Service = request.app.state.service
    return await _change(service, queue_id, "drop")


async def _change(service: Service, named: str, verb: str) -> JSONResponse:
    if not _NUMBER.fullmatch(named):
        raise Refusal(404, "no_such_row", "There is no such row in the queue.")
    outbox, store, queue_id = service.agent.outbox, service.agent.store, int(named)

    def change() -> dict[str, Any]:
        try:
            outbox.row(queue_id)
        except BadQuestion as error:
            raise Refusal(404, "no_such_row", str(error)) from error
        try:
            row = outbox.retry(queue_id) if verb == "retry" else outbox.drop(queue_id)
        except BadQuestion as error:
            raise Refusal(409, "row_not_open", str(error)) from error
        return shown(row, store, store.clock.now_s())

    return JSONResponse(await service.aside(change))
