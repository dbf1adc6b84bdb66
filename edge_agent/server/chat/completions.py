"""`/v1/chat/completions`: one decision as a chat completion, whole or streamed.

Owns the shapes of OpenAI's chat completions. Invariant: the decision is made and stored before the first byte goes out, so an error is
always a status and never a broken stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from edge_agent.server import sse
from edge_agent.server.chat import structure
from edge_agent.server.chat.asking import AnswerForm, ChatAnswer, answer
from edge_agent.server.chat.requests import ChatRequest
from edge_agent.server.chat.streaming import ANSWERS, streamed
from edge_agent.server.decided import Usage
from edge_agent.server.faults import Refusal

router = APIRouter(tags=["chat"])


@router.post("/v1/chat/completions", responses=ANSWERS)
@router.post("/chat/completions", include_in_schema=False)
async def complete(request: Request, asked: ChatRequest) -> Response:
    """Decide the question in the last message of the user. `edge_agent` in the reply says how it was decided."""
    _refuse_what_is_not_done(asked)
    top = (asked.top_logprobs or 0) if asked.logprobs else None
    form = AnswerForm(structure.of(asked.response_format, "response_format"), top)
    limits = [limit for limit in (asked.max_tokens, asked.max_completion_tokens) if limit is not None]
    found = await answer(request.app.state.service, asked, asked.messages, "messages", form, min(limits, default=None))
    if not asked.stream:
        return JSONResponse(_whole(asked.model, found), headers=found.headers)
    with_usage = bool(asked.stream_options and asked.stream_options.include_usage)
    return streamed(_events(asked.model, found, with_usage), found)


def _refuse_what_is_not_done(asked: ChatRequest) -> None:
    if (asked.n or 1) > 1:
        raise Refusal(400, "unsupported_parameter", f"n is {asked.n}, and a decision has one answer; leave n out, or send 1.", "n")
    if asked.top_logprobs is not None and not asked.logprobs:
        raise Refusal(400, "invalid_request", "top_logprobs needs logprobs: true; send both, or neither.", "top_logprobs")
    if asked.function_call not in (None, "auto", "none"):
        raise Refusal(400, "unsupported_parameter", "No function is ever called here; leave function_call out.", "function_call")
    if any(one != "text" for one in asked.modalities or []):
        raise Refusal(400, "unsupported_parameter", "This server answers in text alone; send modalities ['text'].", "modalities")


def _whole(model: str, found: ChatAnswer) -> dict[str, Any]:
    message = {"role": "assistant", "content": found.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": _logprobs(found.logprobs), "finish_reason": _finish(found)}
    return {**_head(model, found, "chat.completion"), "choices": [choice], "usage": _usage(found.usage), "edge_agent": found.edge_agent}


def _events(model: str, found: ChatAnswer, with_usage: bool) -> Iterator[str]:
    """The chunks: the role, the pieces of the text, the end with `edge_agent`, and the usage if it was asked for."""
    head = {**_head(model, found, "chat.completion.chunk"), **({"usage": None} if with_usage else {})}

    def chunk(delta: dict[str, Any], finish: str | None = None, logprob: dict[str, Any] | None = None, **extra: Any) -> str:
        logprobs = _logprobs((logprob,) if logprob else None)
        return sse.event({**head, "choices": [{"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}], **extra})

    yield chunk({"role": "assistant", "content": "", "refusal": None})
    for i, piece in enumerate(found.pieces):
        yield chunk({"content": piece}, logprob=found.logprobs[i] if found.logprobs else None)
    yield chunk({}, _finish(found), edge_agent=found.edge_agent)
    if with_usage:
        yield sse.event({**head, "choices": [], "usage": _usage(found.usage)})
    yield "data: [DONE]\n\n"


def _head(model: str, found: ChatAnswer, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{found.id}", "object": kind, "created": found.created, "model": model}


def _finish(found: ChatAnswer) -> str:
    return "length" if found.is_cut else "stop"


def _logprobs(entries: tuple[dict[str, Any], ...] | None) -> dict[str, Any] | None:
    return {"content": list(entries), "refusal": None} if entries else None


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.n_prompt,
        "completion_tokens": usage.n_completion,
        "total_tokens": usage.n_total,
        "prompt_tokens_details": {"cached_tokens": usage.n_cached},
    }
