"""What a reply to a typed decision means: one letter with the cloud's probability for every option, or why there is none.

Owns the checks of such a reply. Does no I/O. Invariants: whatever the bytes are, a reply has exactly one kind; an answer has a
probability from 0 to 1 for each letter of the question and no other, they sum to 1, and its letter has the highest. Nothing is made up:
a reply that contradicts itself or leaves an option out is no answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from edge_agent.cloud.wire.reply import (
    PORTAL,
    answered,
    count,
    incomplete_or_page,
    page_title,
    read_error_in_200,
    read_no_body,
    read_status,
    storable,
)
from edge_agent.cloud.wire.typed.request import NAME, SYSTEMONE, letters_by_name, plain_name
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer

SUM_OFF = 0.05  # how far from 1 a sum may be: jevcompat's specification, section 5
_ROUNDING = 0.005  # of probabilities with two decimals, the fewest that its examples have
_NEAR = 1e-7  # what float32 makes of a number
_TWICE = object()  # the value of a JSON key that occurs twice
_NO_PATH = (
    r"(?:unknown|invalid|unsupported|unrecogni[sz]ed|no such|no) .{0,40}\b(?:url|path|route|endpoint)\b|"
    r"\b(?:url|path|route|endpoint)\b.{0,80}(?:not found|not exist|unknown|invalid|not supported|unsupported)|"
    r"(?:not|n't) (?:support|serve|offer|available).{0,40}(?:systemone|system one|decisions|endpoint)|"
    r"(?:systemone|system one|decisions?).{0,40}(?:not|n't) (?:be )?(?:support|serve|offer|enabled|available|implemented)"
)


def read_typed_reply(
    status: int,
    headers: Mapping[str, str],
    data: bytes | None,
    question: Question,
    api: str,
    model: str,
    latency_ms: float,
    key: str | None = None,
    secrets: tuple[str, ...] = (),
) -> CloudOutcome:
    """What a reply means: its kind, and its answer if it has one.

    `headers`, `data`, `key` and `secrets` are those of `reply.read_reply`. The outcome's `no_api` says that no question will be
    answered at this address.
    """
    hidden = (key, *secrets) if key else secrets
    if status != 200:
        return _read_status(status, headers, data, question, hidden, api)
    if data is None:
        return read_no_body(headers)
    try:
        payload = json.loads(data, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError):
        return incomplete_or_page(data, f"the reply is not a typed decision{page_title(data, question, hidden)}; {PORTAL}")
    if not isinstance(payload, dict) or "answers" not in payload:
        if isinstance(payload, dict) and payload.get("error"):
            return read_error_in_200(data, headers, question, hidden, api)
        return CloudOutcome(CloudKind.PORTAL, error=f"the reply is not a typed decision; {PORTAL}", no_api=True)
    found = _our_answer(payload["answers"], api)
    if isinstance(found, dict) and found.get("type") == "refusal":
        return CloudOutcome(CloudKind.REJECTED, error="the cloud refuses to answer this question")
    chosen = _chosen(found, question, api)
    if isinstance(chosen, str):
        return CloudOutcome(CloudKind.UNUSABLE, error=f"the cloud's reply {chosen}", bad_form=True)
    letter, name, probs = chosen
    usage = payload.get("usage")
    tokens = count(usage, "input_tokens"), count(usage, "output_tokens")
    edge = found.get("x_edge_agent")
    if final := _final_letter(edge, question):
        return CloudOutcome(CloudKind.ANSWERED, CloudAnswer(final[0], storable(final[1]), model, latency_ms, *tokens, None, api))
    return answered(CloudAnswer(letter, storable(name), model, latency_ms, *tokens, probs, api), edge, headers)


def _final_letter(edge: Any, question: Question) -> tuple[str, str] | None:
    """The letter that another edge's own cloud brought without a distribution, and the option's name; None if that is not the case.

    The edge then says that its typed answer, which needs one, is still its own; the letter is final all the same.
    """
    if not isinstance(edge, dict) or edge.get("route") != "cloud" or edge.get("answered_by") != "device":
        return None
    name = edge["cloud"].get("choice") if isinstance(edge.get("cloud"), dict) else None
    letter = letters_by_name(question).get(plain_name(name)) if isinstance(name, str) else None
    return (letter, name) if letter and isinstance(name, str) else None


def _read_status(
    status: int, headers: Mapping[str, str], data: bytes | None, question: Question, hidden: tuple[str, ...], api: str
) -> CloudOutcome:
    """The outcome of a reply without an answer. Some servers say with 400 or 422 that they do not know the address."""
    outcome = read_status(status, headers, data, question, hidden, api)
    if outcome.kind is CloudKind.REJECTED and status in (400, 422) and re.search(_NO_PATH, outcome.error or "", re.IGNORECASE):
        error = f"there is no {api} API at this address (HTTP {status}); check cloud_api"
        return CloudOutcome(CloudKind.MISCONFIGURED, error=error, no_api=True)
    return outcome


def _our_answer(answers: Any, api: str) -> Any:
    """The one answer to our one question; None if there is none, or more than one."""
    if api == SYSTEMONE:
        return answers.get(NAME) if isinstance(answers, dict) else None
    ours = [one for one in answers if isinstance(one, dict) and one.get("name") in (NAME, None)] if isinstance(answers, list) else []
    return ours[0] if len(ours) == 1 else None


def _chosen(answer: Any, question: Question, api: str) -> tuple[str, str, dict[str, float]] | str:
    """The letter that was chosen, its option's name as the cloud wrote it, and the probability of each letter; or what is wrong."""
    if not isinstance(answer, dict) or answer.get("type") != "choice":
        return "has no choice in it"
    letters = letters_by_name(question)
    given = _pairs(answer.get("probabilities"), api)
    if given is None:
        return "has no probabilities"
    found = {letters.get(plain_name(name)): p for name, p in given if isinstance(name, str)}
    if len(given) != len(letters) or set(found) != set(letters.values()):
        return "has no probability for each option, or one for another option"
    probs = {letter: _probability(found[letter]) for letter in question.letters}
    if any(p is None for p in probs.values()):
        return "has a probability that is not from 0 to 1"
    sound = {letter: p for letter, p in probs.items() if p is not None}
    total, (over, under) = sum(sound.values()), _tolerance(list(sound.values()))
    if not -under - _NEAR <= total - 1 <= over + _NEAR:
        return f"has probabilities that sum to {total:.2f}"
    name = answer.get("choice")
    letter = letters.get(plain_name(name)) if isinstance(name, str) else None
    if letter is None or not isinstance(name, str):
        return "chooses none of the options"
    if max(sound.values()) - sound[letter] > _ROUNDING + _NEAR:
        return "chooses an option that is not the most probable"
    return letter, name, {each: p / total for each, p in sound.items()}


