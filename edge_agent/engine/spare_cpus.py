"""How many CPUs other programs leave to the model.

Owns the reading of the kernel's CPU times. Starts no thread and changes no setting. Invariant: where the system does not tell (not
Linux, no /proc), all CPUs count as free.

Why: the threads of an evaluation wait for each other about a thousand times in a pass, and they wait by spinning. If a browser
uses one core, the thread there stands still while the others burn their share of time, and a decision takes 2 to 10 times as
long. With one thread for each free CPU, nobody waits. The answer stays the same to the bit. benchmarks/README.md has the figures,
and what was tried instead.
"""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

_WINDOW_S = 0.05  # the kernel counts in steps of 10 ms
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_COUNTED = (0, 2, 5, 6)  # user, system, irq and softirq in a line of /proc/stat, proc_stat(5); `nice` gives way to us


class CpuTimes(NamedTuple):
    """At `at_s` (a monotonic time): how long our CPUs had worked for anybody, and for this process, in seconds."""

    at_s: float
    all_s: float
    own_s: float


def available_cpus(quota: pathlib.Path = pathlib.Path("/sys/fs/cgroup/cpu.max")) -> int:
    """The number of CPUs that this process may use, which `taskset` or a container's quota may limit."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        limit, period = quota.read_text().split()
        return max(1, min(cpus, int(limit) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):  # no cgroup v2, or no limit ("max")
        return cpus


class SpareCpus:
    """Counts the CPUs that other programs leave free; the more often it is asked, the fresher the count.

    `read` returns the CPU times; None where there are none. Tests replace it.
    """

    def __init__(self, n_cpus: int | None = None, read: Callable[[], CpuTimes | None] | None = None) -> None:
        self._n_cpus = n_cpus or available_cpus()
        self._read = read or cpu_times
        self._last = self._read()
        self._n_spare = self._n_cpus

    def count(self) -> int:
        """The number of CPUs that others left free since the last count, at least 1. Takes about 20 microseconds."""
        if self._last is None or time.monotonic() - self._last.at_s < _WINDOW_S:
            return self._n_spare
        now = self._read()
        if now is not None and (passed_s := now.at_s - self._last.at_s) > 0:
            others = (now.all_s - self._last.all_s - (now.own_s - self._last.own_s)) / passed_s
            self._n_spare = min(self._n_cpus, max(1, round(self._n_cpus - others)))
        self._last = now
        return self._n_spare


def cpu_times() -> CpuTimes | None:
    """The CPU times of the CPUs that this process may use; None if the system does not tell."""
    try:
        ours = {f"cpu{n}".encode() for n in os.sched_getaffinity(0)}
        text = pathlib.Path("/proc/stat").read_bytes().partition(b"intr")[0]
        fields = [line.split() for line in text.splitlines()]
        ticks = sum(int(line[1 + column]) for line in fields if line[0] in ours for column in _COUNTED)
        return CpuTimes(time.monotonic(), ticks / _TICKS_PER_S, time.process_time())
    except (OSError, AttributeError, ValueError, IndexError):
        return None
