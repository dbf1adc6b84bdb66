"""One cloud, with the circuit breaker and the budget that guard it.

Owns how a call is reserved before it is made, and how its outcome and its cost are recorded afterwards. Knows nothing of queues or
decisions. Invariant: every call that was made is counted in the budget, and its outcome is known to the breaker.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from edge_agent.cloud.breaker import Breaker
from edge_agent.cloud.budget import Budget, Reservation
from edge_agent.cloud.wire.request import PROMPT_VERSION
from edge_agent.core.errors import StorageError
from edge_agent.core.limits import BudgetLimits
from edge_agent.core.outcome import CloudOutcome
from edge_agent.core.question import Question
from edge_agent.core.records import CloudKey
from edge_agent.core.settings import DEFAULT_LIMITS
from edge_agent.store.store import Store

if TYPE_CHECKING:  # httpx is loaded only when a cloud is called
    from edge_agent.cloud.wire.client import CloudModel


class Gate:
    """Access to one cloud. `breaker` and `budget` keep their state in the store."""

    def __init__(self, store: Store, cloud: CloudModel, limits: BudgetLimits = DEFAULT_LIMITS.budget) -> None:
        self._store, self.cloud = store, cloud
        self.breaker = Breaker(store, cloud.endpoint, cloud.key)
        self.budget = Budget(store, cloud.endpoint, limits)

    def key(self, fingerprint: str) -> CloudKey:
        """The key under which this cloud's answer to a question is stored."""
        return CloudKey(fingerprint, self.cloud.model, self.cloud.endpoint, PROMPT_VERSION)

    def reserve(self, send: Question) -> Reservation | None:
        """Count a call in a transaction of its own; returns None if it would exceed the budget, or cannot be stored."""
        if not self.budget.limits.is_set:
            return Reservation()
        with contextlib.suppress(StorageError), self._store.transaction():
            return self.budget.reserve(send)
        return None

    def note(self, reservation: Reservation | None, outcome: CloudOutcome | None) -> None:
        """Record the cost and the outcome of a call, in the caller's transaction; None means that it was not made."""
        if reservation is not None:
            self.budget.close(reservation, outcome)
        if outcome is not None:
            self.breaker.note(outcome.kind, outcome.error, outcome.retry_after_s)
