"""All the ways in which a network and a cloud can fail, on loopback: the exact state, attempts and error each time.

The server uses raw sockets, so that it can stop anywhere.
"""

import pathlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from edge_agent.cloud.drain import Drained, Drainer
from edge_agent.cloud.gate import Gate
from edge_agent.cloud.queue_row import QueueRow
from edge_agent.cloud.wire.client import CloudModel
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.records import CloudAnswer
from tests.support.mutation import catches
from tests.support.queue_world import World

BODY = b'{"id": "chatcmpl-1", "object": "chat.completion", "choices": [{"index": 0, "finish_reason": "stop", "message": ' + (
    b'{"role": "assistant", "content": "B"}}], "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}, "padding": "'
    + b"x" * 300
    + b'"}'
)
HEAD = b"HTTP/1.1 %d Something\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n"


def reply(status: int = 200, body: bytes = BODY, headers: bytes = b"") -> bytes:
    return HEAD % (status, len(body), headers) + body


class FaultyServer:
    """Reads each complete request, then calls `act` with the connection."""

    def __init__(self) -> None:
        self.act: Callable[[socket.socket], None] = lambda connection: connection.sendall(reply())
        self.requests = 0
        self.release = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection:
            try:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += connection.recv(65536) or b"\r\n\r\n"
                head, _, body = data.partition(b"\r\n\r\n")
                wanted = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0)
                while len(body) < wanted:
                    body += connection.recv(65536)
                self.requests += 1
                self.act(connection)
            except OSError:
                pass


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    made = FaultyServer()
    yield made
    made.release.set()
    made.listener.close()


@pytest.fixture
def world(tmp_path: pathlib.Path) -> Iterator[World]:
    made = World(tmp_path / "edge-agent.db")
    yield made
    made.store.close()


def drain(world: World, url: str, deadline_s: float = 20.0, kind: type[Drainer] = Drainer) -> tuple[QueueRow, Drained]:
    """Queue one new question and drain once; returns its row afterwards, and the result of the pass."""
    outbox = world.outbox()
    queue_id = world.put(outbox, f"Q{len(outbox.list())}")
    cloud = CloudModel(url, "big", "sk-key")
    *_, done = kind(outbox, Gate(world.store, cloud), deadline_s=deadline_s).once()
    return next(row for row in outbox.list() if row.queue_id == queue_id), done


