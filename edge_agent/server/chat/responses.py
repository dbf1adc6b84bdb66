"""`/v1/responses`: one decision as a response, whole or streamed.

Owns the shapes of OpenAI's responses, as far as the SDKs read them. No conversation is kept: a decision is one question. Invariant: the
decision is made and stored before the first byte goes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from edge_agent.server import sse
from edge_agent.server.chat import structure
from edge_agent.server.chat.asking import AnswerForm, ChatAnswer, answer
from edge_agent.server.chat.requests import InputItem, ResponsesRequest
from edge_agent.server.chat.streaming import ANSWERS, streamed
from edge_agent.server.faults import Refusal

router = APIRouter(tags=["chat"])
_LOGPROBS = "message.output_text.logprobs"


@router.post("/v1/responses", responses=ANSWERS)
@router.post("/responses", include_in_schema=False)
async def respond(request: Request, asked: ResponsesRequest) -> Response:
    """Decide the question in the input. `edge_agent` in the reply says how it was decided."""
    if asked.background:
        raise Refusal(400, "unsupported_parameter", "Nothing runs in the background here; leave background out.", "background")
    items = [InputItem(role="user", content=asked.input)] if isinstance(asked.input, str) else asked.input
    top = (asked.top_logprobs or 0) if _LOGPROBS in (asked.include or []) else None
    form = AnswerForm(structure.of(asked.text.format if asked.text else None, "text.format"), top)
    instructions = asked.instructions if isinstance(asked.instructions, str) else ""
    found = await answer(request.app.state.service, asked, items, "input", form, asked.max_output_tokens, instructions)
    if not asked.stream:
        return JSONResponse(_response(asked, found), headers=found.headers)
    return streamed(_events(asked, found), found)


def _response(asked: ResponsesRequest, found: ChatAnswer, status: str | None = None) -> dict[str, Any]:
    """The object; with a `status`, as it is before the answer."""
    is_begin = status is not None
    return {
        "id": f"resp_{found.id}",
        "object": "response",
        "created_at": found.created,
        "status": status or _status(found),
        "background": False,
        "completed_at": None if is_begin else found.created,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if found.is_cut and not is_begin else None,
        "instructions": asked.instructions if isinstance(asked.instructions, str) else None,
        "max_output_tokens": asked.max_output_tokens,
        "model": asked.model,
        "output": [] if is_begin else [_message(found)],
        "parallel_tool_calls": bool(asked.parallel_tool_calls),
        "previous_response_id": None,
        "store": False,
        "temperature": asked.temperature,
        "text": {"format": (asked.text and asked.text.format) or {"type": "text"}},
        "tool_choice": asked.tool_choice or "auto",
        "tools": asked.tools or [],
        "top_p": asked.top_p,
        "truncation": "disabled",
        "usage": None if is_begin else found.usage.as_object(),
        "metadata": asked.metadata or {},
        **({} if is_begin else {"edge_agent": found.edge_agent}),
    }


def _events(asked: ResponsesRequest, found: ChatAnswer) -> Iterator[str]:
    """The events of one message with one part, as the SDKs put them together again."""
    number = iter(range(1000))
    place: dict[str, Any] = {"item_id": f"msg_{found.id}", "output_index": 0, "content_index": 0}

    def event(kind: str, **fields: Any) -> str:
        return sse.event({"type": kind, "sequence_number": next(number), **fields}, kind)

    begun = _response(asked, found, "in_progress")
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    empty = {**_message(found), "status": "in_progress", "content": []}
    yield event("response.output_item.added", output_index=0, item=empty)
    yield event("response.content_part.added", **place, part={**_part(found), "text": "", "logprobs": []})
    for i, piece in enumerate(found.pieces):
        yield event("response.output_text.delta", **place, delta=piece, logprobs=[found.logprobs[i]] if found.logprobs else [])
    yield event("response.output_text.done", **place, text=found.text, logprobs=list(found.logprobs or ()))
    yield event("response.content_part.done", **place, part=_part(found))
    yield event("response.output_item.done", output_index=0, item=_message(found))
    yield event(f"response.{_status(found)}", response=_response(asked, found))


def _message(found: ChatAnswer) -> dict[str, Any]:
    return {"id": f"msg_{found.id}", "type": "message", "role": "assistant", "status": _status(found), "content": [_part(found)]}


def _part(found: ChatAnswer) -> dict[str, Any]:
    return {"type": "output_text", "text": found.text, "annotations": [], "logprobs": list(found.logprobs or ())}


def _status(found: ChatAnswer) -> str:
    return "incomplete" if found.is_cut else "completed"
