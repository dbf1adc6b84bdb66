"""What this machine is and the most it can do: processor, governor, throttling, memory bandwidth, arithmetic rate.

Owns the measurement of the physical limit that a benchmark is compared with. Invariant: an unknown fact is None, never a
guess.
"""

from __future__ import annotations

import pathlib
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from edge_agent.engine import throttling

_SYS = pathlib.Path("/sys/devices/system/cpu")
_BUFFER_BYTES = 192 << 20  # far more than any cache holds
_SECONDS = 0.4


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts about the machine. `governor` is that of the first CPU; `throttled` comes from the firmware of a Raspberry Pi.

    `variant` is the one of a portable llama.cpp that runs here, and None if llama.cpp was compiled for one processor.
    """

    processor: str
    architecture: str
    n_cpus: int
    memory_bytes: int | None
    governor: str | None
    throttled: str | None
    variant: str | None = None


def describe(n_cpus: int) -> Machine:
    """The facts about this machine."""
    from edge_agent.engine import llama

    governor = _read(_SYS / "cpu0/cpufreq/scaling_governor")
    return Machine(_processor(), platform.machine(), n_cpus, _memory_bytes(), governor, throttled(), llama.variant())


def physical_cores() -> int | None:
    """The number of physical cores; None if unknown."""
    siblings = {text for path in _SYS.glob("cpu[0-9]*/topology/thread_siblings_list") if (text := _read(path))}
    return len(siblings) or None


def throttled(root: pathlib.Path = throttling.ROOT) -> str | None:
    """The firmware's bits for low voltage and throttling (`0x0` is good); None where nothing tells."""
    flags = throttling.flags(root)
    return None if flags is None else throttling.as_text(flags)


def read_bandwidth(n_threads: int) -> float:
    """Bytes a second that `n_threads` threads read from memory together; the best of several tries."""
    parts = [np.ones(_BUFFER_BYTES // 8 // n_threads, np.int64) for _ in range(n_threads)]
    with ThreadPoolExecutor(n_threads) as pool:
        return _best(lambda: list(pool.map(np.max, parts)), sum(part.nbytes for part in parts))


def multiply_rate() -> float:
    """Multiply-add operations a second in a float32 matrix product of numpy."""
    n = 768
    a = np.random.default_rng(0).standard_normal((n, n), np.float32)
    return _best(lambda: a @ a, n**3)


def _best(work: Callable[[], object], amount: float) -> float:
    """`amount` divided by the shortest time of several tries."""
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
