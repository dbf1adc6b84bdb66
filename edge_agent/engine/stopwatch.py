"""The times of one reading.

Owns when it was called, started and prefilled. Invariant: `timings` is in the units of `Timings`, milliseconds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from edge_agent.core.records import Timings


@dataclass(slots=True)
class Stopwatch:
    """The times of one reading, in seconds of `perf_counter`."""

    called: float
    started: float
    waited_ms: float
    n_forward: int
    n_cached: int
    n_prompt: int
    prefilled: float = 0.0

    def timings(self, n_forward: int) -> Timings:
        """The timings of a reading that ends now."""
        done = time.perf_counter()
        return Timings(
            prefill_ms=_ms(self.started, self.prefilled),
            decode_ms=_ms(self.prefilled, done),
            total_ms=_ms(self.called, done),
            n_prompt_tokens=self.n_prompt,
            n_cached_tokens=self.n_cached,
            n_forward=n_forward - self.n_forward,
            waited_ms=round(self.waited_ms, 3),
        )


def _ms(start: float, end: float) -> float:
    return round((end - start) * 1000, 3)
