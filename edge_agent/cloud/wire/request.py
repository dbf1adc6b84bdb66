"""What a cloud is asked.

Owns the prompt and the body of a request. Does no I/O. Invariant: every change to the prompt, or to how an answer is found in a
reply, needs a new `PROMPT_VERSION`, because stored answers are kept under it.
"""

from __future__ import annotations

from typing import Any

from edge_agent.core.question import OPEN, Question

PROMPT_VERSION = 1
MAX_COMPLETION_TOKENS = 256  # the limit that a request sets, and that a budget reserves


def prompt(question: Question) -> str:
    """The text that is sent, version 1: the question, its options and the request for one letter; for an open question only its text."""
    if question.kind == OPEN:
        return question.stem
    return f"{question.user_message}\n\nAnswer with the letter of the right option alone."


def body(question: Question, model: str) -> dict[str, Any]:
    """The JSON body of a request for a chat completion."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": prompt(question)}],
        "temperature": 0,
        "max_tokens": MAX_COMPLETION_TOKENS,
    }
