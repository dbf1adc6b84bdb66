"""Kills processes that put and drain in one database at random moments, and counts what is lost: nothing acknowledged may be.

    python -m tests.slow.crash_load --kills 3000 [--seed 1] [--folder /dev/shm/x]

Three processes ask like `edge-agent ask` (with a fixed reading; no model runs) and record each question after it was
acknowledged as queued. Two processes try to drain into a cloud on loopback, which records its calls. Again and again, one of the
five is killed (SIGKILL) and restarted; after each kill the file is checked. At the end the remaining questions are
drained, and these are counted:

    lost         acknowledged questions without an end      must be 0
    duplicated   questions with more than one end           must be 0
    extra        cloud calls beyond one for each question   at most one for each kill
    locked       errors (database is locked) in a caller    must be 0
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from edge_agent.agent.agent import Agent
from edge_agent.cloud.drain import Drained
from edge_agent.cloud.wire.client import CloudModel
from edge_agent.core.errors import EdgeAgentError, StorageError
from edge_agent.core.question import Question
from edge_agent.model.catalog import ModelFiles
from edge_agent.store.store import Store
from tests.support.paths import DEMO
from tests.support.spoken_model import UNSURE, SpokenModel

PUTTERS, DRAINERS = 3, 2


class AcknowledgesEarly(Agent):
    """Mutant: acknowledges a question before it is queued."""

    acknowledge: Callable[[str], None] = print

    def ask(self, question: Question, refresh: bool = False):
        self.acknowledge(question.stem)
        time.sleep(0.01)
        return super().ask(question, refresh)


@dataclass
class Report:
    """What was counted; `acceptable` is true if the promises were kept."""

    kills: int
    acknowledged: int
    lost: int
    duplicated: int
    extra: int
    locked: int
    damaged: int

    @property
    def acceptable(self) -> bool:
        return not (self.lost or self.duplicated or self.locked or self.damaged) and self.extra <= self.kills and self.acknowledged > 0


def serve(folder: pathlib.Path) -> None:
    """The cloud: answers B, and records each question."""
    calls = os.open(folder / "calls", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            os.write(calls, (body["messages"][0]["content"].split("\n")[0] + "\n").encode())
            data = json.dumps({"choices": [{"message": {"content": "B"}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(ConnectionError, json.JSONDecodeError):  # the caller was killed
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    (folder / "port.new").write_text(str(server.server_port))
    (folder / "port.new").rename(folder / "port")
    server.serve_forever()


def agent(folder: pathlib.Path, kind: type[Agent] = Agent, cloud: bool = False) -> Agent:
    client = CloudModel(f"http://127.0.0.1:{(folder / 'port').read_text()}/v1", "big") if cloud else None
    return kind(ModelFiles(DEMO), Store(folder / "edge-agent.db"), cloud=client, open_model=SpokenModel(UNSURE).open)


def putting(folder: pathlib.Path, name: str, kind: type[Agent]) -> None:
    """Ask new questions forever, and record the acknowledged ones."""
    said = os.open(folder / f"acknowledged-{name}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    if kind is AcknowledgesEarly:
        AcknowledgesEarly.acknowledge = lambda _, stem: os.write(said, f"{stem}\n".encode())
    with agent(folder, kind) as one:
        while True:
            stem = f"{name}-{_letters(os.getpid())}-{_letters(time.monotonic_ns())}"
            decision = one.ask(Question(stem, ("x", "y", "z")))
            if decision.queue_id is not None and kind is Agent:
                os.write(said, f"{stem}\n".encode())
            time.sleep(random.random() * 0.02)


def _letters(number: int) -> str:
    """The number in the letters a to j: so many digits could look like a card number and be redacted."""
    return str(number).translate(str.maketrans("0123456789", "abcdefghij"))


def draining(folder: pathlib.Path, name: str, kind: type[Agent]) -> None:
    """Drain forever, whenever no other process drains."""
    with agent(folder, cloud=True) as one:
        while True:
            try:
                for _ in one.drain():
                    pass
            except StorageError as error:
                if "Another process" not in str(error):
                    raise
            time.sleep(0.01)


def start(job: Callable[..., None], folder: pathlib.Path, *more: object) -> int:
    """Start a process that does the job until it is killed; it records its errors."""
    child = os.fork()
    if child:
        return child
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        job(folder, *more)
    except (EdgeAgentError, sqlite3.Error) as error:
        with (folder / "errors").open("a") as file:
            file.write(f"{type(error).__name__}: {error}\n")
    finally:
        os._exit(1)


def is_damaged(path: pathlib.Path) -> bool:
    for _ in range(50):
        try:
            with closing(sqlite3.connect(path, timeout=30)) as db:
                return bool(db.execute("PRAGMA quick_check").fetchall() != [("ok",)])
        except sqlite3.OperationalError:
            time.sleep(0.05)
    return True


def run(folder: pathlib.Path, kills: int, seed: int, kind: type[Agent] = Agent, progress: bool = False) -> Report:
    """Kill `kills` times, drain what is left, and count."""
    chance = random.Random(seed)
    cloud = start(serve, folder)
    while not (folder / "port").exists():
        time.sleep(0.01)
    agent(folder).close()
    jobs = [(putting, f"p{n}") for n in range(PUTTERS)] + [(draining, f"d{n}") for n in range(DRAINERS)]
    running = {start(job, folder, name, kind): (job, name) for job, name in jobs}
    damaged = 0
    try:
        time.sleep(0.3)
        for number in range(kills):
            time.sleep(chance.random() * 0.1)
            victim = chance.choice(list(running))
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
            job, name = running.pop(victim)
            damaged += is_damaged(folder / "edge-agent.db")
            running[start(job, folder, name, kind)] = (job, name)
            if progress and (number + 1) % 100 == 0:
                print(f"{number + 1} of {kills} kills", file=sys.stderr, flush=True)
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    try:
        with agent(folder, cloud=True) as last:
            for step in last.drain():
                assert not isinstance(step, Drained) or not step.stopped, step
    finally:
        os.kill(cloud, signal.SIGKILL)
        os.waitpid(cloud, 0)
    return count(folder, kills + len(running), damaged)


def count(folder: pathlib.Path, kills: int, damaged: int) -> Report:
    acknowledged = {line for file in folder.glob("acknowledged-*") for line in file.read_text().splitlines()}
    asked = Counter((folder / "calls").read_text().splitlines())
    errors = (folder / "errors").read_text() if (folder / "errors").exists() else ""
    if errors:
        print(errors, file=sys.stderr)
    with closing(sqlite3.connect(folder / "edge-agent.db")) as db:
        ended = {
            stem for (stem,) in db.execute("SELECT stem FROM decisions JOIN questions USING (fingerprint) WHERE ending = 'overturned'")
        }
        twice = db.execute("SELECT count(*) FROM (SELECT 1 FROM outbox WHERE state = 'done' GROUP BY fingerprint HAVING count(*) > 1)")
        waiting = db.execute("SELECT count(*) FROM outbox WHERE state <> 'done'").fetchone()[0]
        answers = db.execute("SELECT count(*) FROM (SELECT 1 FROM cloud_answers GROUP BY fingerprint HAVING count(*) > 1)").fetchone()[0]
        damaged += db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]
        duplicated = twice.fetchone()[0] + answers
    extra = sum(asked.values()) - len(asked)
    return Report(kills, len(acknowledged), len(acknowledged - ended) + waiting, duplicated, extra, errors.count("\n"), damaged)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=pathlib.Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        report = run(pathlib.Path(folder), arguments.kills, arguments.seed, progress=True)
    print(report)
    sys.exit(not report.acceptable)


if __name__ == "__main__":
    main()
