"""What the cloud is asked, and how an answer is found in its reply: pure functions, one version.

Owns both ends of the conversation with a cloud model. Knows nothing of HTTP. Invariant: a reply is data - a letter of the
question is found in it or not, whatever else it says; any change to either end is a new `PROMPT_VERSION`.
"""

from __future__ import annotations

import re

from edge_agent.core.question import OPEN, Question

PROMPT_VERSION = 1


def prompt(question: Question) -> str:
    """What the cloud is asked, version 1: the question, its options, and to answer with one letter; an open question alone."""
    if question.kind == OPEN:
        return question.stem
    return f"{question.user_message}\n\nAnswer with the letter of the right option alone."


_MAX_REPLY_CHARS = 20_000
_NOT_A_WORD = r"(?![\w'])(?!\s+(?!because|since|as\b)[a-z])"  # "answer: A city" names no option
_LONE = re.compile(r"\W*([A-Za-z])\W*")
_LED = re.compile(r"\W{0,8}([A-Z])(?:[.):,]|\s+-)(?:\s|\W).*", re.DOTALL)
_NAMED = re.compile(
    r"(?i:\b(?:answer|option|choice))\W{0,8}(?:(?i:is|would be|should be)\W{0,8})?(?:(?i:option|letter)\W{0,4})?"
    rf"([A-Z]){_NOT_A_WORD}|\\boxed\{{\W{{0,4}}([A-Z])\b"
)
_LEAD_IN = re.compile(r"(?i:(?:the )?(?:correct |right |final )?answer(?: is)?\W{1,4})")


def find_answer(reply: str, question: Question) -> str | None:
    """The letter in a reply; of an open question, what it says without its thinking. None if there is none."""
    if question.kind != OPEN:
        return find_letter(reply, question)
    text = reply.strip()
    if text.startswith("<think>"):
        text = text.partition("</think>")[2].strip()
    return text if 0 < len(text) <= _MAX_REPLY_CHARS else None


def find_letter(reply: str, question: Question) -> str | None:
    """The letter in a reply, version 1, or None if there is none or no single one.

    In this order: the reply is a letter; it begins with a letter and a mark ("B. 24"); it names one letter after
    "answer" or "option" ("the answer is **B**", several mentions must agree); it is the text of exactly one option.
    Thinking in front (`<think>`) does not count. A reply of over 20,000 characters is no answer.
    """
    text = reply.strip()
    if len(text) > _MAX_REPLY_CHARS:
        return None
    if text.startswith("<think>"):
        text = text.partition("</think>")[2].strip()
    match = _LONE.fullmatch(text) or _LED.fullmatch(text)
    found = {match[1].upper()} if match else {(one or other) for one, other in _NAMED.findall(text)}
    if not found:
        folded = _LEAD_IN.sub("", text, count=1).strip(" .*").casefold()
        options = zip(question.letters, question.options, strict=True)
        found = {letter for letter, option in options if option.strip(" .").casefold() == folded}
    return next(iter(found)) if len(found) == 1 and found <= set(question.letters) else None
