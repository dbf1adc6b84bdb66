"""What this machine is and can at best do: processor, governor, throttling, memory bandwidth, arithmetic rate.

Owns the measuring of the limit that stands beside a benchmark. Invariant: what the machine does not tell is None, never
a guess.
"""

from __future__ import annotations

import pathlib
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

_SYS = pathlib.Path("/sys/devices/system/cpu")
_BUFFER_BYTES = 192 << 20  # far more than any cache holds
_SECONDS = 0.4


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts about the machine; `governor` of the first processor, `throttled` as a Raspberry Pi's firmware tells it."""

    processor: str
    architecture: str
    n_cpus: int
    memory_bytes: int | None
    governor: str | None
    throttled: str | None


def describe(n_cpus: int) -> Machine:
    """This machine."""
    return Machine(_processor(), platform.machine(), n_cpus, _memory_bytes(), _read(_SYS / "cpu0/cpufreq/scaling_governor"), throttled())


def physical_cores() -> int | None:
    """Cores without counting those that share one; None where the system does not tell."""
    siblings = {text for path in _SYS.glob("cpu[0-9]*/topology/thread_siblings_list") if (text := _read(path))}
    return len(siblings) or None


def throttled() -> str | None:
    """The firmware's bits for under-voltage and throttling (`0x0` is good); None where there is no `vcgencmd`."""
    program = shutil.which("vcgencmd")
    if not program:
        return None
    done = subprocess.run([program, "get_throttled"], capture_output=True, text=True, timeout=5, check=False)
    return done.stdout.strip().partition("=")[2] or None


def read_bandwidth(n_threads: int) -> float:
    """Bytes a second that `n_threads` read from memory together, the best of several tries."""
    parts = [np.ones(_BUFFER_BYTES // 8 // n_threads, np.int64) for _ in range(n_threads)]
    with ThreadPoolExecutor(n_threads) as pool:
        return _best(lambda: list(pool.map(np.max, parts)), sum(part.nbytes for part in parts))


def multiply_rate() -> float:
    """Multiply-and-add operations a second of a matrix product in float32, by numpy's own library."""
    n = 768
    a = np.random.default_rng(0).standard_normal((n, n), np.float32)
    return _best(lambda: a @ a, n**3)


def _best(work: Callable[[], object], amount: float) -> float:
    """`amount` over the shortest of the tries that fit a moment."""
    work()
    shortest, until = float("inf"), time.perf_counter() + _SECONDS
    while (started := time.perf_counter()) < until:
        work()
        shortest = min(shortest, time.perf_counter() - started)
    return amount / shortest


def _processor() -> str:
    for line in (_read(pathlib.Path("/proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    model = _read(pathlib.Path("/proc/device-tree/model"))
    return (model or platform.processor() or "unknown").rstrip("\0")


def _memory_bytes() -> int | None:
    for line in (_read(pathlib.Path("/proc/meminfo")) or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def _read(path: pathlib.Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None
