"""One connection of a client: its deadlines, how many there may be, and the answer to bytes that are not HTTP.

Owns the limits that uvicorn lacks: it has no deadline for a request that arrives slowly, and it answers bad bytes in plain text.
Invariants: a connection without a complete request ends by itself, and makes room for a new one when there are too many; every answer
is JSON; nothing that a client sends reaches a log.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge_agent.server import faults

ARRIVAL_S = 10.0  # from the first byte of a request to its last, and from a connection to its first request
WRITE_S = 30.0  # for a client that does not read its reply
MOST = 416  # connections at once: more than may wait, stream or work; fewer where the process may open fewer files
MOST_REFUSED = 64  # connections beyond those that get a 503; more are closed
FILES = 1024  # open files that are enough for these connections and everything else
WAITING = 1024  # connections that the system holds until they are accepted
_OWN_FILES = 48  # the model, the database, the cloud and a little to spare
_MOST_ACCEPTED = 16  # in one turn of the event loop
_TURNS = 4  # from accepting a connection to the end of one that is too many: its task, its protocol, its abort, its last call
MOST_WEBSOCKETS = 32
_MOST_DISCARDED_BYTES = 1 << 20  # of a body whose request is already refused
# The WebSocket library neither answers nor closes where a request has more than this, or other characters in a header.
_MOST_UPGRADE_HEADERS, _MOST_UPGRADE_HEADER_BYTES = 64, 4096
_UPGRADE_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_WAITS_FOR_CLIENT = (h11.IDLE, h11.SEND_BODY)


def accepted(n_files: int) -> int:
    """How many connections to accept in one turn of the event loop, which counts them only some turns later."""
    return max(1, min(_MOST_ACCEPTED, n_files // 32))


def room(n_files: int) -> tuple[int, int]:
    """How many connections to hold, and how many more to refuse with a 503, for a process that may open so many files."""
    left = max(n_files - _OWN_FILES - _TURNS * accepted(n_files), 16)
    refused = min(MOST_REFUSED, left // 4)
    return min(MOST, left - refused), refused


class HttpConnection(H11Protocol):
    """uvicorn's connection with deadlines and bounds; `most` and `most_refused` are those of this process (`room`)."""

    most, most_refused = MOST, MOST_REFUSED

    _deadline: asyncio.TimerHandle | None = None
    _write_deadline: asyncio.TimerHandle | None = None
    _n_discarded = 0
    _is_handed_over = False  # to a WebSocket, which has its own deadlines
    _since = 0.0  # when it began to wait for its client

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start; if there are too many, end the one that has waited longest for its client."""
        super().connection_made(transport)
        if len(self.connections) > self.most and not self._take_place():
            self._be_busy()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End, with all timers."""
        self._stop_watching()
        self.resume_writing()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        """Take bytes of the client."""
        if self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY:
            self._n_discarded += len(data)
            if self._n_discarded > _MOST_DISCARDED_BYTES:
                self.transport.abort()
                return
        super().data_received(data)
        if not self._is_handed_over:
            self._watch()

    def pause_writing(self) -> None:
        """The client reads too slowly: end the connection if that goes on."""
        super().pause_writing()
        self._write_deadline = self.loop.call_later(WRITE_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not HTTP; uvicorn calls it while it handles the error."""
        status = getattr(sys.exc_info()[1], "error_status_hint", 400)
        if status == 431:
            self._end(431, "headers_too_large", "The request's line or headers are too long; send less.")
        elif status == 501:
            self._end(501, "unknown_transfer_encoding", "Only Transfer-Encoding: chunked is understood.")
        else:
            self._end(400, "not_http", "The request is not valid HTTP.")

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over to the WebSocket."""
        self._stop_watching()
        self._is_handed_over = True
        super().handle_websocket_upgrade(event)

    def _should_upgrade(self) -> bool:
        """Whether a request begins a WebSocket. One that the library could not take is answered as a plain request."""
        names = {name for name, _ in self.headers}
        return (
            self.scope["method"] == "GET"
            and self.scope["http_version"] == "1.1"
            and not names & {b"content-length", b"transfer-encoding"}
            and len(self.headers) <= _MOST_UPGRADE_HEADERS
            and len(self.scope["raw_path"] + self.scope["query_string"]) <= _MOST_UPGRADE_HEADER_BYTES
            and all(len(name + value) <= _MOST_UPGRADE_HEADER_BYTES and _UPGRADE_VALUE.fullmatch(value) for name, value in self.headers)
            and super()._should_upgrade()
            and self._has_place_for_websocket()
        )

    def _has_place_for_websocket(self) -> bool:
        """Whether one more may be open; if not, the request is answered 503, and the connection ends."""
        if sum(not isinstance(one, HttpConnection) for one in self.connections) < MOST_WEBSOCKETS:
            return True
        self._be_busy()
        return False

    def _take_place(self) -> bool:
        """End the connection that waits for its client longest; False if all are at work or there are far too many."""
        waiting = [one for one in self.connections if isinstance(one, HttpConnection) and one is not self and one.waits_for_client]
        if not waiting:
            if len(self.connections) > self.most + self.most_refused:
                self.transport.abort()
            return False
        oldest = min(waiting, key=lambda one: one._since)
        self.connections.discard(oldest)
        oldest.transport.abort()
        return True

    @property
    def waits_for_client(self) -> bool:
        """Whether no whole request is here."""
        return self.conn.their_state in _WAITS_FOR_CLIENT

    def _watch(self) -> None:
        """Start the deadline when a request begins to arrive, and end it when it is whole."""
        if not self.waits_for_client:
            self._stop_watching()
        elif self._deadline is None and not self.transport.is_closing():
            self._since = self.loop.time()
            self._deadline = self.loop.call_later(ARRIVAL_S, self._too_slow)

    def _stop_watching(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._n_discarded = 0

    def _too_slow(self) -> None:
        if self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self.transport.close()
        else:
            self._end(408, "too_slow", f"The request did not arrive within {ARRIVAL_S:g} s; send it faster.")

    def _end(self, status: int, code: str, message: str) -> None:
        """Answer if nothing was answered yet, and close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            is_known = self.cycle is not None and not self.cycle.response_complete
            reply = faults.reply(self.scope["path"] if is_known else "", status, code, message, headers=faults.ON_EVERY_REPLY)
            self._count(status)
            headers = [*self.server_state.default_headers, *reply.raw_headers, (b"connection", b"close")]
            for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=bytes(reply.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _be_busy(self) -> None:
        """Answer the next request with 503, and end."""

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            self._count(503)
            await _busy(scope, receive, send)

        self.app = counted

    def _count(self, status: int) -> None:
        """Count a reply that the app does not give."""
        app: Any = self.config.loaded_app
        app.replied_before_app("connection", status)


async def _busy(scope: Any, receive: Any, send: Any) -> None:
    headers = {**faults.ON_EVERY_REPLY, "Connection": "close"}
    await faults.reply(scope["path"], 503, "server_busy", "The server has too many connections of this kind; come again.", headers=headers)(
        scope, receive, send
    )
