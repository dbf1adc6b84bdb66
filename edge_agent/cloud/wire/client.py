"""Asks a stronger model over an OpenAI-compatible `/v1/chat/completions`, and gives every outcome a kind.

Owns the HTTP call and its deadline. Knows nothing of databases or policies. Invariants: a call has an outcome by its deadline,
and no fault of the network or the cloud raises an exception; nothing is sent after the deadline; the key is sent only to the
configured host, redirects are not followed, and the key is never logged.

httpx and TLS are imported by the first call: an answer from memory needs neither, and importing them takes as long as such an
answer.
"""

from __future__ import annotations

import json
import logging
import pathlib
import re
import threading
import time
import zlib
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edge_agent.cloud.wire.reply import MAX_REPLY_BYTES, read_reply, without_key
from edge_agent.cloud.wire.request import body
from edge_agent.core.errors import BadSetting
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question
from edge_agent.core.settings import CLOUD_DEADLINE_S, checked

if TYPE_CHECKING:
    import ssl

    import httpx

AT_ONCE = 2
_READ_TIMEOUT_S, _CONNECT_TIMEOUT_S = 60.0, 5.0
_EARLIEST_PLAUSIBLE = 1_767_225_600  # 2026-01-01: an earlier date means that the device's clock was never set
_CERTIFICATE_NOT_YET_VALID, _CERTIFICATE_EXPIRED = 9, 10  # X509_V_ERR_*

logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it logs full URLs
logging.getLogger("httpcore").setLevel(logging.WARNING)  # at DEBUG it logs reply headers, which may repeat the key


class CloudModel:
    """A model behind an OpenAI-compatible endpoint.

    `url` is the base (`https://host/v1`) or the full address of `chat/completions`. `ca_file` has the certificates of a
    private authority; `proxy` is the address of an HTTP proxy. A wrong value raises `BadSetting`. At most two calls run
    at the same time. `transport` replaces httpx's own in tests.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: str | None = None,
        deadline_s: float = CLOUD_DEADLINE_S,
        transport: httpx.BaseTransport | None = None,
        ca_file: str | None = None,
        proxy: str | None = None,
    ) -> None:
        self.endpoint, self.model, self.deadline_s = _endpoint(url), model, deadline_s
        self.key = checked("cloud_key", key, "The cloud key") if key else None
        self._transport, self._proxy, self._ca_file = transport, _proxy(proxy), ca_file
        if ca_file and not pathlib.Path(ca_file).is_file():
            raise BadSetting(f"The certificate file '{ca_file}' does not exist; correct cloud_ca_file.")
        self._tls: ssl.SSLContext | None = None
        self._slots = threading.BoundedSemaphore(AT_ONCE)

    @property
    def settings(self) -> str:
        """What decides where and how a call is made, as one text; another text is another cloud. The key is not in it."""
        return json.dumps([self.endpoint, self.model, self.deadline_s, self._proxy, self._ca_file])

    def ask(self, question: Question, deadline_s: float | None = None, job_key: str | None = None) -> CloudOutcome:
        """Ask once and wait for the outcome, until the deadline at the latest. The cloud can log `job_key` (X-Client-Request-Id)."""
        return self.start(question, deadline_s, job_key).result()

    def start(self, question: Question, deadline_s: float | None = None, job_key: str | None = None) -> CloudCall:
        """Start to ask, without waiting; the deadline counts from now."""
        return CloudCall(
            lambda call: self._call(question, call, job_key), self.deadline_s if deadline_s is None else deadline_s, self._slots
        )

    def _call(self, question: Question, call: CloudCall, job_key: str | None) -> CloudOutcome:
        headers = {"Accept-Encoding": "gzip"} | ({"X-Client-Request-Id": job_key} if job_key else {})
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        started = time.perf_counter()
        try:
            with self._client() as client:
                with client.stream(
                    "POST", self.endpoint, json=body(question, self.model), headers=headers, extensions={"trace": call.trace}
                ) as response:
                    data = _read_capped(response)
            latency_ms = round((time.perf_counter() - started) * 1000, 3)
            return read_reply(response.status_code, response.headers, data, question, self.model, latency_ms, self.key)
        except Exception as error:  # an unexpected error of a library must not lose the question
            return _failure(error, self.key)

    def _client(self) -> httpx.Client:
        """A client for one call."""
        import httpx

        timeout = httpx.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
        return httpx.Client(transport=self._transport, timeout=timeout, follow_redirects=False, verify=self._context(), proxy=self._proxy)

    def _context(self) -> ssl.SSLContext:
        """The TLS context, made once: to read the authorities' certificates takes longer than a call."""
        import ssl

        import httpx

        if self._tls is None:
            self._tls = ssl.create_default_context(cafile=self._ca_file) if self._ca_file else httpx.create_ssl_context()
        return self._tls


