"""How long `edge-agent serve` takes from the start of its process until it listens, is ready, and has answered. The command is in serve.py.

Owns these times. Cold is a home without anything in it: the model must be hashed, and the database made. Warm is the next start there.
"""

from __future__ import annotations

import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from benchmarks.serve_http import ROOT, Connection, questions, request

_LIBRARIES = ("fastapi", "uvicorn", "prometheus_client", "websockets", "edge_agent.agent.agent", "edge_agent.server.run")
_POLL_S = 0.002


def run(model: pathlib.Path, rounds: int) -> None:
    """Print the medians, and what the imports cost."""
    rows: dict[str, list[tuple[float, float, float]]] = {"cold": [], "warm": []}
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as home:
            for times in rows.values():
                times.append(_start(model, home, number))
    print(f"{'':6}{'listens':>10}{'/health 200':>13}{'first answer':>14}   ms from the start of the process; medians of {rounds}")
    for name, times in rows.items():
        listens, ready, answered = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{name:6}{listens:10.0f}{ready:13.0f}{answered:14.0f}")
    print(f"\n{'imported':26}{'ms, with all that it imports':>30}   python -X importtime; what came earlier does not count again")
    for name, took_ms in _imports().items():
        print(f"{name:26}{took_ms:30.0f}")


def _start(model: pathlib.Path, home: str, number: int) -> tuple[float, float, float]:
    """One process: ms until it says that it listens, until it is ready, and until it has answered a question."""
    command = [sys.executable, "-m", "edge_agent", "serve", "--port", "0", "--model", str(model)]
    environment = {**os.environ, "EDGE_AGENT_HOME": home, "PYTHONPATH": str(ROOT)}
    began = time.perf_counter()
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        if not (found := re.search(r"listening on http://\S+:(\d+)", said)):
            raise SystemExit(said + process.stderr.read())
        port, times = int(found[1]), [time.perf_counter()]
        connection = Connection(port)
        while connection.ask(request(port, "/health")).status != 200:
            time.sleep(_POLL_S)
        times.append(time.perf_counter())
        assert connection.ask(request(port, "/edge/ask", next(questions(number)))).status == 200
        times.append(time.perf_counter())
        connection.close()
        process.terminate()
    listens, ready, answered = ((at - began) * 1000 for at in times)
    return listens, ready, answered


def _imports(names: Sequence[str] = _LIBRARIES) -> dict[str, float]:
    """The time of each import in ms, when the server is imported."""
    program = [sys.executable, "-X", "importtime", "-c", "import edge_agent.server.run"]
    done = subprocess.run(program, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    found = {}
    for line in done.stderr.splitlines():
        own, _, name = line.rpartition("|")
        if name.strip() in names:
            found[name.strip()] = int(own.rpartition("|")[2]) / 1000
    return found