def abort(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST instead of FIN


TABLE = [
    # what the server sends                                    state, attempts, stopped, words of the error
    (reply(301, b"", b"Location: http://portal.test/\r\n"), "ready", 0, True, "does not come from the cloud"),
    (reply(200, b"<html>Welcome to the hotel</html>"), "ready", 0, True, "captive portal"),
    (reply(200, b'{"status": "success"}'), "ready", 0, True, "captive portal"),
    (reply(511, b"<html>"), "ready", 0, True, "does not come from the cloud"),
    (reply(401, b"{}"), "ready", 0, True, "refused the key"),
    (reply(403, b"{}"), "ready", 0, True, "refused the key"),
    (reply(402, b"{}"), "ready", 0, True, "no credit"),
    (reply(429, b'{"error": {"code": "insufficient_quota"}}'), "ready", 0, True, "no credit"),
    (reply(429, b"{}", b"Retry-After: 30\r\n"), "ready", 0, True, "no more calls for now"),
    *((reply(status, b"{}"), "ready", 1, False, f"HTTP {status}") for status in (408, 409, 425, 500, 502, 503, 504, 529)),
    *((reply(status, b"{}"), "ready", 0, True, f"HTTP {status}") for status in (400, 404, 405, 413, 422)),
    (reply(200, b'{"choices": [{"message": {"content": ""}}]}'), "ready", 0, True, "is empty"),
    (reply(200, b'{"choices": [{"message": {"content": "who knows"}}]}'), "ready", 0, True, "does not name exactly one option"),
    (reply(200, b'{"choices": [{"finish_reason": "length", "message": {"content": "B"}}]}'), "ready", 0, True, "length limit"),
    (reply(200, b'{"choices": [{"finish_reason": "content_filter", "message": {"content": "B"}}]}'), "ready", 0, True, "content filter"),
    (reply(200, b" " * 1_048_577), "ready", 0, True, "over 1048576 bytes"),
    (b"HTTP/1.1 200 OK\r\n\r\n" + BODY[:150], "ready", 1, False, "incomplete"),
    (b"not HTTP at all\r\n\r\n", "ready", 1, False, "connection broke"),
    (b"", "ready", 1, False, "connection broke"),
    (reply(), "done", 1, False, ""),
]

CERTAIN = ("no credit", "no more calls", "refused the key (HTTP 401")  # these concern the whole cloud, so no test question is needed


class TrustsPortals(Drainer):
    """Mutant: a portal's page counts as an answer."""

    def _finish(self, row: QueueRow, outcome: CloudOutcome, *more: object, **named: object) -> None:
        if outcome.kind is CloudKind.PORTAL:
            outcome = CloudOutcome(CloudKind.ANSWERED, CloudAnswer("A", "<html>", "big", 1.0))
        super()._finish(row, outcome, *more, **named)


@catches(Drainer, TrustsPortals)
def test_each_reply_leaves_an_exact_state(part, world: World, server: FaultyServer) -> None:
    """More mutants of these rules are in tests/cloud/test_retry.py and test_drain.py."""
    for data, state, attempts, stopped, words in TABLE:
        server.act = lambda connection, data=data: connection.sendall(data)
        before = server.requests
        with world.store.transaction() as db:
            db.execute("UPDATE outbox SET state = 'cancelled' WHERE state = 'ready'")
            db.execute("DELETE FROM clouds")
        row, done = drain(world, server.url, kind=part)
        assert (row.state, row.attempts, bool(done.stopped)) == (state, attempts, stopped), (data[:80], row, done)
        assert words in (row.last_error or ""), (data[:80], row)
        in_doubt = (row.state, row.attempts) == ("ready", 0) and not any(words in row.last_error for words in CERTAIN)
        was_cut = "length limit" in words  # then each question is sent again with a higher limit
        assert server.requests == before + (1 + in_doubt) * (1 + was_cut)  # one is the test question
    assert len(world.store.database.rows("SELECT 1 FROM cloud_answers")) == 1


def test_reply_cut_anywhere_in_its_first_512_bytes_costs_one_attempt(world: World, server: FaultyServer) -> None:
    """By a normal end of the connection and by a reset, in turn. tests/cloud/test_queue.py has the mutant `FreeAttempts`."""
    whole = reply()
    assert len(whole) > 512
    for length in range(512):

        def act(connection: socket.socket, length: int = length) -> None:
            connection.sendall(whole[:length])
            if length % 2:
                abort(connection)

        server.act = act
        row, done = drain(world, server.url)
        assert (row.state, row.attempts, done.answered) == ("ready", 1, 0), (length, row)
        assert "connection broke" in row.last_error, (length, row)
        with world.store.transaction() as db:
            db.execute("UPDATE outbox SET state = 'cancelled' WHERE state = 'ready'")
            db.execute("DELETE FROM clouds")
    assert world.store.database.rows("SELECT 1 FROM cloud_answers") == [] and server.requests == 512


def test_refused_connection_costs_no_attempt(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    row, done = drain(world, f"http://127.0.0.1:{port}/v1")
    assert (row.state, row.attempts) == ("ready", 0) and "no connection" in done.stopped and "no connection" in row.last_error


def test_dropped_packets_cost_no_attempt_and_end_at_the_deadline(world: World) -> None:
    """A listener with a full backlog does not answer a SYN, like a firewall that drops packets."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        for _ in range(3):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(full.getsockname())
        row, done = drain(world, f"http://127.0.0.1:{full.getsockname()[1]}/v1", deadline_s=1.0)
        for connection in waiting:
            connection.close()
    assert (row.state, row.attempts) == ("ready", 0) and "no connection" in done.stopped


def test_silence_after_sending_costs_an_attempt(world: World, server: FaultyServer) -> None:
    server.act = lambda connection: server.release.wait(20)
    row, _ = drain(world, server.url, deadline_s=6.0)
    assert (row.state, row.attempts) == ("ready", 1) and "no answer within 6 s" in row.last_error


def test_very_slow_reply_ends_at_the_deadline(world: World, server: FaultyServer) -> None:
    """Each byte arrives well within the read timeout; only a deadline for the whole call ends it."""

    def trickle(connection: socket.socket) -> None:
        for byte in reply():
            connection.sendall(bytes([byte]))
            if server.release.wait(0.1):
                return

    server.act = trickle
    row, _ = drain(world, server.url, deadline_s=6.0)
    assert (row.state, row.attempts) == ("ready", 1) and "no answer within 6 s" in row.last_error
