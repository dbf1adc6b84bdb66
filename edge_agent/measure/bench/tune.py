"""Looks for the engine's fastest settings on this device: one knob after the other, keeping what is measurably faster.

Owns the knobs and the order in which they are tried. Invariant: what is kept was measured here, on the file in question,
and the defaults stay unless something beats them by more than the noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_agent.measure.bench import machine

WORTH = 0.03  # a gain below this is noise
_DEFAULTS = {"flash_attention": True, "n_batch": 256, "mlock": False}


@dataclass(frozen=True, slots=True)
class TuningStep:
    """Options that were tried, the median decision in ms, and whether they are the best so far."""

    options: dict[str, Any]
    decision_ms: float
    best: bool


def knobs(n_cpus: int) -> list[tuple[str, Sequence[Any]]]:
    """Each knob with the values that are tried, the most effective first."""
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
    """Yield each trial as it was measured; the last one marked best has the options to keep.

    `measure` gives decision times in ms under options.
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
            if took < best * (1 - WORTH):
                options, best = candidate, took
                yield TuningStep(candidate, took, True)
            else:
                yield TuningStep(candidate, took, False)