def _pairs(probabilities: Any, api: str) -> list[tuple[Any, Any]] | None:
    """Name and probability of each option, in either API's form; None if they have another form."""
    if api == SYSTEMONE:
        return list(probabilities.items()) if isinstance(probabilities, dict) else None
    if not isinstance(probabilities, list) or not all(isinstance(one, dict) for one in probabilities):
        return None
    return [(one.get("value"), one.get("probability")) for one in probabilities]


def _probability(value: Any) -> float | None:
    """A number from 0 to 1; None for anything else, such as NaN, true or a text."""
    if type(value) not in (int, float) or not -_NEAR <= value <= 1 + _NEAR:
        return None
    return min(1.0, max(0.0, float(value)))


def _tolerance(values: list[float]) -> tuple[float, float]:
    """How far the sum may be above and below 1: 0.05, or what rounding to the decimals that the values show can do to this many."""
    shown = next((d for d in range(2, 7) if all(abs(value - round(value, d)) < _NEAR for value in values)), None)
    rounding = 0.5 / 10**shown if shown else 0.0
    return max(SUM_OFF, sum(value > 0 for value in values) * rounding), max(SUM_OFF, len(values) * rounding)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a key that occurs twice gets a value that no check accepts."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        found[key] = _TWICE if key in found else value
    return found
