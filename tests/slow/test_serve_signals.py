"""A server that is stopped or killed in the middle of eight requests: what it acknowledged is there after the restart."""

import concurrent.futures
import json
import os
import pathlib
import random
import signal
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from edge_agent.store.store import Store
from tests.support.cloud_server import LoopbackCloud
from tests.support.serving import Serving

N_ROUNDS = int(os.environ.get("EDGE_AGENT_TEST_KILLS", "25"))
N_CLIENTS = 8


class Reply(NamedTuple):
    """What a client saw: the status (None if no head came), and the bytes of the body, whole or not."""

    status: int | None
    head: bytes
    body: bytes

    @property
    def is_whole(self) -> bool:
        """Whether every byte came that the head promised."""
        lengths = [line.split(b":")[1] for line in self.head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        return bool(lengths) and len(self.body) == int(lengths[0])


@pytest.fixture
def cloud() -> Iterator[LoopbackCloud]:
    running = LoopbackCloud()
    running.reply = lambda body: (time.sleep(0.2), "B")[1]
    yield running
    running.stop()


def ask(port: int, number: int, policy: str) -> Reply:
    """Ask over a socket of our own, and read whatever comes until the end."""
    body = json.dumps({"question": f"What is {number} + 7?", "options": ["18", "19", "24"], "policy": policy}).encode()
    head = f"POST /edge/ask HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    found = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            while part := connection.recv(65536):
                found += part
    except OSError:
        pass
    start, _, rest = found.partition(b"\r\n\r\n")
    return Reply(int(start.split()[1]) if start.startswith(b"HTTP/1.1 ") and rest else None, start, rest)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_acknowledged_is_there_after_the_restart(tmp_path: pathlib.Path, cloud: LoopbackCloud, number: int) -> None:
    chance = random.Random(int(number))
    environment = {"EDGE_AGENT_CLOUD_URL": cloud.url, "EDGE_AGENT_CLOUD_MODEL": "big"}
    server = Serving(tmp_path / "home", environment=environment)
    seen: set[str] = set()
    with concurrent.futures.ThreadPoolExecutor(N_CLIENTS) as pool:
        for round_number in range(N_ROUNDS):
            server.wait_ready()
            policies = ["only_local", "prefer_cloud"] * (N_CLIENTS // 2)
            asked = [pool.submit(ask, server.port, round_number * 100 + n, policy) for n, policy in enumerate(policies)]
            time.sleep(chance.uniform(0.0, 0.5))
            assert server.stop(number) == (0 if number == signal.SIGTERM else -number), server.said()
            replies = [one.result() for one in asked]
            acknowledged = [json.loads(reply.body) for reply in replies if reply.status == 200 and reply.is_whole]
            if number == signal.SIGTERM:  # nothing is cut off: an answer, a refusal, or no connection at all
                assert all(reply.status is None or reply.is_whole for reply in replies), replies
                assert {reply.status for reply in replies} <= {200, 503, None}
                assert not [reply for reply in replies if reply.status is None and reply.head]
            server.start()
            with Store(server.home / "edge-agent.db") as store:
                for decision in acknowledged:
                    assert store.ending(decision["decision_id"]).answer == decision["answer"]
                    if decision["provisional"]:
                        assert decision["queue_id"] is not None
            seen |= {decision["decision_id"] for decision in acknowledged}
        server.wait_ready()
        with server.client() as client:
            for decision_id in seen:
                assert client.get(f"/edge/decisions/{decision_id}").status_code == 200
    server.stop()
    assert len(seen) >= N_ROUNDS  # the signals came in the middle, not before everything