class _TooLateError(Exception):
    """The caller no longer waits; nothing may be sent now."""


class CloudCall:
    """A running call, in a thread that is abandoned at the deadline.

    The thread is needed because httpx limits the time of each read but not of the whole call, and does not limit name
    resolution at all. A call that is abandoned before it has sent the question does not send it later.
    """

    def __init__(self, call: Callable[[CloudCall], CloudOutcome], deadline_s: float, slots: threading.BoundedSemaphore) -> None:
        self._deadline_s, self.ends_s, self._slots = deadline_s, time.monotonic() + deadline_s, slots  # `ends_s` by time.monotonic
        self._done: SimpleQueue[CloudOutcome] = SimpleQueue()
        self._lock = threading.Lock()
        self._sent = self._abandoned = False
        threading.Thread(target=self._work, args=(call,), daemon=True, name="cloud-call").start()

    def result(self) -> CloudOutcome:
        """Wait for the outcome, until the deadline at the latest. Call it once."""
        try:
            return self._done.get(timeout=max(0.0, self.ends_s - time.monotonic()))
        except Empty:
            if self.abandon():
                return CloudOutcome(CloudKind.TIMEOUT, error=f"the cloud sent no answer within {self._deadline_s:g} s")
            return CloudOutcome(CloudKind.OFFLINE, error=f"no connection to the cloud within {self._deadline_s:g} s")

    def abandon(self) -> bool:
        """Stop waiting: what was not sent yet will not be sent. Returns whether the question was already sent."""
        with self._lock:
            self._abandoned = True
            return self._sent

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Follows httpcore's progress, and stops an abandoned call before it is sent."""
        if event.endswith(".send_request_headers.started") and info["request"].method != b"CONNECT":
            with self._lock:
                if self._abandoned:
                    raise _TooLateError
                self._sent = True

    def _work(self, call: Callable[[CloudCall], CloudOutcome]) -> None:
        if not self._slots.acquire(timeout=max(0.0, self.ends_s - time.monotonic())):
            return  # the caller no longer waits
        try:
            self._done.put(call(self))
        finally:
            self._slots.release()


def _failure(error: Exception, key: str | None = None) -> CloudOutcome:
    """The outcome of a call that got no reply."""
    if isinstance(error, ImportError):
        return CloudOutcome(CloudKind.FAILED, error=f"the call failed ({without_key(key, _plain(error))}); install edge-agent again")
    import httpx

    if tls := _tls_error(error):
        return CloudOutcome(CloudKind.TLS, error=tls_message(tls))
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)):
        return CloudOutcome(CloudKind.OFFLINE, error=f"no connection to the cloud ({without_key(key, _plain(error))})")
    if isinstance(error, httpx.TimeoutException):
        return CloudOutcome(CloudKind.TIMEOUT, error=f"the cloud stopped answering ({type(error).__name__})")
    if isinstance(error, (httpx.HTTPError, httpx.InvalidURL)):
        return CloudOutcome(CloudKind.TIMEOUT, error=f"the connection broke ({type(error).__name__})")
    return CloudOutcome(CloudKind.FAILED, error=f"the call failed ({type(error).__name__})")


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    import ssl

    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None


