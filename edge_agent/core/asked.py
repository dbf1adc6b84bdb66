"""A question as a program asks it: an object of JSON with what counts for this question alone.

Owns the keys of such an object and what comes back for it; the question itself is read by `question.py`. Pure. Invariant: the
caller's `id` comes back as it came.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from edge_agent.core.errors import BadQuestion
from edge_agent.core.question import CHOICE, Question
from edge_agent.core.records import Decision


class Asked(NamedTuple):
    """A question with what counts for it alone; `id` is the caller's own name for it."""

    question: Question
    id: str | int | float | None = None
    tau: Any = None
    policy: Any = None
    refresh: bool = False


def from_json(data: Any, kind: str = CHOICE, never_send: bool = False) -> Asked:
    """The question in an object of JSON, with its `id`, `tau`, `policy` and `refresh`, if it has them. Raises `BadQuestion`."""
    question = Question.from_json(data, kind)
    if never_send and not question.never_send:
        question = Question(question.stem, question.options, question.kind, never_send=True)
    if not isinstance(refresh := data.get("refresh", False), bool):
        raise BadQuestion("The refresh of a JSON question must be true or false.")
    return Asked(question, caller_id(data), data.get("tau"), data.get("policy"), refresh)


def caller_id(data: Any) -> str | int | float | None:
    """The caller's id, as it came. Raises `BadQuestion` if it cannot come back as it is."""
    found = data.get("id") if isinstance(data, dict) else None
    try:
        if isinstance(found, bool) or not isinstance(found, (str, int, float, type(None))):
            raise ValueError("not a text or a number")
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise BadQuestion(f"The id of a JSON question is {found!r:.80}; give a text or a number.") from error
    return found


def as_dict(asked: Asked, decision: Decision) -> dict[str, Any]:
    """The decision as it is printed, with the caller's id if there was one."""
    own = {} if asked.id is None else {"id": asked.id}
    return {**own, **decision.to_dict()}
