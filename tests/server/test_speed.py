"""What makes replies late without a reason."""

import asyncio
import pathlib
import socket
import statistics
import threading
import time

import pytest

from edge_agent.agent.agent import Agent
from edge_agent.core.errors import ModelBusy
from edge_agent.server.service import REFUSAL_S, Service
from tests.support.serving import serving


def test_reply_on_an_open_connection_does_not_wait_for_an_acknowledgement(tmp_path: pathlib.Path) -> None:
    """A reply is sent in two pieces. Without TCP_NODELAY the second one waits for the client's delayed acknowledgement, 40 ms."""
    with serving(tmp_path / "home") as server, socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        waited = []
        for _ in range(30):
            began = time.perf_counter()
            connection.sendall(f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
            data = b""
            while not data.endswith(b"}"):
                data += connection.recv(1 << 16)
            waited.append(time.perf_counter() - began)
    assert statistics.median(waited) < 0.03


def test_one_request_too_many_waits_for_a_place_and_is_refused_only_then() -> None:
    """A client that asks again at once cannot take the CPU from the model, and a place that becomes free meanwhile is used."""

    async def ask(service: Service, over: threading.Event) -> None:
        first = asyncio.create_task(service.run(over.wait))
        await asyncio.sleep(0)
        began = time.perf_counter()
        with pytest.raises(ModelBusy):
            await service.run(lambda: None)
        assert time.perf_counter() - began > REFUSAL_S / 2 and service.n_refused == 1
        late = asyncio.create_task(service.run(lambda: "answered"))
        await asyncio.sleep(0.01)
        over.set()
        assert await late == "answered" and await first

    service, over = Service(Agent.open("demo"), most_at_once=1), threading.Event()
    try:
        asyncio.run(ask(service, over))
    finally:
        over.set()
        service.close()
