"""When the wait of a caller is over: its stop event is set, its time is up, or the agent is closed.

Owns the clock of one wait. Invariant: a wait that is over stays over, and a sleep ends within a fifth of a second of it.
"""

from __future__ import annotations

import math
import threading
import time

from edge_agent.core.errors import BadSetting

_STEP_S = 0.2


class Until:
    """The end of one wait, from now: `timeout_s` seconds (None or infinite: no limit), or `stop`, or `closed`.

    Raises `BadSetting` for a wrong time or event.
    """

    def __init__(self, stop: threading.Event | None = None, timeout_s: float | None = None, closed: threading.Event | None = None) -> None:
        if timeout_s is not None and (not isinstance(timeout_s, (int, float)) or isinstance(timeout_s, bool) or math.isnan(timeout_s)):
            raise BadSetting(f"The timeout_s is {timeout_s!r:.80}; give a number of seconds, or None to wait without a limit.")
        if stop is not None and not isinstance(stop, threading.Event):
            raise BadSetting(f"The stop is {stop!r:.80}; give a threading.Event.")
        self._events = [event for event in (stop, closed) if event is not None]
        self._ends = math.inf if timeout_s is None else time.monotonic() + timeout_s

    @property
    def stopped(self) -> bool:
        """Whether the caller wants no more: an event is set."""
        return any(event.is_set() for event in self._events)

    @property
    def over(self) -> bool:
        """Whether an event is set or the time is up."""
        return self.stopped or time.monotonic() >= self._ends

    def sleep(self, seconds: float) -> None:
        """Wait this long, or until it is over."""
        wakes = min(time.monotonic() + seconds, self._ends)
        while not self.stopped and (left_s := wakes - time.monotonic()) > 0:
            if self._events:
                self._events[0].wait(min(left_s, _STEP_S))
            else:
                time.sleep(left_s)
