"""What a cloud is asked as a typed decision, by either of the two APIs that serve them.

Owns the words and the form of such a request, and which name each option has in it. Does no I/O. Invariant: the names of a question's
options differ, so the name in a reply stands for exactly one letter; every change here needs a new `VERSION`, because stored answers
are kept under it.

    POST BASE/systemone   TypeSafe's API: Ollama, vLLM, SGLang, LocalAI, llama.cpp, OpenRouter and others
    POST BASE/decisions   OpenAI's API

An option's name is its text. vLLM, SGLang and llama.cpp put their own labels before the names ("A: 18", "B: 19"), and may draw these
labels in any order; a letter of ours as the name would contradict theirs ("B: A"). Models that were trained for such decisions expect
names that mean something, too. Only if two texts are the same, the letters are the names and the texts their descriptions.
"""

from __future__ import annotations

import unicodedata
from typing import Any

from edge_agent.core.question import Question

AUTO, CHAT, SYSTEMONE, DECISIONS = "auto", "chat", "systemone", "decisions"
NEXT = {SYSTEMONE: DECISIONS, DECISIONS: CHAT}  # the order in which a cloud is asked what it offers
VERSION = 1
NAME = "answer"  # of our one question; vLLM's model completes "answer:"
INSTRUCTIONS = "Which option is the right answer to this question?"


def letters_by_name(question: Question) -> dict[str, str]:
    """The letter for which each option's name stands, in the order of the options."""
    names = [plain_name(option) for option in question.options]
    if len(set(names)) < len(names):
        names = list(question.letters)
    return dict(zip(names, question.letters, strict=True))


def plain_name(text: str) -> str:
    """A name in the one form in which two spellings of the same characters are equal (NFC)."""
    return unicodedata.normalize("NFC", text)


def typed_body(question: Question, model: str, api: str) -> dict[str, Any]:
    """The JSON body of a request for a typed decision. The state is the question; nothing else is known about it."""
    named = dict(zip(letters_by_name(question), question.options, strict=True))
    descriptions = {name: None if plain_name(option) == name else option for name, option in named.items()}
    asked: dict[str, Any] = {"type": "choice", "instructions": INSTRUCTIONS}
    if api == SYSTEMONE:
        return {"model": model, "state": question.stem, "questions": {NAME: {**asked, "criteria": descriptions}}}
    choices = [{"value": name} | ({} if text is None else {"description": text}) for name, text in descriptions.items()]
    return {"model": model, "input": question.stem, "questions": [{**asked, "name": NAME, "choices": choices}]}
