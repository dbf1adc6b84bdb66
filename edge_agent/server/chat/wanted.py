"""What a chat client wants to know: the question in its messages, and the form in which it wants the answer.

Owns how a conversation becomes one question. Invariants: a decision is one question, so only the last message of the user is read, and
`ignored` names the rest; a text that is not a question for this model is refused with a
sentence, or gets a sentence without a decision.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge_agent.cloud.wire.request import without_request
from edge_agent.core import parsing
from edge_agent.core.choice import Found
from edge_agent.core.errors import BadQuestion
from edge_agent.core.question import CHOICE, Question
from edge_agent.server.chat import listed
from edge_agent.server.chat.cues import without_cue
from edge_agent.server.chat.requests import ChatMessage, ContentPart, InputItem
from edge_agent.server.chat.schema import SchemaField
from edge_agent.server.chat.structure import Structure
from edge_agent.server.chat.validity import BadSchema
from edge_agent.server.faults import Refusal

PROBE_TOKENS = 16  # a client that takes no more tests the connection: no text in words fits
NO_DECISION = (
    "This server answers multiple-choice questions: write the question, then one option a line as 'A. text', 'B. text'. "
    "Nothing was decided."
)
WHICH = "Which option fits best?"  # between a text that ends in a list and the options that a schema lists
OTHERS = "other messages"
_TEXT_PARTS = ("text", "input_text", "output_text")
_ONE_WORD = re.compile(r"\w{1,40}[.!]{0,3}")
_OWN_FORMAT = ("Confidence:", "Final answer:")


@dataclass(frozen=True)
class Wanted:
    """The question, or None if there is nothing to decide, and which field holds it. `in_own_format` asks for FogGen's own two lines."""

    question: Question | None
    in_own_format: bool
    where: str
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class _Turns:
    """The user's last message, where it stands in the request, what the system said, and which kinds of turns are not read."""

    text: str
    where: str
    system: str
    ignored: tuple[str, ...]


def wanted(
    messages: Sequence[ChatMessage | InputItem],
    where: str,
    structure: Structure | None,
    kind: str,
    most_tokens: int | None,
    never_send: bool = False,
    instructions: str = "",
) -> Wanted:
    """The question of these messages (`where` names their field). Raises `Refusal`, and `BadQuestion` for one that cannot be asked."""
    turns = _turns(messages, where, instructions)
    turns = replace(turns, text=without_request(turns.text))
    try:
        question = _question(turns, kind, structure)
    except BadSchema as error:
        raise Refusal(400, "unsupported_schema", str(error), structure.where if structure else None) from error
    except BadQuestion as error:
        raise Refusal(400, "invalid_question", f"{error}{_others_are_not_read(turns)}", turns.where) from error
    if question is None and (structure is not None or not _is_probe(turns.text, most_tokens)):
        raise Refusal(400, "invalid_question", _no_options(turns.text, kind) + _others_are_not_read(turns), turns.where)
    if question is not None and never_send:
        question = replace(question, never_send=True)
    return Wanted(question, all(part in turns.system for part in _OWN_FORMAT), turns.where, turns.ignored)


def _turns(messages: Sequence[ChatMessage | InputItem], where: str, instructions: str) -> _Turns:
    at = next((i for i in reversed(range(len(messages))) if messages[i].role == "user"), None)
    if at is None:
        raise Refusal(400, "invalid_question", "No message is the user's; send the question with the role 'user'.", where)
    place = f"{where}.{at}.content"
    text = _text(messages[at].content, place)
    system, others = [instructions] if instructions else [], False
    for i, message in enumerate(messages):
        if message.role in ("system", "developer"):
            system.append(_readable(message.content))
        elif i != at:
            others = True
    ignored = [name for name, is_there in (("system messages", system), (OTHERS, others)) if is_there]
    return _Turns(text, place, "\n".join(system), tuple(ignored))


def _text(content: str | list[ContentPart] | None, where: str) -> str:
    """The text of the message that is read. Raises `Refusal` for a part that is not text."""
    if isinstance(content, str):
        return content
    for i, part in enumerate(content or []):
        if part.type not in _TEXT_PARTS or part.text is None:
            message = f"The message has a part of type '{part.type}', and this server reads text alone; send parts of type 'text'."
            if part.type in _TEXT_PARTS:
                message = f"The message has a part of type '{part.type}' without a text; send its 'text'."
            raise Refusal(400, "unsupported_content", message, f"{where}.{i}")
    return _readable(content)


def _readable(content: str | list[ContentPart] | None) -> str:
    return content if isinstance(content, str) else "\n".join(part.text or "" for part in content or [])


def _question(turns: _Turns, kind: str, structure: Structure | None) -> Question | None:
    """The question; None if the text has no options and needs some."""
    if kind != CHOICE:
        return Question.parse(turns.text, kind)
    if structure is not None and structure.listing is not None:
        return _listed_question(turns.text, structure, structure.listing)
    return _own_question(turns.text)


def _own_question(text: str) -> Question | None:
    """The question with the options in its text; None if it has none."""
    text = without_cue(text)
    return Question.parse(text) if _found(text).options or not text.strip() else None


def _found(text: str) -> Found:
    """The options in the text; an unclear one raises `BadQuestion`."""
    return parsing.split(text.replace("\r\n", "\n").replace("\r", "\n").strip())


def _listed_question(text: str, structure: Structure, one: SchemaField) -> Question:
    """The question where a field of the schema lists the options.

    The listed values are the options, and the whole text is the stem, whatever lists it holds: it may be a text that somebody else
    wrote. The options in the text count only if they are the listed values themselves, or if the values are their letters.
    """
    found, unclear = None, None
    try:
        found = _own_question(text)
    except BadQuestion as error:
        unclear = error
    letters = listed.are_letters(one)
    if letters and unclear:
        raise unclear
    if found is not None and listed.values(one, list(found.options)) is not None and (not letters or _found(without_cue(text)).lettered):
        return found
    if found is not None and (letters or structure.has_free_answer):
        raise BadSchema(
            f"The field '{one.name:.60}' of the schema lists its own values, and the text ends in other options ('{found.options[0]:.20}', "
            "...), so the answer may mean two things; list exactly the letters of these options, or their texts."
        )
    stem = f"{text}\n\n{WHICH}" if parsing.has_lettered_options(text.strip()) else text
    return Question(stem, listed.options(one))


def _is_probe(text: str, most_tokens: int | None) -> bool:
    """Whether a client only tests the connection: one word, or a limit in which no answer in words fits."""
    return (most_tokens is not None and most_tokens <= PROBE_TOKENS) or _ONE_WORD.fullmatch(text.strip()) is not None


def _others_are_not_read(turns: _Turns) -> str:
    """What a client has to know that wrote a question over several messages."""
    return " Only the last message of the user is read, so it must hold the whole question." if OTHERS in turns.ignored else ""


def _no_options(text: str, kind: str) -> str:
    try:
        Question.parse(text, kind)
    except BadQuestion as error:
        return str(error)
    return NO_DECISION
