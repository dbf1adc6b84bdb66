"""What a cloud's reply means, from its status, headers and bytes.

Owns the kind of every reply, and the checks of what is in it. Does no I/O; `spoken.py` takes the thinking out of the text, and
`verdict.py` finds the answer in it. Invariant:
whatever the bytes are, a reply has exactly one kind, and its values fit into the store.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from edge_agent.cloud.wire.spoken import MAX_ANSWER_CHARS, spoken
from edge_agent.cloud.wire.verdict import find_answer
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer
from edge_agent.core.terminal import plain

_RETRY_AFTER_S = (1.0, 3600.0)
_CREDIT_CODES = ("insufficient_quota", "credit_balance_exhausted", "billing_hard_limit_reached", "billing_not_active")
_RATE_CODES = ("rate_limit_exceeded", "requests_limit_exceeded", "tokens_limit_exceeded")
_CONTENT_WORDS = ("moderation", "content_filter", "content_policy", "flagged", "safety")
_KEY_WORDS = ("key", "auth", "credential", "token")
_MODEL_CODES = ("model_not_found", "model_not_available", "model_not_supported", "invalid_model", "unknown_model", "deploymentnotfound")
_PARAMETER_CODES = ("unsupported_parameter", "unsupported_value", "unknown_parameter")
_ADDRESS_STATUSES = (404, 405, 406, 410, 411, 414, 415, 417, 421, 426, 431)
PORTAL = "it may come from a captive portal, or cloud_url is wrong"
PROVISIONAL = "the cloud is another edge, and its answer is provisional: it waits for a cloud of its own"
_MOST_WORDS, _LONGEST_ECHO = 200, 12  # characters; of an echo, letters and digits
_MOST_TOKENS = 1 << 31  # a cloud that claims more claims nonsense, which SQLite and a budget could not hold
_SHORTEST_PART = 6  # characters of a key; a shorter part may be a word
MAX_REPLY_BYTES = 1 << 20


def read_reply(
    status: int,
    headers: Mapping[str, str],
    data: bytes | None,
    question: Question,
    model: str,
    latency_ms: float,
    key: str | None = None,
    secrets: tuple[str, ...] = (),
) -> CloudOutcome:
    """What a reply means: its kind, and its answer if it has one.

    `headers` must ignore letter case. `data` is the decompressed body; None if it was too large, or in an encoding that we did
    not ask for. An error that repeats a part of the key or of the other `secrets` is not quoted; the caller removes whole ones
    (`secret.py`).
    """
    hidden = (key, *secrets) if key else secrets
    if status != 200:
        return read_status(status, headers, data, question, hidden)
    if data is None:
        return read_no_body(headers)
    no_completion = f"the reply is not a chat completion{page_title(data, question, hidden)}; {PORTAL}"
    try:
        payload = json.loads(data)
    except (ValueError, RecursionError):
        return incomplete_or_page(data, no_completion)
    choices = payload.get("choices") if isinstance(payload, dict) else None
    if not isinstance(choices, list):
        has_error = isinstance(payload, dict) and "error" in payload
        return read_error_in_200(data, headers, question, hidden) if has_error else CloudOutcome(CloudKind.PORTAL, error=no_completion)
    choice = choices[0] if choices and isinstance(choices[0], dict) else {}
    message = choice.get("message")
    reply = _content(message.get("content")) if isinstance(message, dict) else ""
    if choice.get("finish_reason") in ("length", "content_filter"):
        why = "reached its length limit" if choice["finish_reason"] == "length" else "was blocked by the cloud's content filter"
        return CloudOutcome(CloudKind.UNUSABLE, error=f"the cloud's reply {why}")
    reply = storable(reply)
    found = find_answer(reply.replace("\ufffd", ""), question)
    if not found:
        why = _why_unusable(reply)
        return CloudOutcome(CloudKind.UNUSABLE, error=f"the cloud's reply {why}")
    usage = payload.get("usage")
    stored = reply if len(reply) <= MAX_ANSWER_CHARS else spoken(reply)  # thinking may be long, and is never an answer
    answer = CloudAnswer(found, stored, model, latency_ms, count(usage, "prompt_tokens"), count(usage, "completion_tokens"))
    return answered(answer, payload.get("edge_agent"), headers)


def answered(answer: CloudAnswer, edge: Any, headers: Mapping[str, str]) -> CloudOutcome:
    """The outcome of a reply with an answer, which is not the last word if it comes from another edge and is provisional there.

    `edge` is what the reply says of itself as an edge, if it does: in it, and in the header, only the exact words of an edge count.
    """
    says = edge.get("provisional") if isinstance(edge, dict) else None
    if says is True or headers.get("X-Edge-Provisional", "").strip().lower() == "true":
        return CloudOutcome(CloudKind.PROVISIONAL, error=PROVISIONAL)
    return CloudOutcome(CloudKind.ANSWERED, answer)


def incomplete_or_page(data: bytes, page: str) -> CloudOutcome:
    """The outcome of a reply that is not JSON: a cut one of the cloud, or a `page` of somebody else."""
    if data.lstrip()[:1] == b"{":
        return CloudOutcome(CloudKind.FAILED, error="the cloud's reply is incomplete")
    return CloudOutcome(CloudKind.PORTAL, error=page)


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


def read_no_body(headers: Mapping[str, str]) -> CloudOutcome:
    """The outcome of a reply that was too large or packed in an unknown way: one that does not call itself JSON is no chat completion."""
    why = f"the cloud's reply is over {MAX_REPLY_BYTES} bytes, or in an encoding that was not requested"
    packed = headers.get("Content-Encoding", "").strip().lower()
    if packed not in ("", "identity", "gzip") or "json" not in headers.get("Content-Type", "json").lower():
        return CloudOutcome(CloudKind.PORTAL, error=f"{why}; {PORTAL}")
    return CloudOutcome(CloudKind.UNUSABLE, error=why)


def read_error_in_200(
    data: bytes, headers: Mapping[str, str], question: Question, hidden: tuple[str, ...], api: str = "chat"
) -> CloudOutcome:
    """The outcome of an error in a reply whose status is 200, as OpenRouter and some proxies send it."""
    code = _error(data).get("code")
    status = int(code) if isinstance(code, (int, str)) and re.fullmatch("[45][0-9][0-9]", str(code)[:4]) else 500
    return read_status(status, headers, data, question, hidden, api)


def read_status(
    status: int, headers: Mapping[str, str], data: bytes | None, question: Question, hidden: tuple[str, ...], api: str = "chat"
) -> CloudOutcome:
    """The outcome of a reply without an answer, from its HTTP status and the error in it. `api` is how the cloud was asked.

    What no question can cause (a wrong address, an unknown model) is `MISCONFIGURED`. A 403 that does not name the key is
    doubtful: the same status is sent for a forbidden content, and by a firewall that dislikes a word.
    """
    error = _error(data)
    names = _names(error)
    no_api = f"there is no {api} API at this address"
    setting = "cloud_url" if api == "chat" else "cloud_api"
    said = f"(HTTP {status}{_quoted(error, data, question, hidden)})"
    if status == 403 and _is_about_content(error):
        return CloudOutcome(CloudKind.REJECTED, error=f"the cloud rejected the content of this question {said}")
    if status in (401, 403):
        doubtful = status == 403 and not any(word in name for name in names for word in _KEY_WORDS)
        whom = "the cloud refused the key, or a firewall refused the call" if doubtful else "the cloud refused the key"
        return CloudOutcome(CloudKind.REFUSED, error=f"{whom} {said}", doubtful=doubtful)
    out_of_credit = any(name in _CREDIT_CODES or (name.endswith("_limit_exceeded") and name not in _RATE_CODES) for name in names[:1])
    if status == 402 or (status == 429 and out_of_credit):
        return CloudOutcome(CloudKind.NO_CREDIT, error=f"no credit is left at the cloud {said}")
    if status == 429 and "too large" not in _message(error).lower():
        return CloudOutcome(CloudKind.LIMITED, None, f"the cloud accepts no more calls for now {said}", _retry_after_s(headers))
    if status in (501, 505):
        return CloudOutcome(CloudKind.MISCONFIGURED, error=f"{no_api} {said}; check {setting}", no_api=True)
    if status in (408, 409, 425) or (status >= 500 and status != 511):
        return CloudOutcome(CloudKind.FAILED, error=f"the cloud answered with an error {said}")
    if status == 407:
        return CloudOutcome(CloudKind.PORTAL, error=f"a proxy before the cloud asks for a password {said}; check cloud_proxy")
    if status < 400 or status == 511:
        to = _redirect(headers) if 300 <= status < 400 else ""
        return CloudOutcome(
            CloudKind.PORTAL, error=f"the reply does not come from the cloud {said}, but from a captive portal or a proxy{to}"
        )
    if any(name in _MODEL_CODES for name in names) or (status in (404, 410) and "model" in _message(error).lower()):
        return CloudOutcome(CloudKind.MISCONFIGURED, error=f"the cloud does not offer this model {said}; check cloud_model")
    if status in _ADDRESS_STATUSES or (status in (400, 422) and data and data.lstrip()[:1] not in (b"{", b"[")):
        return CloudOutcome(CloudKind.MISCONFIGURED, error=f"{no_api} {said}; check {setting}", no_api=True)
    if any(name in _PARAMETER_CODES for name in names):
        return CloudOutcome(CloudKind.MISCONFIGURED, error=f"the cloud does not accept a part of our requests {said}")
    return CloudOutcome(CloudKind.REJECTED, error=f"the cloud rejected this question {said}", bad_form=not _is_about_content(error))


def _error(data: bytes | None) -> dict[str, Any]:
    """The error object of a reply; empty if it has none.

    OpenAI's `{"error": {...}}` and what others make of it: a text in place of the object (Ollama), a list around it (Google),
    `detail` (FastAPI), or the object without a name (vLLM, Azure).
    """
    try:
        found = json.loads(data or b"")
    except (ValueError, RecursionError):
        return {}
    found = found[0] if isinstance(found, list) and found else found
    if not isinstance(found, dict):
        return {}
    error = next((found[name] for name in ("error", "detail", "errors") if found.get(name)), found)
    error = error[0] if isinstance(error, list) and error else error
    return error if isinstance(error, dict) else {"message": error}


def _names(error: Mapping[str, Any]) -> list[str]:
    """What an error calls itself, its code first, in lower case; a code that is no text counts as none."""
    kinds = (error.get("code") or error.get("error_type"), error.get("type"))  # `error_type`: /v1/systemone
    return [name.lower() if isinstance(name, str) else "" for name in kinds]


def _message(error: Mapping[str, Any]) -> str:
    """The sentence in an error; "" if there is none. OpenRouter hides the sentence of the cloud behind it in `metadata.raw`."""
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    if isinstance(raw, str):
        return _message({**_error(raw.encode(errors="replace")), "metadata": None}) or raw
    text = error.get("message") or error.get("msg") or error.get("error")
    while isinstance(text, dict):  # LiteLLM has sent an error inside of an error
        text = text.get("message") or text.get("error")
    return text if isinstance(text, str) else ""


def _quoted(error: Mapping[str, Any], data: bytes | None, question: Question, hidden: tuple[str, ...]) -> str:
    """The server's own words, ready to be added to a message; "" if it says nothing, or repeats the question or a secret."""
    words = _message(error)
    return _shown(words, question, hidden) if words else page_title(data, question, hidden)


