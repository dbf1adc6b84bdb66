"""What the cloud is asked, and what its reply means: pure functions, with one version number.

Owns the prompt, how an answer is found in a reply, and the kind of every reply (status, headers, bytes). Does no I/O. Invariants:
a reply is only data, in which we find a letter of the question or not, whatever else it says; every change to the prompt or
to how an answer is found needs a new `PROMPT_VERSION`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import OPEN, Question
from edge_agent.core.records import CloudAnswer

PROMPT_VERSION = 1
MAX_COMPLETION_TOKENS = 256  # the limit that a request sets, and that a budget reserves
_RETRY_AFTER_S = (1.0, 3600.0)
_CREDIT_CODES = ("insufficient_quota", "credit_balance_exhausted", "billing_hard_limit_reached", "billing_not_active")
_RATE_CODES = ("rate_limit_exceeded", "requests_limit_exceeded", "tokens_limit_exceeded")
_CONTENT_WORDS = ("moderation", "content_filter", "content_policy", "flagged", "safety")
_MOST_TOKENS = 1 << 31  # a cloud that claims more claims nonsense, which SQLite and a budget could not hold
_SHORTEST_SECRET = 8  # a shorter key is easy to guess anyway, and may be a word of an answer
MAX_REPLY_BYTES = 1 << 20


def prompt(question: Question) -> str:
    """The text that is sent, version 1: the question, its options and the request for one letter; for an open question only its text."""
    if question.kind == OPEN:
        return question.stem
    return f"{question.user_message}\n\nAnswer with the letter of the right option alone."


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


def read_reply(
    status: int, headers: Mapping[str, str], data: bytes | None, question: Question, model: str, latency_ms: float, key: str | None = None
) -> CloudOutcome:
    """What a reply means: its kind, and its answer if it has one.

    `headers` must ignore letter case. `data` is the decompressed body; None if it was too large, or in an encoding that we did
    not ask for. If the reply repeats the key, the key is removed from the stored text.
    """
    if status != 200:
        return _read_status(status, headers, data)
    if data is None:
        return CloudOutcome(
            CloudKind.UNUSABLE, error=f"the cloud's reply is over {MAX_REPLY_BYTES} bytes, or in an encoding that was not requested"
        )
    portal = CloudOutcome(CloudKind.PORTAL, error="the reply is not a chat completion; it may come from a captive portal")
    try:
        payload = json.loads(data)
    except (ValueError, RecursionError):
        broken = data.lstrip()[:1] == b"{"
        return CloudOutcome(CloudKind.FAILED, error="the cloud's reply is incomplete") if broken else portal
    choices = payload.get("choices") if isinstance(payload, dict) else None
    if not isinstance(choices, list):
        return portal
    choice = choices[0] if choices and isinstance(choices[0], dict) else {}
    message = choice.get("message")
    reply = message.get("content") if isinstance(message, dict) else None
    if choice.get("finish_reason") in ("length", "content_filter"):
        why = "reached its length limit" if choice["finish_reason"] == "length" else "was blocked by the cloud's content filter"
        return CloudOutcome(CloudKind.UNUSABLE, error=f"the cloud's reply {why}")
    reply = without_key(key, _storable(reply)) if isinstance(reply, str) else None
    found = find_answer(reply, question) if reply is not None else None
    if reply is None or not found:
        why = "is empty" if question.kind == OPEN or not reply else "does not name exactly one option"
        return CloudOutcome(CloudKind.UNUSABLE, error=f"the cloud's reply {why}")
    usage = payload.get("usage")
    answer = CloudAnswer(found, reply, model, latency_ms, _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"))
    return CloudOutcome(CloudKind.ANSWERED, answer)


def _read_status(status: int, headers: Mapping[str, str], data: bytes | None) -> CloudOutcome:
    """The outcome of a reply without an answer, from its HTTP status and the error code in it."""
    error = _error(data)
    if status == 403 and _is_about_content(error):
        return CloudOutcome(CloudKind.REJECTED, error=f"the cloud rejected the content of this question (HTTP {status})")
    if status in (401, 403):
        return CloudOutcome(CloudKind.REFUSED, error=f"the cloud refused the key (HTTP {status})")
    code = str(error.get("code", ""))
    out_of_credit = code in _CREDIT_CODES or (code.endswith("_limit_exceeded") and code not in _RATE_CODES)
    if status == 402 or (status == 429 and out_of_credit):
        return CloudOutcome(CloudKind.NO_CREDIT, error=f"no credit is left at the cloud (HTTP {status})")
    if status == 429:
        wait_s = _retry_after_s(headers)
        return CloudOutcome(CloudKind.LIMITED, None, f"the cloud accepts no more calls for now (HTTP {status})", wait_s)
    if status in (408, 409, 425) or (status >= 500 and status != 511):
        return CloudOutcome(CloudKind.FAILED, error=f"the cloud answered HTTP {status}")
    if status < 400 or status in (407, 511):
        return CloudOutcome(
            CloudKind.PORTAL, error=f"the reply does not come from the cloud (HTTP {status}), but from a captive portal or a proxy"
        )
    return CloudOutcome(CloudKind.REJECTED, error=f"the cloud rejected this question (HTTP {status})")


def _error(data: bytes | None) -> dict[str, Any]:
    """The error object of a reply; empty if it has none."""
    try:
        error = json.loads(data or b"")["error"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return {}
    return error if isinstance(error, dict) else {}


def _is_about_content(error: Mapping[str, Any]) -> bool:
    """Whether a refusal is about what this question says, and not about the key.

    OpenRouter's moderation names its `reasons` or the `flagged_input` in `metadata`; others have a code such as `content_filter`.
    """
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and ("reasons" in metadata or "flagged_input" in metadata):
        return True
    names = [name.lower() for name in (error.get("code"), error.get("type")) if isinstance(name, str)]
    return any(word in name for word in _CONTENT_WORDS for name in names)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long to wait, 1 s to 1 h, from seconds or a date (relative to the reply's own date, as this device's may be wrong)."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        seconds = float(value[:9])
    else:
        import email.utils  # imports the socket module, which an answer from memory does not need

        try:
            until = email.utils.parsedate_to_datetime(value)
            seconds = (until - email.utils.parsedate_to_datetime(headers.get("Date", email.utils.formatdate(usegmt=True)))).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, _RETRY_AFTER_S[0]), _RETRY_AFTER_S[1])


def _count(usage: Any, key: str) -> int | None:
    """A number of tokens; None if the cloud does not name one, or one that cannot be."""
    value = usage.get(key) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS else None


def _storable(text: str) -> str:
    """A text that UTF-8 and so SQLite can hold: JSON may contain half of a surrogate pair, such as "\\ud83d"."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def without_key(key: str | None, text: str) -> str:
    """A text from outside, with our key removed: the other side may repeat it."""
    return text.replace(key, "[key]") if key and len(key) >= _SHORTEST_SECRET else text
