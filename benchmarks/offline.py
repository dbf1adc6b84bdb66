"""The cost of being offline: the first answer without a network, recall, a durable put, draining.

python -m benchmarks.offline kiosk  [--questions 40] [--deadline 1.0]      first answers with a closed and an open breaker
python -m benchmarks.offline recall [--rows 1000 1000000]                  p50 of a recall, and how it grows
python -m benchmarks.offline put    [--rows 1000]                          a durable put and a bare INSERT, same pragmas
python -m benchmarks.offline drain  [--rows 100 1000 10000] [--faults 0.01]  questions per second, memory, duplicates

No model runs; the readings are fixed. --folder chooses the disk, because a put is almost only fsync.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import socket
import sqlite3
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from edge_agent.agent.agent import Agent
from edge_agent.cloud.drain import Drained
from edge_agent.cloud.queue import Outbox
from edge_agent.cloud.wire.client import CloudModel
from edge_agent.core.config.settings import DEFAULT_LIMITS
from edge_agent.core.question import Question
from edge_agent.core.records import LevelReading, Reading, ReadingKey, Timings
from edge_agent.measure.bench.sample import memory
from edge_agent.model.catalog import ModelFiles
from edge_agent.store.store import Store

ROOT = pathlib.Path(__file__).parent.parent
MODEL = ROOT / "models" / "demo" / "FogGen-demo-Q8_0.gguf"
UNSURE = Reading(
    levels=("0.0", "1.0"), level_probs=(1.0, 0.0), level="0.0", format_mass=0.99,
    letters="ABC", answer_probs=(0.8, 0.1, 0.1), letter="A", timings=Timings(),
)  # fmt: skip


class Spoken:
    """A model that returns a fixed reading."""

    def read_all(self, questions: Sequence[Question], on_level: Callable[[int, LevelReading], None]) -> list[Reading]:
        """The same reading for every question."""
        for i in range(len(questions)):
            on_level(i, UNSURE)
        return [UNSURE] * len(questions)

    def close(self) -> None:
        """Do nothing."""


def question(number: int) -> Question:
    """A unique question."""
    return Question(f"Question number {number}?", ("x", "y", "z"))


def agent(path: pathlib.Path, cloud: CloudModel | None = None) -> Agent:
    """An agent that is never sure, with a queue that is never full."""
    limits = DEFAULT_LIMITS._replace(queue=DEFAULT_LIMITS.queue._replace(max_rows=10**7, max_bytes=10**10))
    return Agent(ModelFiles(MODEL), Store(path), cloud=cloud, open_model=lambda *_: Spoken(), limits=limits)


@contextmanager
def server(reply: Callable[[], tuple[int, bytes]]) -> Iterator[str]:
    """A cloud server on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, data = reply()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{serving.server_port}/v1"
    finally:
        serving.shutdown()


class HangingResolver(httpx.BaseTransport):
    """Name resolution that takes a minute, which no timeout of httpx limits."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Never answer."""
        time.sleep(60)
        raise httpx.ConnectError("no such name")


