"""What a cloud is asked.

Owns the prompt and the body of a request. Does no I/O. Invariant: every change to the prompt, or to how an answer is found in a
reply, needs a new `PROMPT_VERSION`, because stored answers are kept under it.
"""

from __future__ import annotations

from typing import Any

from edge_agent.core.question import OPEN, Question

PROMPT_VERSION = 2
MAX_COMPLETION_TOKENS = 256  # the limit that a request sets, and that a budget reserves


def prompt(question: Question) -> str:
    """The text that is sent, version 2: the question, its options and the request for one letter; for an open question only its text.

    The request lists the letters, and says that they are Latin: asked in Kazakh or Russian, models also answer with the Cyrillic
    "В", which may be B (its look) or the third option (its place in the alphabet), or with the option's text in other words.
    """
    if question.kind == OPEN:
        return question.stem
    letters = ", ".join(question.letters)
    return f"{question.user_message}\n\nAnswer with the Latin letter of the right option alone, one of: {letters}."


def body(question: Question, model: str) -> dict[str, Any]:
    """The JSON body of a request for a chat completion."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": prompt(question)}],
        "temperature": 0,
        "max_tokens": MAX_COMPLETION_TOKENS,
    }
