"""The interpreter ends while daemon threads use the model and the database."""

import pathlib
import subprocess
import sys

import pytest

from edge_agent.store.store import Store
from tests.support.paths import ROOT

PROGRAM = """
import itertools, sys, threading, time
from edge_agent import Agent, Question
one, asked = Agent.open(model="demo"), []

def ask():
    for number in itertools.count():
        one.ask(Question(f"What is {number} + 7?", ("18", "19", "24")), refresh=True)
        asked.append(number)

def follow():
    for ending in one.endings(0):
        pass

threading.excepthook = lambda about: None
for work in (ask, ask, follow):
    threading.Thread(target=work, daemon=True).start()
while len(asked) < 5:
    time.sleep(0.001)
time.sleep(float(sys.argv[1]))
"""


@pytest.mark.parametrize("later_s", [0.0, 0.003, 0.005, 0.011])
def test_interpreter_ends_in_order_while_threads_ask(home: pathlib.Path, later_s: float) -> None:
    """Without stopping the model first, about every second run ended with SIGSEGV."""
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(later_s)], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert (home / "edge-agent.db.open").read_text().startswith("closed")
    with Store(home / "edge-agent.db") as store:
        assert store.count_decisions() >= 15