def tls_message(error: ssl.SSLError, wall: float | None = None) -> str:
    """Why there is no secure connection, as far as this device can know; `wall` is its clock, in Unix time (default: now)."""
    wall = time.time() if wall is None else wall
    code = getattr(error, "verify_code", None)
    reason = getattr(error, "verify_message", None) or getattr(error, "reason", None) or type(error).__name__
    today = time.strftime("%Y-%m-%d", time.gmtime(wall))
    if code == _CERTIFICATE_NOT_YET_VALID or (code == _CERTIFICATE_EXPIRED and wall < _EARLIEST_PLAUSIBLE) or wall < _EARLIEST_PLAUSIBLE:
        return f"no secure connection to the cloud: the clock of this device says {today}; set the clock ({reason})"
    if code == _CERTIFICATE_EXPIRED:
        return f"no secure connection to the cloud: its certificate has expired, or this device's date ({today}) is wrong ({reason})"
    return f"no secure connection to the cloud ({reason}); the cause may be a captive portal or an unknown certificate authority"


def _read_capped(response: httpx.Response) -> bytes | None:
    """The decompressed body; None if it is larger than the limit, or in an encoding we did not ask for. Never holds more than the limit."""
    packed = response.headers.get("Content-Encoding", "identity").strip().lower()
    if packed not in ("identity", "", "gzip"):
        return None
    unpack = zlib.decompressobj(wbits=31) if packed == "gzip" else None
    data = bytearray()
    for chunk in response.iter_raw(1 << 16):
        try:
            data += unpack.decompress(chunk, MAX_REPLY_BYTES + 1 - len(data)) if unpack else chunk
        except zlib.error:
            return None
        if len(data) > MAX_REPLY_BYTES:
            return None
    return bytes(data)


def _plain(error: Exception) -> str:
    return str(error).split("\n")[0][:200] or type(error).__name__


def _endpoint(url: str) -> str:
    wanted = "write it like https://api.example.com/v1"
    if is_normal(url):
        path = url.rstrip("/")
        return path if path.endswith("/chat/completions") else path + "/chat/completions"
    import httpx

    try:
        urlsplit(url)  # finds mistakes that httpx does not
        parsed = httpx.URL(url.strip())
    except (httpx.InvalidURL, ValueError) as error:
        raise BadSetting(f"The cloud URL {_shown(url)!r} is malformed; {wanted}.") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise BadSetting(f"The cloud URL {_shown(url)!r} is not an http or https address; {wanted}.")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise BadSetting(f"The cloud URL at {parsed.host} contains a password, a query or a fragment; {wanted}.")
    path = parsed.path.rstrip("/")
    return str(parsed.copy_with(path=path if path.endswith("/chat/completions") else path + "/chat/completions"))


def is_normal(url: str) -> bool:
    """Whether httpx would leave an address as it is written, so that httpx is not needed to check it.

    False for a few more. Answers are stored under the address, so its spelling must never change.
    """
    label, start = "[a-z0-9][a-z0-9-]*", "[A-Za-z0-9_~/-]"
    match = re.fullmatch(rf"https?://({label}(?:\.{label})*)(?::([1-9][0-9]{{0,4}}))?(/{start}[A-Za-z0-9_~./-]*|/)?", url)
    if not match:
        return False
    host, port, path = match.groups()
    is_name = re.search(r"[a-z]", host) is not None and "xn--" not in host
    has_port = port is None or (port not in ("80", "443") and int(port) <= 65_535)
    return (is_name or host == "127.0.0.1") and has_port and not re.search(r"/\.|//", path or "")


def _proxy(url: str | None) -> str | None:
    if url is None:
        return None
    parsed = urlsplit(url.strip())
    if parsed.scheme not in ("http", "https") or not parsed.hostname:
        raise BadSetting(f"The proxy {_shown(url)!r} is not an http address; write it like http://proxy.example.com:3128.")
    return url.strip()


def _shown(url: str) -> str:
    """A URL for a message, without the parts that may be a password or a key."""
    scheme, found, rest = url.rpartition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2].partition('?')[0]}"
