"""Runs the server: listens, answers until SIGTERM or SIGINT, then finishes what is under way.

Owns the socket and the life of the process. Invariant: when it ends, every answer that a client got is stored, and the model and the
database are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol
from urllib.parse import urlsplit

import uvicorn

from edge_agent.agent.agent import Agent
from edge_agent.core.config.settings import Settings
from edge_agent.core.errors import BadSetting
from edge_agent.core.routing import PolicyName
from edge_agent.server import notify
from edge_agent.server.access import Access, in_url
from edge_agent.server.app import build
from edge_agent.server.door import body, log
from edge_agent.server.door.connection import FILES, WAITING, HttpConnection, accepted, room
from edge_agent.server.kiosk.deck import Kiosk
from edge_agent.server.service import Service

GRACE_S = 30  # for questions under way when the server is told to stop: longer than a cloud call may take
_REPLY_S = 5  # for clients to read their replies after that
_LOOK_EVERY_S = 0.05  # for questions that are still under way
_KEEP_ALIVE_S = 15


class StartReport(Protocol):
    """What the person or the program that starts the server is told."""

    def warning(self, text: str) -> None:
        """The server starts, but something in its settings is probably a mistake, or its model is new."""

    def listening(self, url: str) -> None:
        """The server listens, and does not answer questions yet."""

    def ready(self, facts: dict[str, Any]) -> None:
        """The model is open. `facts` has `url`, `model`, `cloud` (its host, or None), `policy`, and whether there are tokens."""


def serve(settings: Settings, told: StartReport) -> None:
    """Serve until the process is told to stop.

    Raises `BadSetting` for an address that cannot be served, and what `Agent.open` raises, before anything is answered.
    """
    access = Access.of(settings)
    if warning := _lacks_cloud(settings):
        told.warning(warning)
    with _listening(settings.serve_host, settings.serve_port) as listener:
        agent = Agent.open(settings)
        try:
            if agent.unproven:  # a model that the kernel kills for its memory cannot say this itself
                told.warning(agent.unproven)
            service = Service(agent, Kiosk.of(settings, agent.profile.question_kind))
        except BaseException:
            agent.close()
            raise
        try:
            server = _Server(_config(service, access, settings), service)
            service.hang_up = server.hang_up
            service.start()
            host, port = listener.getsockname()[:2]
            url = f"http://{in_url(host)}:{port}"
            told.listening(url)
            _when_ready(service, server, lambda: told.ready(_facts(url, settings, service.agent, access)))
            server.run([listener])
        finally:
            service.close()
        if service.failed is not None:
            raise service.failed
        if server.was_interrupted:
            raise KeyboardInterrupt


class _Server(uvicorn.Server):
    """uvicorn, which tells systemd that it lives, finishes what is under way, and ends without a signal.

    uvicorn stops listening at once, and raises the signal that stopped it once more, which would end the process before the agent is
    closed. This one keeps answering, new questions with 503, until the questions under way are finished.
    """

    was_interrupted = False
    _beats_at = 0.0

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; asyncio takes as many connections in one turn as its backlog, which must be few, and the system may hold more."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(WAITING)

    async def on_tick(self, counter: int) -> bool:
        """Beat systemd's watchdog, from the loop that answers: a loop that hangs is silent. uvicorn calls this ten times a second."""
        every_s, now = notify.watchdog_every_s(), time.monotonic()
        if every_s is not None and now >= self._beats_at:
            notify.beat()
            self._beats_at = now + every_s
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish questions under way; refuse new ones; end streams at once."""
        notify.stopping()
        self._service.stop_taking()
        ends = time.monotonic() + GRACE_S
        while self._service.n_at_work and not self.force_exit and time.monotonic() < ends:
            await asyncio.sleep(_LOOK_EVERY_S)
        await super().shutdown(sockets)

    def hang_up(self, client: tuple[str, int]) -> None:
        """End the connection of a client that does not read, without waiting for it."""
        for connection in list(self.server_state.connections):
            transport: Any = connection.transport
            if transport is not None and getattr(connection, "client", None) == client:
                transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGTERM and SIGINT; a second one does not wait for requests under way."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.was_interrupted = self.was_interrupted or number == signal.SIGINT
            self.force_exit = self.should_exit
            self.handle_exit(number, frame)

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _lacks_cloud(settings: Settings) -> str | None:
    """A sentence if the settings want answers of a cloud and name none."""
    if settings.cloud_url:
        return None
    if settings.policy == PolicyName.ONLY_CLOUD:
        return "The policy only_cloud needs a cloud, and none is set up, so every question fails; give --cloud-url, or another --policy."
    if settings.policy == PolicyName.PREFER_CLOUD:
        return "The policy prefer_cloud asks a cloud first, and none is set up, so this device answers alone; give --cloud-url."
    return None


def _facts(url: str, settings: Settings, agent: Agent, access: Access) -> dict[str, Any]:
    """What a program wants to know of a server that is ready; no secret."""
    return {
        "url": url,
        "model": agent.model.name,
        "policy": agent.policy.name.value,
        "cloud": urlsplit(settings.cloud_url).hostname if settings.cloud_url else None,
        "token": access.token is not None,
        "operator_token": access.operator_token is not None,
    }


def _when_ready(service: Service, server: uvicorn.Server, tell: Callable[[], None]) -> None:
    """Tell systemd and whoever started it once the model is open; stop the server if it cannot be opened: they must see why."""

    def watch() -> None:
        if service.wait_ready():
            notify.ready()
            tell()
        else:
            server.should_exit = True

    threading.Thread(target=watch, name="ready", daemon=True).start()


def _allowed_files() -> int:
    """How many files this process may open, after it asked for enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES:
        soft = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return FILES if soft == resource.RLIM_INFINITY else soft


def _config(service: Service, access: Access, settings: Settings) -> uvicorn.Config:
    log.plainly()
    n_files = _allowed_files()
    HttpConnection.most, HttpConnection.most_refused = room(n_files)
    return uvicorn.Config(
        build(service, access, settings),
        log_config=None,
        access_log=False,  # a decision can be read by its id, and a log would hold it
        server_header=False,
        date_header=True,
        http=HttpConnection,
        backlog=accepted(n_files),
        ws="websockets-sansio",
        ws_max_size=body.MAX_BYTES,
        ws_per_message_deflate=False,
        h11_max_incomplete_event_size=32 << 10,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_REPLY_S,
        proxy_headers=False,
        lifespan="off",
    )


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises `BadSetting`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)  # asyncio sets TCP_NODELAY only where the protocol is named
    except OSError as error:
        raise BadSetting(
            f"The name {host!r} cannot be found ({error.strerror}); give --host (serve_host) an address of this device."
        ) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(WAITING)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise BadSetting(f"This device has no address {host}; give --host (serve_host) one of its own, or 127.0.0.1.") from error
        if error.errno == errno.EACCES:
            raise BadSetting(f"You may not use port {port} of {host}; choose a --port (serve_port) from 1024.") from error
        raise BadSetting(
            f"Port {port} of {host} cannot be used ({error.strerror}); is another server there? Choose another --port (serve_port)."
        ) from error
    return listener
