"""`/edge/draft`: a page sends what a person has typed so far, and the answer comes sooner when it is asked.

Owns the form of these messages, by WebSocket and by POST. `drafts.py` owns the drafts.
"""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, WebSocket
from fastapi.responses import JSONResponse, Response

from edge_agent.core.errors import BadQuestion, EdgeAgentError, ModelBusy
from edge_agent.core.question import Question
from edge_agent.server import described, faults
from edge_agent.server.door.body import MAX_BYTES, check_json
from edge_agent.server.faults import Refusal
from edge_agent.server.service import Service

router = APIRouter(tags=["edge"])
MOST_BAD = 8  # messages of one connection that cannot be read
_GOING_AWAY, _BUSY, _BAD = 1001, 1013, 1007  # codes that end a WebSocket


_DRAFT = {  # read by `_read`
    "type": "object",
    "required": ["text"],
    "properties": {
        "text": {"type": "string", "description": "What was typed so far; with `options`, the question alone."},
        "options": {"type": ["array", "null"], "items": {"type": "string"}, "description": "The options, which are read ahead, too."},
        "complete": {"type": "boolean", "default": False, "description": "Whether the text will not change any more."},
        "draft_id": {"type": ["string", "null"], "description": "The id in the first reply, to change that draft."},
    },
    "examples": [{"text": "What is 12 +"}],
}


@router.post(
    "/edge/draft",
    responses={404: {"description": "The draft was dropped, or not changed for too long."}},
    openapi_extra=described.json_body(_DRAFT),
)
async def draft(request: Request, data: Annotated[dict[str, Any], Body()]) -> JSONResponse:
    """Send what a person has typed so far, and from the second time on with the `draft_id` of the first reply."""
    service: Service = request.app.state.service
    text, complete = _read(data)
    draft_id = data.get("draft_id")
    if draft_id is not None and not isinstance(draft_id, str):
        raise Refusal(400, "invalid_request", "The draft_id must be the one of an earlier reply.", "draft_id")
    await _ready(service)
    if draft_id is None:
        draft_id = service.drafts.add()
    try:
        service.drafts.update(draft_id, text, complete)
    except BadQuestion as error:
        raise Refusal(404, "no_such_draft", str(error)) from error
    return JSONResponse({"draft_id": draft_id, "expires_in_s": service.drafts.idle_s})


@router.delete("/edge/draft/{draft_id}", status_code=204, responses={404: {"description": "There is no such draft."}})
async def drop(request: Request, draft_id: str) -> Response:
    """Drop a draft: its text is forgotten at once."""
    service: Service = request.app.state.service
    if not service.drafts.drop(draft_id):
        raise Refusal(404, "no_such_draft", "There is no such draft; it may have been dropped already.")
    return Response(status_code=204)


@router.websocket("/edge/draft")
async def drafting(socket: WebSocket) -> None:
    """The same over one connection: each message is `{"text": "...", "complete": false}`; the end of the connection drops the draft.

    A message that cannot be read gets an error as its reply and changes nothing; after `MOST_BAD` of them the connection ends.
    """
    service: Service = socket.app.state.service
    await socket.accept()
    try:
        await _ready(service)
        draft_id = service.drafts.add()
    except EdgeAgentError as error:
        await socket.close(_BUSY, str(error)[:100])
        return
    n_bad = 0
    try:
        while n_bad < MOST_BAD:
            message = await asyncio.wait_for(socket.receive(), service.drafts.idle_s)
            if message["type"] == "websocket.disconnect":
                return
            try:
                text, complete = _read(_object(message))
            except (Refusal, BadQuestion) as refusal:
                n_bad += 1
                code, param = (refusal.code, refusal.param) if isinstance(refusal, Refusal) else ("invalid_question", "options")
                await socket.send_json(faults.body(socket.scope["path"], 400, code, str(refusal), param))
                continue
            service.drafts.update(draft_id, text, complete)
        await socket.close(_BAD, f"{MOST_BAD} messages could not be read")
    except (TimeoutError, BadQuestion):  # the draft is forgotten
        await socket.close(_GOING_AWAY, f"nothing came for {service.drafts.idle_s:g} s")
    finally:
        service.drafts.drop(draft_id)


async def _ready(service: Service) -> None:
    """Raises `ModelBusy` while the model is being opened, `AgentClosed` when the server stops."""
    service.check_taking()
    if not service.is_ready:
        raise ModelBusy("The model is still being opened; try again in a moment.")
    await service.aside(service.drafts.open)


def _object(message: Any) -> dict[str, Any]:
    """The object in a message of a WebSocket. Raises `Refusal`."""
    data = message.get("bytes") or (message.get("text") or "").encode("utf-8", "surrogatepass")
    if len(data) > MAX_BYTES:
        raise Refusal(413, "body_too_large", f"A message has more than {MAX_BYTES} bytes; send less.")
    check_json(data)
    found = json.loads(data)
    if not isinstance(found, dict):
        raise Refusal(400, "invalid_request", "A message must be an object.")
    return found


def _read(data: dict[str, Any]) -> tuple[str, bool]:
    """The text as the model will read it, and whether it is complete. Raises `Refusal`, and `BadQuestion` for wrong options."""
    text, complete, options = data.get("text"), data.get("complete", False), data.get("options")
    if not isinstance(text, str) or not isinstance(complete, bool):
        raise Refusal(400, "invalid_request", "A draft is a text, and whether it is complete: true or false.", "text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Refusal(400, "not_utf8", "The text of a draft has half a character; send whole ones.", "text") from error
    if options is None:
        return text, complete
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise Refusal(400, "invalid_request", "The options of a draft are a list of texts.", "options")
    return Question.of(text, options).user_message, complete
