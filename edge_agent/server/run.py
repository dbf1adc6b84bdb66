"""Runs the server: listens, answers until SIGTERM or SIGINT, then finishes what is under way.

Owns the socket and the life of the process. Invariant: when it ends, every answer that a client got is stored, and the model and the
database are closed.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from edge_agent.agent.agent import Agent
from edge_agent.core.config.settings import Settings
from edge_agent.core.errors import BadSetting
from edge_agent.server.access import Access, in_url
from edge_agent.server.app import build
from edge_agent.server.door import body, log
from edge_agent.server.door.connection import HttpConnection
from edge_agent.server.service import Service

GRACE_S = 30  # for requests under way when the server is told to stop: longer than a cloud call may take
_KEEP_ALIVE_S = 15


def serve(settings: Settings, said: Callable[[str], None] = lambda text: None) -> None:
    """Serve until the process is told to stop. `said` gets a line for the person who started it.

    Raises `BadSetting` for an address that cannot be served, and what `Agent.open` raises, before anything is answered.
    """
    access = Access.of(settings)
    with _listening(settings.serve_host, settings.serve_port) as listener:
        agent = Agent.open(settings)
        service = Service(agent)
        try:
            server = _Server(_config(service, access))
            service.start()
            _when_ready(service, server)
            host, port = listener.getsockname()[:2]
            said(f"listening on http://{in_url(host)}:{port}")
            server.run([listener])
        finally:
            service.close()
        if service.failed is not None:
            raise service.failed
        if server.was_interrupted:
            raise KeyboardInterrupt


class _Server(uvicorn.Server):
    """uvicorn raises a signal that stopped it once more, which would end the process before the agent is closed."""

    was_interrupted = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGTERM and SIGINT; a second one does not wait for requests under way."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.was_interrupted = self.was_interrupted or number == signal.SIGINT
            self.handle_exit(number, frame)

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _when_ready(service: Service, server: uvicorn.Server) -> None:
    """Stop the server if the model cannot be opened: whoever started it must see why."""

    def watch() -> None:
        if not service.wait_ready():
            server.should_exit = True

    threading.Thread(target=watch, name="ready", daemon=True).start()


def _config(service: Service, access: Access) -> uvicorn.Config:
    log.plainly()
    return uvicorn.Config(
        build(service, access),
        log_config=None,
        access_log=False,  # a decision can be read by its id, and a log would hold it
        server_header=False,
        date_header=True,
        http=HttpConnection,
        ws="websockets-sansio",
        ws_max_size=body.MAX_BYTES,
        ws_per_message_deflate=False,
        h11_max_incomplete_event_size=32 << 10,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        proxy_headers=False,
        lifespan="off",
    )


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises `BadSetting`."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise BadSetting(
            f"The address {host!r} cannot be served ({error.strerror}); set serve_host to an address of this device."
        ) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise BadSetting(
            f"Port {port} of {host} cannot be used ({error.strerror}); is another server there? Choose another --port."
        ) from error
    return listener
