"""Asks a stronger model by chat (`/v1/chat/completions`) or for a typed decision, and gives every outcome a kind.

Owns the HTTP call. `call.py` ends it in time; `request.py` knows its form and `reply.py` what came back, `typed/` both for typed
decisions. Knows nothing of databases or policies. Invariants: a call has an outcome by its deadline, and no fault of the network,
the cloud or this device raises an exception; the key and the extra headers go to the configured host only, redirects are not
followed, and neither is ever logged or stored, not even when a reply repeats it; of the environment only SSL_CERT_FILE and
SSL_CERT_DIR count.

httpx and TLS are imported by the first call: an answer from memory needs neither, and importing them takes as long as such an
answer.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edge_agent.cloud.wire.address import address_of, chat_path, is_normal, shown
from edge_agent.cloud.wire.call import CloudCall
from edge_agent.cloud.wire.fault import first_line, own_fault, tls_error, tls_message
from edge_agent.cloud.wire.reply import MAX_REPLY_BYTES, read_reply
from edge_agent.cloud.wire.request import MOST_SENDS, Shape, body, known_after, learn
from edge_agent.cloud.wire.secret import Secrets
from edge_agent.cloud.wire.typed.reply import read_typed_reply
from edge_agent.cloud.wire.typed.request import AUTO, CHAT, NEXT, SYSTEMONE, typed_body
from edge_agent.core.config import network
from edge_agent.core.config.settings import CLOUD_DEADLINE_S, checked
from edge_agent.core.errors import BadSetting
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question

if TYPE_CHECKING:
    import ssl

    import httpx

AT_ONCE = 2
_TIMES_USUAL = 2  # of the usual time are left where a call is worth sending late
_READ_TIMEOUT_S, _CONNECT_TIMEOUT_S = 60.0, 5.0
_VALID = (CloudKind.ANSWERED, CloudKind.PROVISIONAL, CloudKind.UNUSABLE, CloudKind.REJECTED)  # only the real cloud replies like this

logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it logs full URLs
logging.getLogger("httpcore").setLevel(logging.WARNING)  # at DEBUG it logs reply headers, which may repeat the key


class CloudModel:
    """A model behind an OpenAI-compatible endpoint.

    `url` is the base (`https://host/v1`) or the full address of one of its APIs. `ca_file` has the certificates of a
    private authority (without it SSL_CERT_FILE and SSL_CERT_DIR of `environment` count); `proxy` is the address of an HTTP proxy.
    `api` is how questions with options are asked (chat, systemone or decisions); with auto, by chat until `shape` says otherwise, and
    by the next API in the same call if the cloud stops offering one. Open questions are always asked by chat.
    `wanted` is the form of a request, and `shape` the form after what replies have taught. `headers` are sent with each request.
    A wrong value raises `BadSetting`. At most two calls run at the same time. `transport` replaces httpx's own in tests.
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
        wanted: Shape | None = None,
        headers: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        api: str = CHAT,
    ) -> None:
        self.endpoint, self.model, self.deadline_s = _endpoint(url), model, deadline_s
        self.key = checked("cloud_key", key, "The cloud key") if key else None
        self.is_auto = checked("cloud_api", api, "The cloud's API") == AUTO
        self.wanted = self.shape = replace(wanted or Shape(), api=CHAT if self.is_auto else api)
        self._headers = _headers(headers, self.key)
        self._transport, self._ca_file = transport, ca_file
        self._proxy = network.proxy_address(proxy, "cloud_proxy") if proxy is not None else None
        self._environment = os.environ if environment is None else environment
        self._secrets = Secrets(self.key, headers or {}, self._proxy)
        if ca_file:
            network.check_certificate_file(ca_file, "cloud_ca_file")
        elif self._needs_tls:
            network.certificates(self._environment)
        self._tls: ssl.SSLContext | None = None
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self._usual_s = math.inf  # how long the last call took that brought a reply; not known after one that brought none

    @property
    def settings(self) -> str:
        """What decides whether the cloud answers, as one text; another text is another cloud. Secret, though the key is not in it.

        How long a call may take, and through which proxy, is not in it: processes of one device may differ in both.
        """
        headers = sorted(self._headers.items())
        api = [] if self.wanted.api == CHAT else [self.wanted.api]
        return json.dumps([self.endpoint, self.model, self._ca_file, repr(self.wanted), repr(headers), *api])

    def api_for(self, question: Question) -> str:
        """The API by which a question would be asked now."""
        return self.shape.api if question.options else CHAT

    def ask(self, question: Question, deadline_s: float | None = None, job_key: str | None = None) -> CloudOutcome:
        """Ask once and wait for the outcome, until the deadline at the latest. The cloud can log `job_key` (X-Client-Request-Id)."""
        return self.start(question, deadline_s, job_key).result()

    def start(
        self,
        question: Question,
        deadline_s: float | None = None,
        job_key: str | None = None,
        shape: Shape | None = None,
        again: Callable[[Shape], bool] = lambda shape: True,
        only_this_api: bool = False,
    ) -> CloudCall:
        """Start to ask, without waiting; the deadline counts from now.

        If a reply asks for another form of request than `shape`, or `api` is auto and the cloud does not offer the API of `shape` (any
        more), the question is sent again in the same call, once `again` has agreed to that form; it is called in another thread. With
        `only_this_api`, no other API is tried. What the call teaches for the next question is in `self.shape`.
        """
        first = shape or self.shape
        first = first if question.options else replace(first, api=CHAT)
        return CloudCall(
            lambda call: self._secrets.removed(self._call(call, question, job_key, first, again, only_this_api)),
            self.deadline_s if deadline_s is None else deadline_s,
            self._slots,
            lambda: _TIMES_USUAL * self._usual_s,
        )

    def _call(
        self, call: CloudCall, question: Question, job_key: str | None, first: Shape, again: Callable[[Shape], bool], only_this_api: bool
    ) -> CloudOutcome:
        headers = {**self._headers, "Accept-Encoding": "gzip"} | ({"X-Client-Request-Id": job_key} if job_key else {})
        tried: list[tuple[Shape, CloudOutcome]] = []
        shape, started_s = first, time.monotonic()
        try:
            with self._client(call) as client:
                while True:
                    outcome, mended = self._send(client, call, question, shape, headers, only_this_api)
                    tried.append((shape, outcome))
                    self._usual_s = time.monotonic() - started_s
                    if (last := mended or shape) != first:
                        self.shape = known_after(self.shape, last, is_answered=outcome.has_answered)
                    is_other_api = shape.api != first.api and all(ended.no_api for form, ended in tried if form.api != shape.api)
                    if is_other_api and outcome.kind in _VALID:
                        self.shape = replace(self.shape, api=shape.api)
                    if mended is None or sum(form.api == mended.api for form, _ in tried) >= MOST_SENDS or not call.left_s:
                        return outcome
                    if any(form.api == mended.api for form, _ in tried) and mended.api != shape.api:
                        return _said_most(tried)
                    if earlier := [ended for form, ended in tried if form == mended]:  # it was cut, and a longer one is refused
                        return earlier[0] if earlier[0].kind is CloudKind.UNUSABLE else outcome
                    if not again(mended):
                        if outcome.no_api:  # the next question starts with the other API
                            self.shape = replace(self.shape, api=mended.api)
                        if outcome.kind is CloudKind.UNUSABLE:  # it was cut: the next question starts with the higher limit
                            self.shape = known_after(self.shape, mended, is_answered=True)
                        return CloudOutcome(CloudKind.PAUSED, error="the budget for the cloud is used up for now", over_budget=True)
                    shape = mended
        except Exception as error:  # an unexpected error of a library must not lose the question
            self._usual_s = math.inf
            return _failure(error, call.was_sent or self._transport is not None)

    def _send(
        self, client: httpx.Client, call: CloudCall, question: Question, shape: Shape, headers: Mapping[str, str], only_this_api: bool
    ) -> tuple[CloudOutcome, Shape | None]:
        """Send a question once; returns the outcome, and the form in which the reply wants it instead, if it does."""
        started = time.perf_counter()
        is_chat, extensions = shape.api == CHAT, {"trace": call.trace}
        asked = body(question, self.model, shape) if is_chat else typed_body(question, self.model, shape.api)
        address = address_of(self.endpoint, shape.api)
        with client.stream("POST", address, json=asked, headers=headers, extensions=extensions) as response:
            data = _read_capped(response)
        latency_ms = round((time.perf_counter() - started) * 1000, 3)
        data = None if data is None else self._secrets.removed_from(data)
        about = self.model, latency_ms, self.key, self._secrets.words
        if is_chat:
            outcome = read_reply(response.status_code, response.headers, data, question, *about)
            if not outcome.has_answered and (learned := learn(shape, response.status_code, data)):
                return outcome, learned
        else:
            outcome = read_typed_reply(response.status_code, response.headers, data, question, shape.api, *about)
        may_move = self.is_auto and not only_this_api and bool(question.options)
        api = _next_api(shape.api, outcome) if may_move else None
        return outcome, replace(shape, api=api) if api else None

    def _client(self, call: CloudCall) -> httpx.Client:
        """A client for one call."""
        import httpx

        timeout = httpx.Timeout(min(_READ_TIMEOUT_S, call.left_s), connect=min(_CONNECT_TIMEOUT_S, call.left_s))
        is_secure = self._proxy is not None and self._proxy.startswith("https://")
        proxy = httpx.Proxy(self._proxy, ssl_context=self._context() if is_secure else None) if self._proxy else None
        return httpx.Client(
            transport=self._transport,
            timeout=timeout,
            limits=httpx.Limits(max_keepalive_connections=0),  # a server may close one just as the question is sent again
            follow_redirects=False,
            verify=self._context(),
            proxy=proxy,
            trust_env=False,
        )

    @property
    def _needs_tls(self) -> bool:
        return any(address is not None and address.startswith("https://") for address in (self.endpoint, self._proxy))

    def _context(self) -> ssl.SSLContext:
        """The TLS context, made once: to read the authorities' certificates takes longer than a call. Raises `BadSetting`."""
        import ssl

        if self._tls is None and self._needs_tls:
            own = network.Certificates(self._ca_file, source="cloud_ca_file") if self._ca_file else None
            self._tls = network.tls_context(own or network.certificates(self._environment))
        return self._tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without TLS, one that trusts nobody


