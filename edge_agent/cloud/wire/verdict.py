"""Which answer a cloud's reply gives, found in its text.

Owns the rules by which a letter is found. Knows nothing of HTTP. Invariants: a reply is only data, in which we find a letter of
the question or not, whatever else it says; every change to these rules needs a new `PROMPT_VERSION`.
"""

from __future__ import annotations

import re

from edge_agent.core.question import OPEN, Question

_MAX_REPLY_CHARS = 20_000
_NOT_A_WORD = r"(?![\w'])(?!\s+(?!because|since|as\b)[a-z])"  # "answer: A city" names no option
# Patterns are compiled on first use (`re` keeps them): an answer from memory needs none.
_LONE = r"\W*([A-Za-z])\W*"
_LED = r"(?s)\W{0,8}([A-Z])(?:[.):,]|\s+-)(?:\s|\W).*"
_NAMED = (
    r"(?i:\b(?:answer|option|choice))\W{0,8}(?:(?i:is|would be|should be)\W{0,8})?(?:(?i:option|letter)\W{0,4})?"
    rf"([A-Z]){_NOT_A_WORD}|\\boxed\{{\W{{0,4}}([A-Z])\b"
)
_LEAD_IN = r"(?i:(?:the )?(?:correct |right |final )?answer(?: is)?\W{1,4})"


def find_answer(reply: str, question: Question) -> str | None:
    """The letter in a reply; for an open question, the reply without its thinking. None if there is no answer."""
    if question.kind != OPEN:
        return find_letter(reply, question)
    text = reply.strip()
    if text.startswith("<think>"):
        text = text.partition("</think>")[2].strip()
    return text if 0 < len(text) <= _MAX_REPLY_CHARS else None


def find_letter(reply: str, question: Question) -> str | None:
    """The letter in a reply, version 1; None if there is none, or more than one.

    The rules, in order: the reply is a letter; it starts with a letter and a mark ("B. 24"); it names one letter after
    "answer" or "option" ("the answer is **B**"; several mentions must agree); it is the text of exactly one option.
    Thinking at the start (`<think>`) is ignored. A reply of over 20,000 characters is not an answer.
    """
    text = reply.strip()
    if len(text) > _MAX_REPLY_CHARS:
        return None
    if text.startswith("<think>"):
        text = text.partition("</think>")[2].strip()
    match = re.fullmatch(_LONE, text) or re.fullmatch(_LED, text)
    found = {match[1].upper()} if match else {(one or other) for one, other in re.findall(_NAMED, text)}
    if not found:
        folded = re.sub(_LEAD_IN, "", text, count=1).strip(" .*").casefold()
        options = zip(question.letters, question.options, strict=True)
        found = {letter for letter, option in options if option.strip(" .").casefold() == folded}
    return next(iter(found)) if len(found) == 1 and found <= set(question.letters) else None
