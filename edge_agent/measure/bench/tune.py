"""Searches for the fastest options of the engine on this device: one option after another, keeping what is faster.

Owns the options and the order in which they are tried. Invariant: what is kept was measured here, with this file, and a
default stays unless another value is faster by more than the noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_agent.measure.bench import machine

LEAST_GAIN = 0.03  # a smaller gain is noise
_DEFAULTS = {"flash_attention": True, "n_batch": 256, "mlock": False}


@dataclass(frozen=True, slots=True)
class TuningStep:
    """One measurement: the options, the median decision in ms, and whether they are the best so far."""

    options: dict[str, Any]
    decision_ms: float
    best: bool


def knobs(n_cpus: int) -> list[tuple[str, Sequence[Any]]]:
    """Each option with the values to try, the most effective option first."""
    cores = machine.physical_cores()
    threads = sorted({n for n in (cores, cores - 1, n_cpus, n_cpus // 2) if n and 1 <= n <= n_cpus}) if cores else range(1, n_cpus + 1)
    return [
        ("n_threads_batch", list(threads)),
        ("n_threads", list(threads)),
        ("repack", (True, False)),
        ("flash_attention", (True, False)),
        ("n_batch", (256, 512)),
        ("mlock", (False, True)),
    ]


def search(
    measure: Callable[[dict[str, Any]], list[float]], n_cpus: int, tried: Sequence[tuple[str, Sequence[Any]]] | None = None
) -> Iterator[TuningStep]:
    """Yield each step when it is measured. The last one marked best has the options to keep.

    `measure` returns decision times in ms for some options.
    """
    options: dict[str, Any] = {"n_threads": n_cpus, "n_threads_batch": n_cpus, **_DEFAULTS}
    best = float(np.median(measure(options)))
    yield TuningStep(options, best, True)
    for name, values in knobs(n_cpus) if tried is None else tried:
        for value in values:
            candidate = options | {name: value}
            if candidate == options:
                continue
            took = float(np.median(measure(candidate)))
            if took < best * (1 - LEAST_GAIN):
                options, best = candidate, took
                yield TuningStep(candidate, took, True)
            else:
                yield TuningStep(candidate, took, False)