def page_title(data: bytes | None, question: Question, hidden: tuple[str, ...]) -> str:
    """The title of a web page, ready to be added to a message; "" if it has none."""
    found = re.search(rb"(?is)<title[^>]{0,200}>(.{1,400}?)</title>", (data or b"")[:8192])
    return _shown(found[1].decode("utf-8", errors="replace"), question, hidden) if found else ""


def _shown(words: str, question: Question, hidden: tuple[str, ...]) -> str:
    """A stranger's words on one line, without control characters, shortened; "" if the question or a part of a secret is in them."""
    words = words[: _MOST_WORDS * 4]
    if _repeats(words, question):
        return ""
    words = plain(" ".join(words.split()))
    if any(part in words for secret in hidden for part in _parts(secret, _SHORTEST_PART)):
        return ""  # many servers repeat the start and the end of a refused key
    return f', "{words[:_MOST_WORDS]}{"..." if len(words) > _MOST_WORDS else ""}"' if words else ""


def _repeats(words: str, question: Question) -> bool:
    """Whether a stranger's words repeat a part of the question, in whatever spelling, or of a request.

    An error outlives a purged question, so it must hold nothing of it.
    """
    if re.search(r"[\"'](?:messages|content|role|state|input|instructions|criteria|choices)\\*[\"']\s*:", words):
        return True
    stem, said = _bare(question.stem), _bare(_unescaped(words))
    asked = "\n".join((stem, *(_bare(option) for option in question.options)))
    return any(part in asked for part in _parts(said, _LONGEST_ECHO)) or (len(stem) > 3 and stem in said)


