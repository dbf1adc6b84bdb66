"""One question in progress: what is known so far, and the decision made from it.

Owns no rule and does no I/O: `agent.py` fills it in, `recording.py` stores it. Invariant: a decision's answer comes from
the route that it names.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from edge_agent.core import routing
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer, Decision, ModelFacts, OpenReading, Reading, ReadingKey, Timings
from edge_agent.core.routing import Circumstances, Plan, Policy, PolicyName, Settlement
from edge_agent.store.database import Patience

if TYPE_CHECKING:  # httpx is loaded only when a cloud is called
    from edge_agent.cloud.budget import Reservation
    from edge_agent.cloud.wire.call import CloudCall
    from edge_agent.model.calibration import Calibration


@dataclass(slots=True, eq=False)
class Inquiry:
    """What is known so far about one question; an id is set where the store already has the fact.

    Ids belong to the file that was open when the database's `n_opened` was the one here.
    `own_tau` and `own_policy` were given with the question. `policy`, `calibration`, `model` and `profile_sha256` are those of the
    model that reads it (`rules_in_force.py`). It is finished when `planned` and `settled` are set.
    """

    question: Question
    circumstances: Circumstances
    own_tau: float | None = None
    own_policy: PolicyName | None = None
    policy: Policy = field(init=False)
    calibration: Calibration | None = field(init=False)
    model: ModelFacts = field(init=False)
    profile_sha256: str = field(init=False)
    started: float = field(default_factory=time.perf_counter)
    reading: Reading | OpenReading | None = None
    reading_id: int | None = None
    n_opened: int = 0
    model_ran: bool = False
    cloud: CloudAnswer | None = None
    cloud_id: int | None = None
    cloud_kind: CloudKind | None = None
    cloud_outcome: CloudOutcome | None = None
    cloud_call: CloudCall | None = None
    cloud_error: str | None = None
    reservation: Reservation | None = None
    over_budget: bool = False
    patience: Patience = field(default_factory=Patience)
    planned: Plan | None = None
    settled: Settlement | None = None

    def plan(self) -> Plan:
        """What to do next."""
        return routing.plan(self.reading, self.policy, self.circumstances)

    @property
    def reading_key(self) -> ReadingKey:
        """The key of its stored reading."""
        return ReadingKey(self.question.fingerprint, self.model.sha256, self.model.adapter_sha256, self.profile_sha256)

    @property
    def recalled(self) -> bool:
        """Whether everything was in the store: no model ran, and no cloud was called."""
        return not self.model_ran and self.cloud_outcome is None

    @property
    def answer(self) -> str:
        """The answer of the settled route."""
        assert self.settled is not None
        if self.settled.route == "cloud" and self.cloud:
            return self.cloud.answer
        return self.reading.answer if self.reading else ""

    def fits(self, answer: str) -> bool:
        """Whether a stored answer can belong to this question: a flipped bit may have changed its letter."""
        return bool(answer) and (not self.question.options or answer in tuple(self.question.letters))

    def decision(self, decision_id: str, queue_id: int | None, storage_error: str | None) -> Decision:
        """The decision for the caller; `storage_error` says why it is not stored, if it is not."""
        assert self.planned is not None and self.settled is not None
        question, reading, planned, settled, answer = self.question, self.reading, self.planned, self.settled, self.answer
        return Decision(
            decision_id=decision_id,
            answer=answer,
            answer_text=question.options[question.letters.index(answer)] if question.options else answer,
            confidence=reading.confidence if reading else None,
            expected_confidence=reading.expected_confidence if reading else None,
            level_probs=dict(zip(reading.levels, reading.level_probs, strict=True)) if reading and reading.levels else None,
            answer_probs=dict(zip(reading.letters, reading.answer_probs, strict=True)) if isinstance(reading, Reading) else None,
            format_mass=reading.format_mass if reading else None,
            route=settled.route,
            deferred=planned.cause is not None,
            recalled=self.recalled,
            provisional=settled.provisional,
            reason=settled.reason.value,
            cause=planned.cause.value if planned.cause else None,
            readout=self.policy.readout,
            score=planned.score,
            tau=self.policy.tau,
            calibration=self.policy.calibration or None,
            policy=self.policy.name.value,
            queue_id=queue_id,
            model=self.model,
            cloud=self.cloud if settled.route == "cloud" else None,
            cloud_error=self.cloud_error,
            timings=self._timings(),
            persisted=storage_error is None,
            storage_error=storage_error,
            cloud_confidence=self.cloud.confidence if self.cloud and settled.route == "cloud" else None,
        )

    def _timings(self) -> Timings:
        """The reading's own times if the model ran now; `total_ms` is the caller's wait."""
        total_ms = round((time.perf_counter() - self.started) * 1000, 3)
        if not (self.reading and self.model_ran):
            return Timings(total_ms=total_ms)
        return Timings(**{**asdict(self.reading.timings), "total_ms": total_ms})