def p(values: list[float], share: float) -> float:
    """A quantile."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def kiosk(folder: pathlib.Path, arguments: argparse.Namespace) -> None:
    """The time to a provisional answer, before the breaker opens and after."""
    with socket.socket() as silent, server(lambda: (200, b"<html>Welcome")) as portal:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)  # the backlog holds one connection: no further SYN is answered, as with dropped packets
        fill = [socket.socket() for _ in range(3)]
        for each in fill:
            each.setblocking(False)
            each.connect_ex(silent.getsockname())
        clouds = {
            "no cloud": None,
            "refused": CloudModel("http://127.0.0.1:9/v1", "big", deadline_s=arguments.deadline),
            "dropped packets": CloudModel(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", "big", deadline_s=arguments.deadline),
            "hanging DNS": CloudModel("http://cloud.test/v1", "big", deadline_s=arguments.deadline, transport=HangingResolver()),
            "captive portal": CloudModel(portal, "big", deadline_s=arguments.deadline),
        }
        print(f"deadline {arguments.deadline:g} s; ms to the provisional answer")
        for name, cloud in clouds.items():
            before, behind = [], []
            with agent(folder / f"{name.replace(' ', '-')}.db", cloud) as one:
                for number in range(arguments.questions):
                    opened = one.gate is not None and one.gate.breaker.wait_s() > 0
                    started = time.perf_counter()
                    assert one.ask(question(number)).provisional
                    (behind if opened else before).append((time.perf_counter() - started) * 1000)
            late = f"with an open breaker p50 {p(behind, 0.5):8.1f}  p95 {p(behind, 0.95):8.1f}" if behind else ""
            print(f"{name:<16} worst {max(before):8.1f}  {late}")
        for each in fill:
            each.close()


def recall(folder: pathlib.Path, arguments: argparse.Namespace) -> None:
    """The time to find one reading among a thousand and among a million."""
    for rows in arguments.rows:
        with agent(folder / f"recall-{rows}.db") as one, one.store.transaction() as db:
            reading = UNSURE.to_json()
            for number in range(rows):
                mark = question(number).fingerprint
                db.execute(
                    "INSERT INTO questions (fingerprint, stem, options) VALUES (?, ?, ?)",
                    (mark, f"Question number {number}?", '["x", "y", "z"]'),
                )
                key = (0.0, mark, one.model.sha256, one.profile.sha256, reading)
                db.execute(
                    "INSERT INTO readings (created_at, fingerprint, model_sha256, adapter_sha256, profile_sha256, reading) "
                    "VALUES (?, ?, ?, '', ?, ?)",
                    key,
                )
        chance, times = random.Random(1), []
        with Store(folder / f"recall-{rows}.db") as store:
            for _ in range(2000):
                mark = question(chance.randrange(rows)).fingerprint
                started = time.perf_counter()
                assert store.reading(ReadingKey(mark, one.model.sha256, "", one.profile.sha256))
                times.append((time.perf_counter() - started) * 1e6)
        print(f"{rows:>9} rows: p50 {p(times, 0.5):7.1f} us  p95 {p(times, 0.95):7.1f} us")


def put(folder: pathlib.Path, arguments: argparse.Namespace) -> None:
    """The time of a durable put, and of a bare INSERT with the same pragmas."""
    (rows,) = arguments.rows[:1]
    with Store(folder / "put.db") as store:
        outbox, ours = Outbox(store), []
        pragmas = {name: store.database.rows(f"PRAGMA {name}")[0][name] for name in ("journal_mode", "synchronous", "secure_delete")}
        for number in range(rows):
            started = time.perf_counter()
            with store.transaction():
                store.put_question(question(number))
                outbox.put(question(number))
            ours.append((time.perf_counter() - started) * 1000)
    bare, theirs = sqlite3.connect(folder / "bare.db", isolation_level=None), []
    for name, value in pragmas.items():
        bare.execute(f"PRAGMA {name} = {value}")
    bare.execute("CREATE TABLE queue (id INTEGER PRIMARY KEY, created_at REAL, body TEXT)")
    for number in range(rows):
        started = time.perf_counter()
        bare.execute("INSERT INTO queue (created_at, body) VALUES (?, ?)", (time.time(), question(number).user_message))
        theirs.append((time.perf_counter() - started) * 1000)
    bare.close()
    mine, least = p(ours, 0.5), p(theirs, 0.5)
    print(f"{pragmas}\ndurable put p50 {mine:.3f} ms, bare INSERT p50 {least:.3f} ms: {mine / least:.2f} x")


def drain(folder: pathlib.Path, arguments: argparse.Namespace) -> None:
    """The time to drain the whole queue to a cloud that sometimes fails."""
    chance, answer = random.Random(1), json.dumps({"choices": [{"message": {"content": "B"}}]}).encode()
    for rows in arguments.rows:
        path = folder / f"drain-{rows}.db"
        with agent(path) as one, one.store.transaction():
            for number in range(rows):
                one.store.put_question(question(number))
                one.outbox.put(question(number))
        with server(lambda: (500, b"{}") if chance.random() < arguments.faults else (200, answer)) as url:
            with agent(path, CloudModel(url, "big")) as one:
                assert one.gate is not None
                started, peaks = time.perf_counter(), []
                while one.outbox.count("ready"):
                    for number, step in enumerate(one.drain()):
                        if number % 1000 == 0 or isinstance(step, Drained):
                            peaks.append((memory()[0] or 0) / 1e6)
                seconds = time.perf_counter() - started
                states = Counter(row.state for row in one.outbox.list())
                twice = one.store.database.rows(
                    "SELECT count(*) AS n FROM (SELECT 1 FROM cloud_answers GROUP BY fingerprint HAVING count(*) > 1)"
                )
        print(
            f"{rows:>6} questions: {rows / seconds:7.1f} a second, {seconds / rows * 1000:.2f} ms each; {dict(states)}, "
            f"{twice[0]['n']} twice; memory {peaks[0]:.0f} MB at first, {statistics.median(peaks):.0f} in the middle, "
            f"{peaks[-1]:.0f} at the end"
        )


def main() -> None:
    """Run one of the four benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kiosk", "recall", "put", "drain"))
    parser.add_argument("--rows", type=int, nargs="+")
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--deadline", type=float, default=1.0)
    parser.add_argument("--faults", type=float, default=0.01)
    parser.add_argument("--folder", type=pathlib.Path)
    arguments = parser.parse_args()
    arguments.rows = arguments.rows or {"recall": [1000, 1_000_000], "put": [1000], "drain": [100, 1000, 10_000]}.get(arguments.what)
    run = {"kiosk": kiosk, "recall": recall, "put": put, "drain": drain}[arguments.what]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        run(pathlib.Path(folder), arguments)


if __name__ == "__main__":
    main()
