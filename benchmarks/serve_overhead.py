"""What HTTP adds to `Agent.ask`: both in turns, one client, one connection that stays open. The command is in serve.py."""

from __future__ import annotations

import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable

from benchmarks.serve_http import Connection, quantile, questions, request
from edge_agent.agent.agent import Agent
from edge_agent.core.asked import from_json
from edge_agent.core.config.loading import load
from tests.support.serving import serving

_PAUSE_S = 0.06  # longer than the window in which the engine looks for busy CPUs: neither side may see the other's work


def run(model: pathlib.Path, pairs: int) -> float:
    """Print the medians of both ways, for questions that are fresh and for the same ones recalled; returns the larger overhead in ms."""
    overheads = []
    with (
        tempfile.TemporaryDirectory() as home,
        serving(pathlib.Path(home, "server"), "--model", str(model)) as server,
        Agent.open(load({"model": str(model)}, {"EDGE_AGENT_HOME": str(pathlib.Path(home, "here"))})) as agent,
    ):
        agent.warm()
        connection = Connection(server.port)
        drawn = questions()
        for asked in [next(drawn) for _ in range(8)]:  # warm-up
            connection.ask(request(server.port, "/edge/ask", asked))
            agent.ask(from_json(asked).question)
        fresh = [next(drawn) for _ in range(pairs)]
        print(f"{'':10}{'in process':>12}{'over HTTP':>12}{'added':>10}{'p95 of each':>20}   ms; medians of {pairs} pairs")
        floor = [_timed(lambda: connection.ask(request(server.port, "/health"))) for _ in range(pairs)]
        print(f"{'/health':10}{'':12}{statistics.median(floor):12.3f}")
        for name in ("fresh", "recalled"):
            here, there = [], []
            for number, asked in enumerate(fresh):
                sent, question = request(server.port, "/edge/ask", asked), from_json(asked).question
                ways = [(here, lambda q=question: agent.ask(q)), (there, lambda s=sent: connection.ask(s))]
                for times, way in ways if number % 2 else reversed(ways):
                    time.sleep(_PAUSE_S if name == "fresh" else 0.002)
                    times.append(_timed(way))
            added = statistics.median(after - before for before, after in zip(here, there, strict=True))  # of pairs: the machine drifts
            overheads.append(added)
            tails = f"{quantile(here, 0.95):.2f} / {quantile(there, 0.95):.2f}"
            print(f"{name:10}{statistics.median(here):12.3f}{statistics.median(there):12.3f}{added:10.3f}{tails:>20}")
        connection.close()
    return max(overheads)


def _timed(way: Callable[[], object]) -> float:
    started = time.perf_counter()
    way()
    return (time.perf_counter() - started) * 1000
