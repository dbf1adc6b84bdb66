"""What other programs cost a decision: medians on idle cores, and beside programs that keep one or two cores busy.

    python -m benchmarks.busy FILE... [--rounds 3] [--questions 12] [--busy 0,1,2,half]

Compares four ways to run the same model, in random order, each in a process of its own:

    spare CPUs      as edge-agent runs: one thread for each CPU that others leave free
    all CPUs        one thread for each CPU, which spin while they wait: what llama.cpp does
    no spinning     one thread for each CPU, with GOMP_SPINCOUNT=0: they sleep while they wait
    one thread      nobody waits

"half" is a program that works for 30 ms and sleeps for 30 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import random
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from edge_agent.engine.llama import Options
from edge_agent.engine.local_model import LocalModel
from edge_agent.engine.spare_cpus import SpareCpus
from edge_agent.measure.sets import loading

WARM_UP = 2
WAYS: dict[str, dict[str, str]] = {
    "spare CPUs": {},
    "all CPUs": {"ALL_CPUS": "1"},
    "no spinning": {"ALL_CPUS": "1", "GOMP_SPINCOUNT": "0"},
    "one thread": {"ALL_CPUS": "1", "ONE_THREAD": "1"},
}
BUSY = """
import time
while True:
    until = time.perf_counter() + 0.03
    while time.perf_counter() < until:
        pass
    time.sleep({pause})
"""


class _AllCpus(SpareCpus):
    """Every CPU counts as free."""

    def count(self) -> int:
        return 1 << 16


def decide(path: pathlib.Path, n_questions: int) -> list[float]:
    """The times of decisions in this process, in ms."""
    options = Options(n_threads=1 if "ONE_THREAD" in os.environ else None)
    spare = _AllCpus() if "ALL_CPUS" in os.environ else None
    took = []
    with LocalModel(path, options=options, spare_cpus=spare) as model:
        for question in loading.built_in()[: WARM_UP + n_questions]:
            began = time.perf_counter()
            model.read(question)
            took.append((time.perf_counter() - began) * 1000)
    return took[WARM_UP:]


@contextlib.contextmanager
def busy(load: str) -> Iterator[None]:
    """Other programs at work: "half", or how many cores they keep busy."""
    pause, n = ("0.03", 1) if load == "half" else ("0", int(load))
    programs = [subprocess.Popen([sys.executable, "-I", "-c", BUSY.format(pause=pause)]) for _ in range(n)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def main() -> None:
    """Measure, and print a table for each file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--busy", default="0,1,2,half")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(decide(given.files[0], given.questions)))
        return
    for path in given.files:
        print(f"{path.name}: median (95th percentile) of a decision in ms")
        loads = given.busy.split(",")
        times: dict[tuple[str, str], list[float]] = {}
        for _ in range(given.rounds):
            for load in loads:
                for way in random.sample(list(WAYS), len(WAYS)):
                    command = [sys.executable, "-m", "benchmarks.busy", "--child", "--questions", str(given.questions), str(path)]
                    with busy(load):
                        done = subprocess.run(command, env={**os.environ, **WAYS[way]}, stdout=subprocess.PIPE, check=True)
                    times.setdefault((way, load), []).extend(json.loads(done.stdout))
        print("  ".join([f"{'busy cores':12}", *(f"{load:>16}" for load in loads)]))
        for way in WAYS:
            cells = [f"{np.median(times[way, load]):.1f} ({np.percentile(times[way, load], 95):.1f})" for load in loads]
            print("  ".join([f"{way:12}", *(f"{cell:>16}" for cell in cells)]))


if __name__ == "__main__":
    main()
