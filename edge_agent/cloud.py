"""Asks a stronger model over any OpenAI-compatible `/v1/chat/completions`; sorts every outcome into a kind.

Owns what the cloud is asked (its own plain prompt, `PROMPT_VERSION`), how a letter is found in the reply, and the
deadline. Knows nothing of databases or policies. Invariant: a call has an outcome by its deadline and never
raises for what the network or the cloud did; the key is sent to the one configured host and is never logged.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlsplit

import httpx

from edge_agent.errors import BadSetting
from edge_agent.question import OPEN, Question
from edge_agent.records import CloudAnswer
from edge_agent.routing import CloudKind
from edge_agent.settings import checked

PROMPT_VERSION = 1
DEADLINE_S = 30.0
MAX_REPLY_BYTES = 1 << 20
MAX_TOKENS = 256
_TIMEOUT = httpx.Timeout(20.0, connect=5.0)

logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it writes full URLs


@dataclass(frozen=True, slots=True)
class CloudOutcome:
    """How one call ended: `answer` with ANSWERED, else `error`, a sentence for people without any secret."""

    kind: CloudKind
    answer: CloudAnswer | None = None
    error: str | None = None


class CloudModel:
    """A model behind an OpenAI-compatible endpoint.

    `url` is the base (`https://host/v1`) or the whole address of `chat/completions`; a malformed one raises
    `BadSetting`. `transport` replaces httpx's own in tests.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: str | None = None,
        deadline_s: float = DEADLINE_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.endpoint, self.model, self.deadline_s = _endpoint(url), model, deadline_s
        self._headers = {"Authorization": f"Bearer {checked('cloud_key', key, 'The cloud key')}"} if key else {}
        self._transport = transport

    def ask(self, question: Question) -> CloudOutcome:
        """Ask once and wait for the outcome, at most until the deadline."""
        return self.start(question).result()

    def start(self, question: Question) -> CloudCall:
        """Begin to ask, without waiting; the deadline runs from now."""
        return CloudCall(lambda: self._call(question), self.deadline_s)

    def _call(self, question: Question) -> CloudOutcome:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt(question)}],
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
        }
        started = time.perf_counter()
        try:
            with httpx.Client(transport=self._transport, timeout=_TIMEOUT, follow_redirects=False) as client:
                with client.stream("POST", self.endpoint, json=body, headers=self._headers) as response:
                    data = _read_capped(response)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            return CloudOutcome(CloudKind.OFFLINE, error=f"no connection to the cloud ({_plain(error)})")
        except httpx.TimeoutException as error:
            return CloudOutcome(CloudKind.TIMEOUT, error=f"the cloud stopped answering ({type(error).__name__})")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return CloudOutcome(CloudKind.TIMEOUT, error=f"the connection broke ({type(error).__name__})")
        except Exception as error:  # nothing may be lost because a library failed in a new way
            return CloudOutcome(CloudKind.UNUSABLE, error=f"the call failed ({type(error).__name__})")
        latency_ms = round((time.perf_counter() - started) * 1000, 3)
        return _sort(response, data, question, self.model, latency_ms)


class CloudCall:
    """A call under way, in a thread that is left behind when it is late.

    httpx bounds each read, not the sum, and name resolution not at all: hence the thread.
    """

    def __init__(self, call: Callable[[], CloudOutcome], deadline_s: float) -> None:
        self._deadline_s, self._ends = deadline_s, time.monotonic() + deadline_s
        self._done: SimpleQueue[CloudOutcome] = SimpleQueue()
        threading.Thread(target=lambda: self._done.put(call()), daemon=True, name="cloud-call").start()

    def result(self) -> CloudOutcome:
        """The outcome, as soon as there is one or the deadline has come; to be taken once."""
        try:
            return self._done.get(timeout=max(0.0, self._ends - time.monotonic()))
        except Empty:
            return CloudOutcome(CloudKind.TIMEOUT, error=f"the cloud gave no answer within {self._deadline_s:g} s")


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


def _sort(response: httpx.Response, data: bytes | None, question: Question, model: str, latency_ms: float) -> CloudOutcome:
    """The kind of a reply that arrived."""
    status = response.status_code
    if status in (401, 403):
        return CloudOutcome(CloudKind.REFUSED, error=f"the cloud refused the key (HTTP {status})")
    if status in (402, 429):
        return CloudOutcome(CloudKind.LIMITED, error=f"the cloud takes no more calls for now (HTTP {status})")
    if status != 200:
        return CloudOutcome(CloudKind.FAILED, error=f"the cloud answered HTTP {status}")
    if data is None:
        return CloudOutcome(CloudKind.UNUSABLE, error=f"the cloud's reply is over {MAX_REPLY_BYTES} bytes")
    try:
        payload = json.loads(data)
        reply = payload["choices"][0]["message"]["content"]
        usage = payload.get("usage") or {}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return CloudOutcome(CloudKind.UNUSABLE, error="the reply is no chat completion (a captive portal, perhaps)")
    found = find_answer(reply, question) if isinstance(reply, str) else None
    if not found:
        wanted = "says nothing" if question.kind == OPEN else "names no single option"
        return CloudOutcome(CloudKind.UNUSABLE, error=f"the cloud's reply {wanted}")
    answer = CloudAnswer(found, reply, model, latency_ms, _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"))
    return CloudOutcome(CloudKind.ANSWERED, answer)


def _read_capped(response: httpx.Response) -> bytes | None:
    """The body after decompression, or None once it is over the cap."""
    data = bytearray()
    for chunk in response.iter_bytes():
        data += chunk
        if len(data) > MAX_REPLY_BYTES:
            return None
    return bytes(data)


def _count(usage: Any, key: str) -> int | None:
    value = usage.get(key) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _plain(error: Exception) -> str:
    return str(error).split("\n")[0][:200] or type(error).__name__


def _endpoint(url: str) -> str:
    wanted = "give one like https://api.example.com/v1"
    try:
        urlsplit(url)  # knows more malformations than httpx does
        parsed = httpx.URL(url.strip())
    except (httpx.InvalidURL, ValueError) as error:
        raise BadSetting(f"The cloud URL {_shown(url)!r} is malformed; {wanted}.") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise BadSetting(f"The cloud URL {_shown(url)!r} is no http or https address; {wanted}.")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise BadSetting(f"The cloud URL at {parsed.host} carries a password, a query or a fragment; {wanted}.")
    path = parsed.path.rstrip("/")
    return str(parsed.copy_with(path=path if path.endswith("/chat/completions") else path + "/chat/completions"))


def _shown(url: str) -> str:
    """A URL for a message, without what may be a password or a key."""
    scheme, found, rest = url.rpartition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2].partition('?')[0]}"
