"""The calls to the cloud for questions that are asked together.

Owns which call starts when. Does not make calls, and knows nothing of budgets or decisions. Invariants: at most `MAX_CALLS` run at
once; after a call that brought no answer, none is started until its outcome is recorded, so that the circuit breaker knows of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from edge_agent.agent.inquiry import Inquiry
from edge_agent.core.outcome import CloudKind

MAX_CALLS = 2  # at once: a call's deadline runs from its start, and all share one line


class Calls:
    """Calls that are started with `start(inquiry)` in the order in which they are wanted.

    `start` may find that no call is allowed; then the inquiry has no `cloud_call`. If it raises, `want` does, too, and it is tried
    again later. Not thread-safe: the model's thread may want calls
    only while the caller's thread waits for it.
    """

    def __init__(self, start: Callable[[Inquiry], None]) -> None:
        self._start = start
        self._wanted: list[Inquiry] = []
        self._held: deque[Inquiry] = deque()
        self._running: list[Inquiry] = []
        self._failed: list[Inquiry] = []  # and not recorded yet

    def want(self, inquiry: Inquiry) -> None:
        """Call the cloud for this inquiry, now or when it is its turn. Wanting it twice is fine."""
        if inquiry not in self._wanted:
            self._wanted.append(inquiry)
            self._held.append(inquiry)
            self._start_some()

    def results(self) -> Iterator[Inquiry]:
        """Each inquiry that wanted a call, when its outcome is filled in. Record it before you take the next one."""
        for inquiry in self._wanted:
            self._start_some()  # before the first held one, all others are recorded, so it is started now
            self._take(inquiry)
            yield inquiry
            if inquiry in self._failed:
                self._failed.remove(inquiry)

    def _start_some(self) -> None:
        for inquiry in [one for one in self._running if one.cloud_call and one.cloud_call.is_over]:
            self._take(inquiry)
        while self._held and len(self._running) < MAX_CALLS and not self._failed:
            self._start(inquiry := self._held[0])
            self._held.popleft()
            if inquiry.cloud_call:
                self._running.append(inquiry)

    def _take(self, inquiry: Inquiry) -> None:
        """Wait for the outcome of a call that runs, and fill it in."""
        if inquiry not in self._running or inquiry.cloud_call is None:
            return
        outcome = inquiry.cloud_call.result()
        self._running.remove(inquiry)
        inquiry.cloud, inquiry.cloud_kind, inquiry.cloud_outcome = outcome.answer, outcome.kind, outcome
        inquiry.cloud_error, inquiry.over_budget = outcome.error, outcome.over_budget
        if outcome.kind is not CloudKind.ANSWERED:
            self._failed.append(inquiry)
