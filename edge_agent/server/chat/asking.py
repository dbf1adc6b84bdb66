"""From a request of a chat client to a decision, the same for chat completions and responses.

Owns the order: everything that can be refused is refused before anything is decided. Invariant: a `ChatAnswer` without a decision
left nothing in the store.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_agent.core.errors import BadQuestion
from edge_agent.core.records import Decision
from edge_agent.core.routing import PolicyName
from edge_agent.server import decided
from edge_agent.server.chat.requests import ChatMessage, CommonFields, InputItem
from edge_agent.server.chat.structure import Structure
from edge_agent.server.chat.wanted import NO_DECISION, wanted
from edge_agent.server.faults import Refusal
from edge_agent.server.model_names import chosen
from edge_agent.server.service import Service

_CLOUD_FIRST = (PolicyName.ONLY_CLOUD.value, PolicyName.PREFER_CLOUD.value)
_LOWEST_LOGPROB = -9999.0  # JSON has no infinity


@dataclass(frozen=True)
class AnswerForm:
    """How the answer is wanted: in JSON, and with the probabilities of how many letters (None: none)."""

    structure: Structure | None = None
    top_logprobs: int | None = None


@dataclass(frozen=True)
class ChatAnswer:
    """What is said. `decision` is None if there was nothing to decide; `pieces` together are the text; `is_cut` then says that a
    limit left no room for an answer.
    """

    id: str
    created: int
    pieces: tuple[str, ...]
    decision: Decision | None
    is_cut: bool
    ignored: tuple[str, ...]
    logprobs: tuple[dict[str, Any], ...] | None

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)

    @property
    def edge_agent(self) -> dict[str, Any]:
        """The object `edge_agent`."""
        if self.decision is None:
            return {"decision_id": None, "answer": None, "route": None, "persisted": False, "ignored": sorted(self.ignored)}
        return decided.as_object(self.decision, self.ignored)

    @property
    def headers(self) -> dict[str, str]:
        """The headers `X-Edge-*`; none without a decision."""
        return decided.headers(self.decision) if self.decision else {}

    @property
    def usage(self) -> decided.Usage:
        """The tokens; none without a decision."""
        return decided.usage([self.decision] if self.decision else [])


async def answer(
    service: Service,
    asked: CommonFields,
    messages: Sequence[ChatMessage | InputItem],
    where: str,
    form: AnswerForm,
    most_tokens: int | None = None,
    instructions: str = "",
) -> ChatAnswer:
    """Decide what a request asks. Raises `Refusal`, and what `Agent.ask` raises."""
    picked = chosen(asked.model)
    _refuse_forced_tools(asked)
    profile, own = service.agent.profile, asked.own
    own.check(picked.policy)
    found = await asyncio.to_thread(  # a long text takes a while, and other requests need not wait for it
        wanted, messages, where, form.structure, profile.question_kind, most_tokens, own.never_send, instructions
    )
    ignored = (*asked.ignored(), *found.ignored)
    if found.question is None:
        return ChatAnswer(uuid.uuid4().hex, int(time.time()), (NO_DECISION,), None, most_tokens is not None, ignored, None)
    write = None
    if form.structure is not None:
        has_confidence = (picked.policy or service.agent.policy.name.value) not in _CLOUD_FIRST and not profile.is_plain
        write = form.structure.promise(found.question, profile.levels, has_confidence)
    try:
        decision = await service.ask(found.question, tau=picked.tau, policy=picked.policy, refresh=own.refresh)
    except BadQuestion as error:  # too long, for example
        raise Refusal(400, "invalid_question", str(error), found.where) from error
    pieces = (write(decision),) if write else _pieces(decision, found.in_own_format)
    logprobs = None
    if form.top_logprobs is not None:
        logprobs = _logprobs(decision, pieces, form.top_logprobs) if write is None and not found.in_own_format else None
        ignored = ignored if logprobs else (*ignored, "logprobs")
    return ChatAnswer(decision.decision_id, int(time.time()), pieces, decision, False, ignored, logprobs)


def _refuse_forced_tools(asked: CommonFields) -> None:
    if asked.tool_choice not in (None, "auto", "none"):
        raise Refusal(
            400, "unsupported_parameter", "No tool is ever called here; send tool_choice 'auto' or 'none', or leave it out. "
            "For an answer in JSON, ask for a json_schema.", "tool_choice"
        )  # fmt: skip


def _pieces(decision: Decision, in_own_format: bool) -> tuple[str, ...]:
    """The text: `B. 19`, or the words of an open answer; or FogGen's two lines, the first only where it is the answerer's own."""
    if in_own_format:
        sure = decision.confidence if decision.route == "local" else None  # a cloud's probability is no level of a FogGen model
        return (*([f"Confidence: {sure}\n"] if sure is not None else []), f"Final answer: {decision.answer}")
    return (decision.answer, f". {decision.answer_text}") if decision.answer_text != decision.answer else (decision.answer,)


def _logprobs(decision: Decision, pieces: tuple[str, ...], top: int) -> tuple[dict[str, Any], ...] | None:
    """One entry for each piece: the letter with its probability; the option's text follows from the letter."""
    probs = decided.probs(decision)
    if probs is None or decision.answer not in probs:
        return None
    ranked = sorted(probs.items(), key=lambda one: -one[1])[:top]
    first = {**_token(decision.answer, probs[decision.answer]), "top_logprobs": [_token(*one) for one in ranked]}
    return (first, *({**_token(piece, 1.0), "top_logprobs": []} for piece in pieces[1:]))


def _token(text: str, probability: float) -> dict[str, Any]:
    logprob = math.log(probability) if probability > 0 else _LOWEST_LOGPROB
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
