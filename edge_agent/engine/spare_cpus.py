"""How many CPUs other programs leave to the model.

Owns the reading of the kernel's CPU times. Starts no thread and changes no setting. Invariant: where the system does not tell (not
Linux, no /proc), all CPUs count as free.

Why: the threads of an evaluation wait for each other about a thousand times in a pass, and they wait by spinning. If a browser
uses one core, the thread there stands still while the others burn their share of time, and a decision takes 2 to 10 times as
long. With one thread for each free CPU, nobody waits. The answer stays the same to the bit. docs/speed.md has the figures, and
what was tried instead.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

_WINDOW_S = 0.05  # the kernel counts in steps of 10 ms
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ = 0, 1, 2, 5, 6  # columns of a line in /proc/stat, proc_stat(5)
_CGROUPS = pathlib.Path("/sys/fs/cgroup")


class CpuTimes(NamedTuple):
    """At `at_s` (a monotonic time): how long our `cpus` had worked for anybody, and for this process, in seconds."""

    at_s: float
    all_s: float
    own_s: float
    cpus: frozenset[int]


def available_cpus(groups: pathlib.Path = _CGROUPS, own: pathlib.Path = pathlib.Path("/proc/self/cgroup")) -> int:
    """The number of CPUs that this process may use, which `taskset`, or the quota of a container or a service, may limit."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([cpus, *_quotas(groups, own)])


def _quotas(groups: pathlib.Path, own: pathlib.Path) -> list[int]:
    """The CPUs that the quota of our control group, and of each above it, allows: at least 1 (cgroup v2, `cpu.max`)."""
    path = groups
    with contextlib.suppress(OSError, ValueError):
        name = next((line[4:] for line in own.read_text().splitlines() if line.startswith("0::/")), "")
        path = groups / name
    found = []
    for folder in (path, *path.parents):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):  # no cgroup v2, or no limit ("max")
            limit, period = (folder / "cpu.max").read_text().split()
            found.append(max(1, int(limit) // int(period)))
        if folder == groups:
            break
    return found


class SpareCpus:
    """Counts the CPUs that other programs leave free; the more often it is asked, the fresher the count.

    `n_cpus` is the most that it counts. `read` returns the CPU times; None where there are none. Tests replace it.
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
        if now is not None and now.cpus != self._last.cpus:
            self._n_spare = min(self._n_cpus, len(now.cpus))  # the times of other CPUs do not compare
        elif now is not None and (passed_s := now.at_s - self._last.at_s) > 0:
            others = (now.all_s - self._last.all_s - (now.own_s - self._last.own_s)) / passed_s
            self._n_spare = min(self._n_cpus, max(1, round(len(now.cpus) - others)))
        self._last = now
        return self._n_spare


def cpu_times() -> CpuTimes | None:
    """The CPU times of the CPUs that this process may use; None if the system does not tell.

    The time of programs that were started with `nice` counts only if this process is one of them: otherwise they give way to us.
    """
    try:
        cpus = frozenset(os.sched_getaffinity(0))
        is_nice = os.getpriority(os.PRIO_PROCESS, 0) > 0
        counted = (_USER, _SYSTEM, _IRQ, _SOFTIRQ, *((_NICE,) if is_nice else ()))
        ours = {f"cpu{n}".encode() for n in cpus}
        text = pathlib.Path("/proc/stat").read_bytes().partition(b"intr")[0]
        fields = [line.split() for line in text.splitlines()]
        ticks = sum(int(line[1 + column]) for line in fields if line[0] in ours for column in counted)
        return CpuTimes(time.monotonic(), ticks / _TICKS_PER_S, time.process_time(), cpus)
    except (OSError, AttributeError, ValueError, IndexError):
        return None
