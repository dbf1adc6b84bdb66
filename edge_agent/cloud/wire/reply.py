"""What a cloud's reply means, from its status, headers and bytes.

Owns the kind of every reply, and the checks of what is in it. Does no I/O; `spoken.py` takes the thinking out of the text, and
`verdict.py` finds the answer in it. Invariant:
whatever the bytes are, a reply has exactly one kind, and its values fit into the store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edge_agent.cloud.wire.spoken import MAX_ANSWER_CHARS, spoken
from edge_agent.cloud.wire.verdict import find_answer
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer

_RETRY_AFTER_S = (1.0, 3600.0)
_CREDIT_CODES = ("insufficient_quota", "credit_balance_exhausted", "billing_hard_limit_reached", "billing_not_active")
_RATE_CODES = ("rate_limit_exceeded", "requests_limit_exceeded", "tokens_limit_exceeded")
_CONTENT_WORDS = ("moderation", "content_filter", "content_policy", "flagged", "safety")
_MOST_TOKENS = 1 << 31  # a cloud that claims more claims nonsense, which SQLite and a budget could not hold
_SHORTEST_SECRET = 8  # a shorter key is easy to guess anyway, and may be a word of an answer
MAX_REPLY_BYTES = 1 << 20


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
    reply = _content(message.get("content")) if isinstance(message, dict) else ""
    if choice.get("finish_reason") in ("length", "content_filter"):
        why = "reached its length limit" if choice["finish_reason"] == "length" else "was blocked by the cloud's content filter"
        return CloudOutcome(CloudKind.UNUSABLE, error=f"the cloud's reply {why}")
    reply = without_key(key, _storable(reply))
    found = find_answer(reply, question)
    if not found:
        why = _why_unusable(reply)
        return CloudOutcome(CloudKind.UNUSABLE, error=f"the cloud's reply {why}")
    usage = payload.get("usage")
    stored = reply if len(reply) <= MAX_ANSWER_CHARS else spoken(reply)  # thinking may be long, and is never an answer
    answer = CloudAnswer(found, stored, model, latency_ms, _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"))
    return CloudOutcome(CloudKind.ANSWERED, answer)


def _content(content: Any) -> str:
    """The text of a message, whose content may be a list of parts: texts count, thinking does not. "" if there is no text.

    `reasoning_content` and `reasoning` beside the content are thinking too, and are not looked at. Mistral's API sends a part of
    type "thinking" before one of type "text".
    """
    if isinstance(content, list):
        return "".join(part if isinstance(part, str) else _text_of(part) for part in content)
    return content if isinstance(content, str) else _text_of(content)


def _text_of(part: Any) -> str:
    """The text of one part of a content; "" for thinking, a picture, a refusal or anything else."""
    if not isinstance(part, dict) or part.get("type", "text") not in ("text", "output_text"):
        return ""
    text = part.get("text")
    return text if isinstance(text, str) else ""


def _why_unusable(reply: str) -> str:
    """Why no answer was found in a reply, as the end of a sentence."""
    said = spoken(reply)
    if not said:
        return "has no answer after its thinking" if reply.strip() else "is empty"
    if len(said) > MAX_ANSWER_CHARS:
        return f"is longer than {MAX_ANSWER_CHARS} characters"
    return "does not name exactly one option"


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
