"""What every request must satisfy: it names this server, no page of another site sent it, and it has the right token.

Owns these checks for every route alike, as ASGI middleware, and the headers of every reply. Knows nothing about questions. Invariants:
no reply can be framed, sniffed or cached, or read by a page of another site; an exception in the app ends the request, never more.
"""

from __future__ import annotations

import logging
from urllib.parse import unquote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from edge_agent.server import faults
from edge_agent.server.access import Access
from edge_agent.server.door import body
from edge_agent.server.door.callers import Caller, Callers
from edge_agent.server.faults import Refusal

MAX_HEADERS_BYTES = 16 << 10
MAX_TARGET_BYTES = 2048  # path and query
PAGES = ("/", "/operator")
REFUSED = "edge_agent.refused"  # in the scope of a request that the guard refused
_log = logging.getLogger("edge_agent")


class Guard:
    """Passes good requests on to `app`; refuses the others in the shape of the API that they called."""

    def __init__(self, app: ASGIApp, access: Access, callers: Callers) -> None:
        self.app, self._access, self._callers = app, access, callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        given, headers, guarded = scope, Headers(scope=scope), _guarded(send)
        try:
            scope = self._checked(scope, headers)
            if scope["type"] == "http":
                receive = await body.whole(headers, receive)
        except Refusal as refusal:
            # A client that waits for `100 Continue` may send no body now, and then its next request would be read as one.
            extra = {**refusal.headers, "Connection": "close"} if "expect" in headers else refusal.headers
            reply = faults.reply(scope["path"], refusal.status, refusal.code, str(refusal), refusal.param, extra)
            given[REFUSED] = True
            await reply(scope, receive, guarded)
            return
        except ConnectionError:  # the client is gone
            return
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope, receive, guarded = _as_get(scope, receive, guarded)
        try:
            await self.app(scope, receive, guarded if scope is given else _telling(scope, given, guarded))
        except WebSocketDisconnect:
            pass
        except Exception as error:  # a reply was sent, if none had begun; otherwise uvicorn closes the connection
            _log.error("edge-agent: a request failed", exc_info=error)

    def _checked(self, scope: Scope, headers: Headers) -> Scope:
        """The request, with only a path as its target. Raises `Refusal` for what its start shows."""
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADERS_BYTES:
            raise Refusal(431, "headers_too_large", f"The headers have more than {MAX_HEADERS_BYTES} bytes; send fewer.")
        if "content-length" in headers and "transfer-encoding" in headers:  # a gateway before us may see another end of the body
            raise Refusal(
                400, "two_lengths", "Content-Length and Transfer-Encoding contradict each other; send one.", headers={"Connection": "close"}
            )
        if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_TARGET_BYTES:
            raise Refusal(414, "target_too_long", f"The path and query have more than {MAX_TARGET_BYTES} bytes; send a body instead.")
        hosts = headers.getlist("host")
        scope, named = _in_origin_form(scope)
        for host in (hosts[0] if len(hosts) == 1 else "", *named):
            if not self._access.allows_host(host, *(scope.get("server") or ("", 0))):
                message = f"The Host {host!r:.100} is not a name of this server; use its address, or add it to serve_hosts."
                raise Refusal(403, "host_not_allowed", message)
        if not self._may_come_from(headers, hosts[0]) and not _opens_page(scope, headers):
            message = "A page of another site may not call this server; serve the page and this server under one name, by a gateway."
            raise Refusal(403, "origin_not_allowed", message)
        caller = self._callers.of(scope["path"])
        if not (caller is Caller.CLIENT and self._is_own_screen(scope, headers, hosts[0])):
            self._check_token(caller, headers.getlist("authorization"))
        return scope

    def _is_own_screen(self, scope: Scope, headers: Headers, host: str) -> bool:
        """Whether the page on this device's screen asks what it asks."""
        client, address = scope.get("client") or ("", 0), scope.get("server") or ("", 0)
        return self._callers.is_of_the_page(scope["path"]) and self._access.is_own_screen(client[0], address[0], host, headers.keys())

    def _may_come_from(self, headers: Headers, host: str) -> bool:
        """Whether no page of another site sent the request. Programs send neither of these headers."""
        if any(site.lower() not in ("none", "same-origin") for site in headers.getlist("sec-fetch-site")):
            return False
        origins = headers.getlist("origin")
        return not origins or (len(origins) == 1 and self._access.allows_origin(origins[0], host))

    def _check_token(self, caller: Caller, sent: list[str]) -> None:
        token = sent[0] if len(sent) == 1 else None
        if caller is Caller.CLIENT and not self._access.is_client(token):
            raise _unauthorized("The token is wrong" if sent else "This request needs a token")
        if caller is Caller.OPERATOR and not self._access.is_operator(token):
            if self._access.token is not None and self._access.is_client(token):
                raise Refusal(403, "operator_only", "A client's token may not do this; it needs the operator's token.")
            if self._access.operator_token is None:
                raise _unauthorized("This is for the operator, and the server has no operator's token: start it with --operator-token-file")
            raise _unauthorized("The token is wrong" if sent else "This request needs the operator's token")


def _opens_page(scope: Scope, headers: Headers) -> bool:
    """Whether a browser opens one of our pages in its window, from wherever: the pages hold no data, and none can be framed."""
    wanted = ("sec-fetch-mode", "sec-fetch-dest")
    is_visit = [headers.getlist(name) for name in wanted] == [["navigate"], ["document"]]
    return is_visit and scope["type"] == "http" and scope["method"] == "GET" and scope["path"] in PAGES and not headers.getlist("origin")


def _in_origin_form(scope: Scope) -> tuple[Scope, list[str]]:
    """The request with only a path as its target, and the host that the target named: a proxy's client sends a whole URL."""
    target = scope["raw_path"].decode("ascii", "replace")
    scheme, separator, rest = target.partition("://")
    if scheme.lower() not in ("http", "https") or not separator:
        return scope, []
    host, _, path = rest.partition("/")
    return {**scope, "path": unquote("/" + path), "raw_path": b"/" + path.encode()}, [host]


def _as_get(scope: Scope, receive: Receive, send: Send) -> tuple[Scope, Receive, Send]:
    """A HEAD as a GET whose body nobody sees: it ends at its first byte, so a stream ends, too."""
    ended = False

    async def received() -> Message:
        return {"type": "http.disconnect"} if ended else await receive()

    async def sending(message: Message) -> None:
        nonlocal ended
        if ended:
            return
        ended = message["type"] == "http.response.body"
        await send({**message, "body": b"", "more_body": False} if ended else message)

    return {**scope, "method": "GET"}, received, sending


def _telling(scope: Scope, given: Scope, send: Send) -> Send:
    """Write the route that the app finds into the scope that was `given`, too, before the reply begins."""

    async def sending(message: Message) -> None:
        if "route" in scope:
            given["route"] = scope["route"]
        await send(message)

    return sending


def _unauthorized(why: str) -> Refusal:
    message = f"{why}; send it as 'Authorization: Bearer TOKEN'."
    return Refusal(401, "invalid_api_key", message, headers={"WWW-Authenticate": "Bearer"})


def _guarded(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            headers = MutableHeaders(scope=message)
            for name, value in faults.ON_EVERY_REPLY.items():
                headers.setdefault(name, value)
        await send(message)

    return sending
