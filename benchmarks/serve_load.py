"""How many decisions a second a real server makes for many clients, and how long each client waits. The command is in serve.py.

Owns the clients: one thread that watches all their sockets, so that the clients cost little and their number is exact. Every client
sends its next request as soon as the last one is answered.
"""

from __future__ import annotations

import heapq
import itertools
import pathlib
import selectors
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks.serve_http import Connection, Reply, facts, quantile, questions, request, whole
from tests.support.serving import Serving, serving

_REMEMBERED = 200  # different questions among the recalled ones
_COLUMNS = (
    f"{'route':22}{'questions':10}{'clients':>8}{'503 is':>9}{'a second':>10}{'p50':>9}{'p95':>9}{'p99':>9}{'503s':>7}{'other':>7}"
    f"{'server':>8}{'client':>8}"
)


@dataclass
class Result:
    """What the clients saw: from the first try of a request to its answer in ms, and how many replies had which status."""

    seconds: float
    waited_ms: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    client_ms: float = 0.0  # CPU time of all clients for one reply


class _Client:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.data, self.sent, self.began = bytearray(), b"", 0.0

    def send(self, sent: bytes) -> None:
        self.sent, self.began = sent, time.perf_counter()
        self.socket.sendall(sent)

    def again(self) -> None:
        self.socket.sendall(self.sent)

    def reply(self) -> Reply | None:
        got = self.socket.recv(1 << 16)
        if not got:
            raise ConnectionError("the server closed a connection in the middle of the load")
        self.data += got
        if (reply := whole(self.data)) is not None:
            self.data.clear()
        return reply


def drive(port: int, requests: Iterator[bytes], n_clients: int, seconds: float, waits: bool = True) -> Result:
    """Let the clients ask for some seconds. With `waits`, a client that gets a 503 tries again after its Retry-After.

    Otherwise it takes the 503 for an answer and sends its next request.
    """
    result, clients = Result(seconds), [_Client(port) for _ in range(n_clients)]
    order, later = itertools.count(), list[tuple[float, int, _Client]]()
    began, cpu_s = time.perf_counter(), time.process_time()
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.socket, selectors.EVENT_READ, client)
            client.send(next(requests))
        while (now := time.perf_counter()) - began < seconds:
            while later and later[0][0] <= now:
                heapq.heappop(later)[2].again()
            until = min(began + seconds, later[0][0] if later else began + seconds)
            for key, _ in selector.select(max(0.0, until - now)):
                client = key.data
                if (reply := client.reply()) is None:
                    continue
                result.statuses[reply.status] += 1
                if reply.status == 503 and waits:
                    heapq.heappush(later, (time.perf_counter() + reply.retry_after_s, next(order), client))
                    continue
                if reply.status == 200:
                    result.waited_ms.append((time.perf_counter() - client.began) * 1000)
                client.send(next(requests))
        for client in clients:
            client.socket.close()
    result.client_ms = (time.process_time() - cpu_s) * 1000 / max(1, result.statuses.total())
    return result


def as_ask(question: dict[str, Any]) -> object:
    """The body for /edge/ask."""
    return question


def as_chat(question: dict[str, Any]) -> object:
    """The body for /v1/chat/completions: the question as FogGen writes it."""
    return {"model": "edge-auto", "messages": [{"role": "user", "content": as_text(question)}]}


def as_systemone(question: dict[str, Any]) -> object:
    """The body for /v1/systemone: one choice."""
    options = [str(option) for option in question["options"]]
    choice = {"type": "choice", "instructions": "Which sum is right?", "criteria": {f"sum {n}": text for n, text in enumerate(options)}}
    return {"model": "edge-auto", "state": question["question"], "questions": {"sum": choice}}


def as_text(question: dict[str, Any]) -> str:
    """FogGen's user message: the question, then one option a line."""
    options = zip("ABC", question["options"], strict=True)
    return "\n".join([str(question["question"]), *(f"{letter}. {text}" for letter, text in options)])


ROUTES = {"/edge/ask": as_ask, "/v1/chat/completions": as_chat, "/v1/systemone": as_systemone}


def run(model: pathlib.Path, clients: list[int], seconds: float, routes: list[str]) -> None:
    """Print a table: each route, fresh and recalled questions, each number of clients, with Retry-After honoured and not."""
    with tempfile.TemporaryDirectory() as home, serving(pathlib.Path(home), "--model", str(model)) as server:
        begin, drawn = facts(server.process.pid), questions()
        print("p50 to p99: ms from a client's first try to its answer; server, client: ms of CPU time for each reply")
        print(_COLUMNS)
        for n in clients:
            _measure(server, "/health", "", itertools.repeat(request(server.port, "/health")), n, seconds)
        for route in routes:
            if (status := _status(server, route, next(drawn))) != 200:
                print(f"{route:22}answers {status} here")
                continue
            known = [request(server.port, route, ROUTES[route](next(drawn))) for _ in range(_REMEMBERED)]
            fresh = (request(server.port, route, ROUTES[route](asked)) for asked in drawn)
            _ask(server, known)
            for name, requests in (("fresh", fresh), ("recalled", itertools.cycle(known))):
                for n in clients:
                    if _measure(server, route, name, requests, n, seconds).statuses[503]:
                        _measure(server, route, name, requests, n, seconds, waits=False)
        time.sleep(1)  # until it has noticed that the clients are gone
        end = facts(server.process.pid)
        megabytes = " / ".join(f"{size / 1e6:.0f}" for size in (begin.resident, end.resident, end.peak))
        print(f"\nserver, at the start / at the end / at most: {megabytes} MB resident; at the start / at the end:")
        print(f"{begin.n_files} / {end.n_files} open files, {begin.n_threads} / {end.n_threads} threads")


def _measure(server: Serving, route: str, name: str, requests: Iterator[bytes], n: int, seconds: float, waits: bool = True) -> Result:
    """One row of the table."""
    before_s = facts(server.process.pid).cpu_s
    result = drive(server.port, requests, n, seconds, waits)
    server_ms = (facts(server.process.pid).cpu_s - before_s) * 1000 / max(1, result.statuses.total())
    times = result.waited_ms or [float("nan")]
    p50, p95, p99 = (quantile(times, share) for share in (0.5, 0.95, 0.99))
    n_other = result.statuses.total() - result.statuses[200] - result.statuses[503]
    print(
        f"{route:22}{name:10}{n:8}{'waited' if waits else 'ignored':>9}{len(result.waited_ms) / result.seconds:10.0f}"
        f"{p50:9.1f}{p95:9.1f}{p99:9.1f}{result.statuses[503]:7}{n_other:7}{server_ms:8.2f}{result.client_ms:8.3f}",
        flush=True,
    )
    return result


def _status(server: Serving, route: str, asked: dict[str, Any]) -> int:
    connection = Connection(server.port)
    status = connection.ask(request(server.port, route, ROUTES[route](asked))).status
    connection.close()
    return status


def _ask(server: Serving, requests: list[bytes]) -> None:
    connection = Connection(server.port)
    for one in requests:
        connection.ask(one)
    connection.close()
