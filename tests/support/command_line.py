"""`edge-agent` as people run it: in a separate process."""

import json
import os
import subprocess
import sys

CONTRACT = {
    "answer", "answer_text", "confidence", "expected_confidence", "level_probs", "answer_probs", "format_mass", "route", "deferred",
    "recalled", "provisional", "reason", "cause", "readout", "score", "tau", "policy", "decision_id", "queue_id", "model", "cloud",
    "timings", "persisted", "storage_error", "cloud_error", "cloud_confidence", "calibration",
}  # fmt: skip


ASK = ("ask", "What is 12 + 7?", "--option", "18", "--option", "19", "--option", "24")


def run(*arguments: str, stdin: str = "", timeout_s: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_agent", *arguments]
    every = {**os.environ, **environment}
    return subprocess.run(command, input=stdin, capture_output=True, text=True, env=every, timeout=timeout_s, check=False)


def ask(*more: str, **environment: str) -> dict:
    done = run(*ASK, "--json", *more, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