def _unescaped(words: str) -> str:
    """Words without the escapes of JSON, Python's bytes, web pages and web addresses."""
    import html
    from urllib.parse import unquote

    words = re.sub(r"\\+u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), words)
    words = re.sub(r"(?:\\+x[0-9a-fA-F]{2})+", lambda found: bytes.fromhex(re.sub(r"\\+x", "", found[0])).decode(errors="replace"), words)
    return unquote(html.unescape(storable(re.sub(r"\\+[ntr]", " ", words))))


def _bare(text: str) -> str:
    """The letters and digits of a text, without their case."""
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def _parts(text: str, length: int) -> Iterator[str]:
    """All parts of a text that have this length."""
    return (text[n : n + length] for n in range(min(len(text), 4096) - length + 1))


def _redirect(headers: Mapping[str, str]) -> str:
    """Where a redirect leads, without what may be a secret in its path."""
    scheme, found, rest = headers.get("Location", "").partition("://")
    host = re.match(r"[A-Za-z0-9.:-]{1,200}", rest)
    return f" that redirects to {scheme[:5]}://{host[0]}" if found and host else ""


def _is_about_content(error: Mapping[str, Any]) -> bool:
    """Whether a refusal is about what this question says, and not about the key.

    OpenRouter's moderation names its `reasons` or the `flagged_input` in `metadata`; others have a code such as `content_filter`.
    """
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and ("reasons" in metadata or "flagged_input" in metadata):
        return True
    names = _names(error)
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


def count(usage: Any, key: str) -> int | None:
    """A number of tokens; None if the cloud does not name one, or one that cannot be."""
    value = usage.get(key) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS else None


def storable(text: str) -> str:
    """A text that UTF-8 and so SQLite can hold: JSON may contain half of a surrogate pair, such as "\\ud83d"."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
