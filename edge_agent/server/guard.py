"""What a request must be before any of our code sees it: from an allowed page, to an allowed name, in time, and of bounded size.

Owns these limits, for every route alike, as ASGI middleware. Knows nothing about questions. Invariants: the body that the app gets is
complete, at most `MAX_BODY_BYTES` long, and JSON that any parser reads the same way; no reply can be framed, sniffed or cached.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders

from edge_agent.server import faults
from edge_agent.server.access import Access
from edge_agent.server.faults import Refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY_BYTES = 64 << 10
MAX_HEADERS_BYTES = 16 << 10
MAX_QUERY_BYTES = 2048
MAX_DEPTH = 32  # of arrays and objects inside each other
BODY_TIMEOUT_S = 10.0
_OPEN = ("/health",)  # needs no token: a balancer or a container asks it
_OPERATOR = ("/metrics", "/edge/queue")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Passes good requests on to `app`; refuses the others in the shape of the API that they called."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
            if scope["type"] == "http":
                receive = await _whole(scope, receive)
        except Refusal as refusal:
            await self._refuse(scope, receive, send, refusal)
            return
        except ConnectionError:  # the client is gone
            return
        await self._app(scope, receive, _guarded(send))

    def _check(self, scope: Scope) -> None:
        """Raise `Refusal` for what the start of a request shows."""
        headers = Headers(scope=scope)
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADERS_BYTES:
            raise Refusal(431, "headers_too_large", f"The headers have more than {MAX_HEADERS_BYTES} bytes; send fewer.")
        if len(scope.get("query_string", b"")) > MAX_QUERY_BYTES:
            raise Refusal(414, "query_too_long", f"The query has more than {MAX_QUERY_BYTES} bytes; send a body instead.")
        if not self._is_ours(scope, headers):
            raise Refusal(
                403, "host_not_allowed", "This server is not called by this name; use its address, or add the name to serve_hosts."
            )
        if not self._may_come_from(scope, headers):
            raise Refusal(403, "origin_not_allowed", "A page of another site may not call this server.")
        path, authorization = scope["path"], headers.get("authorization")
        if not any(path == known or path.startswith(known + "/") for known in _OPERATOR):
            if path not in _OPEN and not self._access.is_client(authorization):
                raise _unauthorized("a token" if authorization is None else "another token")
        elif not self._access.is_operator(authorization):
            raise _unauthorized("the operator's token (operator_token_file)")

    def _is_ours(self, scope: Scope, headers: Headers) -> bool:
        """Whether exactly one Host header has a name and port of ours."""
        server = scope.get("server") or ("", 0)
        hosts = headers.getlist("host")
        return len(hosts) == 1 and self._access.allows_host(hosts[0], server[1])

    def _may_come_from(self, scope: Scope, headers: Headers) -> bool:
        """Whether no page of another site sent the request. Programs send neither of these headers."""
        if headers.get("sec-fetch-site", "none").lower() not in ("none", "same-origin"):
            return False
        origins = headers.getlist("origin")
        if not origins:
            return True
        try:
            parts = urlsplit(origins[0])
            host = parts.netloc
        except ValueError:
            return False
        return len(origins) == 1 and parts.scheme in ("http", "https") and host.lower() == headers.get("host", "").lower()

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": str(refusal)[:100]})
            return
        headers = {**refusal.headers, "Connection": "close"} if refusal.status in (408, 413) else refusal.headers
        reply = faults.reply(scope["path"], refusal.status, refusal.code, str(refusal), refusal.param, headers)
        await reply(scope, receive, _guarded(send))


def _unauthorized(needed: str) -> Refusal:
    message = f"This request needs {needed}; send it as 'Authorization: Bearer TOKEN'."
    return Refusal(401, "invalid_api_key", message, headers={"WWW-Authenticate": "Bearer"})


def _guarded(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending


async def _whole(scope: Scope, receive: Receive) -> Receive:
    """Read the body before the app does. Raises `Refusal`, and ConnectionError if the client goes away."""
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return receive
    headers = Headers(scope=scope)
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise _too_large()
    try:
        data = await asyncio.wait_for(_read(receive), BODY_TIMEOUT_S)
    except TimeoutError as error:
        raise Refusal(408, "body_too_slow", f"The body did not arrive within {BODY_TIMEOUT_S:g} s; send it faster.") from error
    if data:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refusal(415, "not_json", f"The content type is '{kind:.50}'; send the body as application/json.")
        check_json(data)
    first: list[Message] = [{"type": "http.request", "body": data, "more_body": False}]

    async def received() -> Message:
        return first.pop() if first else await receive()

    return received


async def _read(receive: Receive) -> bytes:
    data = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        data += message.get("body", b"")
        if len(data) > MAX_BODY_BYTES:
            raise _too_large()
        if not message.get("more_body"):
            return bytes(data)


def _too_large() -> Refusal:
    return Refusal(413, "body_too_large", f"The body has more than {MAX_BODY_BYTES} bytes; send less.")


def check_json(data: bytes) -> None:
    """Raise `Refusal` unless these bytes are JSON in UTF-8, without NaN, huge numbers, or more than `MAX_DEPTH` levels."""
    try:
        text = data.decode("utf-8")
        if deepest(text) > MAX_DEPTH:
            raise Refusal(400, "too_deep", f"The body has more than {MAX_DEPTH} arrays and objects inside each other.")
        json.loads(text, parse_constant=_no_constant)
        text.encode("utf-8")
    except UnicodeDecodeError as error:
        raise Refusal(400, "not_utf8", f"The body is not UTF-8 (byte {error.start}); check its encoding.") from error
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "not_json", "The body is not JSON; check it with a JSON parser.") from error


def deepest(text: str) -> int:
    """How many arrays and objects a JSON text has inside each other at its deepest point."""
    depth = most = 0
    in_string = is_escaped = False
    for c in text:
        if in_string:
            in_string = is_escaped or c != '"'
            is_escaped = c == "\\" and not is_escaped
        elif c == '"':
            in_string = True
        elif c in "[{":
            depth += 1
            most = max(most, depth)
        elif c in "]}":
            depth -= 1
    return most


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
