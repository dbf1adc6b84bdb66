"""A server under mixed traffic for a minute: nothing grows, leaks or gets lost. `python -m benchmarks.serve soak` runs for an hour."""

import os
import subprocess
import sys

import pytest

from benchmarks.serve_http import Facts
from benchmarks.serve_soak import grown
from tests.support.paths import ROOT

MINUTES = os.environ.get("EDGE_AGENT_TEST_SOAK_MINUTES", "1")


def soak(*flags: str) -> subprocess.CompletedProcess[str]:
    """In a separate process, which has no threads and file handles of other tests."""
    command = [sys.executable, "-m", "benchmarks.serve", "soak", "--minutes", MINUTES, *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def facts(anonymous: float = 80e6, n_files: int = 20, n_threads: int = 21) -> Facts:
    return Facts(int(anonymous) + 30_000_000, int(anonymous), 120_000_000, n_files, n_threads, 0.0)


def test_what_grows_is_told_from_what_goes_up_and_down() -> None:
    """40 bytes for each of 100 requests a second are a leak after half an hour; what comes and goes is none."""
    idle, times = facts(n_files=12), range(3600)
    assert grown([(t, facts(80e6 + 4e6 * (t % 60) / 60, 20 + t % 3, 21 + t % 2)) for t in times], idle, idle) == []
    leaks = [
        [(t, facts(anonymous=80e6 + 4000 * t)) for t in times],
        [(t, facts(n_files=20 + t // 300)) for t in times],
        [(t, facts(n_threads=21 + t // 300)) for t in times],
    ]
    for samples, word in zip(leaks, ("bytes", "file handles", "threads"), strict=True):
        (wrong,) = grown(samples, idle, idle)
        assert f"The {word} grew" in wrong
    (wrong,) = grown([(t, facts()) for t in times], idle, facts(n_files=14))
    assert "14 file handles" in wrong


@pytest.mark.skipif(sys.platform != "linux", reason="memory and file handles come from /proc")
def test_mixed_traffic_leaks_and_loses_nothing() -> None:
    done = soak()
    assert done.returncode == 0, done.stdout + done.stderr
