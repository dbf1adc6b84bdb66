"""`/edge/ask` and `/edge/decisions/{id}`: a question and its decision in full, and how a provisional one ended."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import JSONResponse

from edge_agent.core.asked import as_dict, from_json
from edge_agent.core.errors import BadQuestion
from edge_agent.core.times import iso
from edge_agent.server import decided
from edge_agent.server.faults import Refusal
from edge_agent.server.service import Service

router = APIRouter(tags=["edge"])
MOST_WAIT_S = 60.0


@router.post("/edge/ask")
async def ask(request: Request, data: Annotated[dict[str, Any], Body()]) -> JSONResponse:
    """Ask a question: `{"question": "...", "options": ["...", "..."]}`, perhaps with `tau`, `policy`, `never_send`, `refresh` and `id`."""
    service: Service = request.app.state.service
    one = from_json(data, service.agent.profile.question_kind)
    decision = await service.ask(one.question, tau=one.tau, policy=one.policy, refresh=one.refresh)
    return JSONResponse(as_dict(one, decision), headers=decided.headers(decision))


@router.get("/edge/decisions/{decision_id}")
async def decision(request: Request, decision_id: str, wait: Annotated[float, Query(ge=0, le=MOST_WAIT_S)] = 0.0) -> JSONResponse:
    """The state of a decision. With `wait`, the reply comes when a provisional one ends, or after that many seconds."""
    service: Service = request.app.state.service
    try:
        ending = await service.run(lambda: service.agent.wait(decision_id, wait))
    except BadQuestion as error:
        raise Refusal(404, "no_such_decision", "There is no such decision; it may have been deleted.") from error
    return JSONResponse(
        {
            "decision_id": ending.decision_id,
            "provisional": ending.provisional,
            "waits": ending.waits,
            "ending": ending.ending,
            "answer": ending.answer,
            "final_answer": ending.final_answer,
            "created_at": iso(ending.created_at),
            "ended_at": iso(ending.ended_at) if ending.ended_at is not None else None,
            "number": ending.number,
        }
    )
