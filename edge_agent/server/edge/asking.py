"""`/edge/ask` and `/edge/decisions/{id}`: a question and its decision in full, and how a provisional one ended."""

from __future__ import annotations

import asyncio
import re
import time
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import JSONResponse

from edge_agent.core.asked import Asked, as_dict, from_json
from edge_agent.core.errors import BadQuestion
from edge_agent.core.records import Ending
from edge_agent.core.routing import PolicyName
from edge_agent.core.times import iso
from edge_agent.server import decided, described
from edge_agent.server.faults import Refusal
from edge_agent.server.model_names import Chosen, chosen
from edge_agent.server.service import Service

router = APIRouter(tags=["edge"])
MOST_WAIT_S = 60.0
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_QUESTION = {  # read by `from_json`
    "type": "object",
    "required": ["question"],
    "properties": {
        "question": {"type": "string", "description": "The question; with its options as lines, if there are no `options`."},
        "options": {
            "anyOf": [
                {"type": "array", "items": {"type": "string"}},
                {"type": "object", "additionalProperties": {"type": "string"}},
                {"type": "null"},
            ],
            "description": "2 to 26 texts, as a list or with the keys A, B, C, ...",
        },
        "model": {"type": ["string", "null"], "description": "Who may answer: edge-auto, edge-auto-0.75, edge-local or edge-cloud."},
        "tau": {
            "type": ["number", "null"],
            "minimum": 0,
            "maximum": 1,
            "description": "The threshold of the printed confidence; no calibration counts.",
        },
        "policy": {"enum": [*(name.value for name in PolicyName), None], "description": "Who may answer this question."},
        "never_send": {"type": "boolean", "description": "Whether the question must not leave this device."},
        "refresh": {"type": "boolean", "description": "Whether what is remembered does not count."},
        "id": {"type": ["string", "number", "null"], "description": "Your own name for the question; it comes back."},
    },
    "examples": [{"question": "What is 12 + 7?", "options": ["18", "19", "24"]}],
}
_BUSY: dict[int | str, dict[str, Any]] = {503: {"description": "Too many requests wait, or the server stops; Retry-After says when."}}


@router.post("/edge/ask", responses=_BUSY, openapi_extra=described.json_body(_QUESTION))
async def ask(request: Request, data: Annotated[dict[str, Any], Body()]) -> JSONResponse:
    """Ask a question; the reply is what `edge-agent ask --json` prints."""
    service: Service = request.app.state.service
    one = from_json(data, service.agent.profile.question_kind)
    picked = _picked(data.get("model"), one)
    decision = await service.ask(one.question, tau=picked.tau, policy=picked.policy, refresh=one.refresh)
    return JSONResponse(as_dict(one, decision), headers=decided.headers(decision))


def _picked(model: Any, one: Asked) -> Chosen:
    """Who may answer: by the model's name if there is one, otherwise by `policy` and `tau`. Raises `Refusal`."""
    if model is None:
        return Chosen(one.policy, one.tau)
    if not isinstance(model, str):
        raise Refusal(400, "invalid_request", "The model must be a text, such as edge-auto.", "model")
    found = chosen(model)
    if found.policy is not None and (one.policy is not None or one.tau is not None):
        raise Refusal(400, "invalid_request", f"The model {model} already says who may answer; leave out policy and tau.", "model")
    return found if found.policy is not None else Chosen(one.policy, one.tau)


@router.get("/edge/decisions/{decision_id}", responses={404: {"description": "There is no such decision."}, **_BUSY})
async def decision(request: Request, decision_id: str, wait: Annotated[float, Query(ge=0, le=MOST_WAIT_S)] = 0.0) -> JSONResponse:
    """The state of a decision. With `wait`, the reply comes when a provisional one ends or is deleted (404), or after that many seconds."""
    service: Service = request.app.state.service
    if not is_id(decision_id):
        raise _unknown()
    try:
        ending = await service.aside(lambda: service.agent.ending(decision_id))
        if ending.waits and wait:
            ending = await _ended(request, service, ending, wait)
    except BadQuestion as error:
        raise _unknown() from error
    return JSONResponse({**as_object(ending), "created_at": iso(ending.created_at)})


async def _ended(request: Request, service: Service, ending: Ending, wait_s: float) -> Ending:
    """The state of a decision that waits: once it ends, the time is up, the server stops or the client goes away. Holds no thread.

    Raises `BadQuestion` if the decision is deleted meanwhile.
    """
    ends = time.monotonic() + wait_s
    is_operator = request.app.state.access.is_operator(request.headers.get("authorization"))
    listener = service.following.listen((ending.decision_id,), False, is_operator)
    gone = asyncio.ensure_future(disconnected(request))
    gone.add_done_callback(lambda _: listener.wake())
    try:
        while not gone.done() and not service.is_stopping:  # and no await between this and `next`
            if listener.behind:
                listener.behind = False  # before the store is read: what is stored meanwhile comes through the listener
                ending = await service.aside(partial(service.agent.ending, ending.decision_id))
                continue
            left_s = ends - time.monotonic()
            if not ending.waits or left_s <= 0:
                break
            item = await listener.next(left_s)
            ending = item if isinstance(item, Ending) else ending
        return ending
    finally:
        service.following.leave(listener)
        gone.cancel()


async def disconnected(request: Request) -> None:
    """Returns when the client goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def is_id(text: str) -> bool:
    """Whether this can be the id of a decision."""
    return _ID.fullmatch(text) is not None


def as_object(ending: Ending) -> dict[str, Any]:
    """The state of a decision as clients see it."""
    return {
        "decision_id": ending.decision_id,
        "provisional": ending.provisional,
        "waits": ending.waits,
        "ending": ending.ending,
        "answer": ending.answer,
        "final_answer": ending.final_answer,
        "ended_at": iso(ending.ended_at),
        "number": ending.number,
    }


def _unknown() -> Refusal:
    return Refusal(404, "no_such_decision", "There is no such decision; it may have been deleted.")