def _next_api(api: str, outcome: CloudOutcome) -> str | None:
    """The API by which the same question is worth asking after this outcome; None if there is none.

    Without an answer to expect by this API, the next one is tried, in a circle. One that cannot answer this question alone, and of which
    nobody says that it is missing, is replaced by chat, which can ask everything.
    """
    if outcome.no_api:
        return NEXT.get(api, SYSTEMONE)
    if api == CHAT:
        return None
    return NEXT[api] if outcome.kind is CloudKind.MISCONFIGURED else CHAT if outcome.bad_form else None


def _said_most(tried: list[tuple[Shape, CloudOutcome]]) -> CloudOutcome:
    """Of outcomes by several APIs, the last of which is missing: the first that says more than that, otherwise chat's."""
    found = next((ended for _, ended in tried if not ended.no_api), None)
    return found or next((ended for form, ended in tried if form.api == CHAT), tried[-1][1])


def _failure(error: Exception, was_sent: bool) -> CloudOutcome:
    """The outcome of a call that got no reply."""
    if not was_sent and (fault := own_fault(error)):
        return CloudOutcome(CloudKind.DEVICE, error=f"{fault}; nothing was sent to the cloud")
    import httpx

    if tls := tls_error(error):
        return CloudOutcome(CloudKind.TLS, error=tls_message(tls))
    never_sent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError))
    if never_sent or (not was_sent and isinstance(error, httpx.HTTPError)):  # also a proxy that breaks off
        return CloudOutcome(CloudKind.OFFLINE, error=f"no connection to the cloud ({first_line(error)})")
    if isinstance(error, httpx.TimeoutException):
        return CloudOutcome(CloudKind.TIMEOUT, error=f"the cloud stopped answering ({type(error).__name__})")
    if isinstance(error, (httpx.HTTPError, httpx.InvalidURL)):
        return CloudOutcome(CloudKind.TIMEOUT, error=f"the connection broke ({type(error).__name__})")
    return CloudOutcome(CloudKind.FAILED, error=f"the call failed ({type(error).__name__})")


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


def _endpoint(url: str) -> str:
    wanted = "write it like https://api.example.com/v1"
    if is_normal(url):
        return chat_path(url)
    import httpx

    try:
        urlsplit(url)  # finds mistakes that httpx does not
        parsed = httpx.URL(url.strip())
    except (httpx.InvalidURL, ValueError) as error:
        raise BadSetting(f"The cloud URL {shown(url)!r} is malformed; {wanted}.") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise BadSetting(f"The cloud URL {shown(url)!r} is not an http or https address; {wanted}.")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise BadSetting(f"The cloud URL at {parsed.host} contains a password, a query or a fragment; {wanted}.")
    return str(parsed.copy_with(path=chat_path(parsed.path)))


def _headers(extra: Mapping[str, str] | None, key: str | None) -> dict[str, str]:
    """The headers of every request, checked."""
    headers: dict[str, str] = dict(checked("cloud_extra_headers", extra or {}, "cloud_extra_headers"))
    if not key:
        return headers
    if any(name.lower() == "authorization" for name in headers):
        raise BadSetting("cloud_extra_headers has an Authorization, and there is a cloud key, which is sent under that name; remove one.")
    return {**headers, "Authorization": f"Bearer {key}"}
