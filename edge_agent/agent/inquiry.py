"""What is known of one question while it is decided, and the decision that is made of it.

Owns no rule and does no I/O: it is filled in by `agent.py` and read out here. Invariant: the answer of a decision is the one that its
route names.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from edge_agent.core.outcome import CloudKind
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer, Decision, ModelFacts, OpenReading, Reading, Timings
from edge_agent.core.routing import Plan, Policy, Settlement

if TYPE_CHECKING:  # httpx is loaded when a cloud is really called
    from edge_agent.cloud.client import CloudCall
    from edge_agent.core.outcome import CloudOutcome


@dataclass(slots=True)
class Facts:
    """What is known so far; ids where the store already has a fact."""

    question: Question
    reading: Reading | OpenReading | None = None
    reading_id: int | None = None
    model_ran: bool = False
    cloud: CloudAnswer | None = None
    cloud_id: int | None = None
    cloud_kind: CloudKind | None = None
    cloud_outcome: CloudOutcome | None = None
    cloud_call: CloudCall | None = None
    cloud_error: str | None = None
    reserved: int = 0
    over_budget: bool = False

    @property
    def recalled(self) -> bool:
        """Whether everything was in the store: no model was run, and no cloud called."""
        return not self.model_ran and self.cloud_outcome is None

    def answer(self, route: str) -> str:
        """The answer of this route."""
        return self.cloud.answer if route == "cloud" and self.cloud else self.reading.answer if self.reading else ""


def decision(
    facts: Facts, planned: Plan, settled: Settlement, policy: Policy, model: ModelFacts, *,
    decision_id: str, queue_id: int | None, storage_error: str | None, total_ms: float,
) -> Decision:  # fmt: skip
    """The decision as its caller gets it."""
    question, reading, answer = facts.question, facts.reading, facts.answer(settled.route)
    return Decision(
        decision_id=decision_id,
        answer=answer,
        answer_text=question.options[question.letters.index(answer)] if question.options else answer,
        confidence=reading.confidence if reading else None,
        expected_confidence=reading.expected_confidence if reading else None,
        level_probs=dict(zip(reading.levels, reading.level_probs, strict=True)) if reading else None,
        answer_probs=dict(zip(reading.letters, reading.answer_probs, strict=True)) if isinstance(reading, Reading) else None,
        format_mass=reading.format_mass if reading else None,
        route=settled.route,
        deferred=planned.cause is not None,
        recalled=facts.recalled,
        provisional=settled.provisional,
        reason=settled.reason.value,
        cause=planned.cause.value if planned.cause else None,
        readout=policy.readout,
        score=planned.score,
        tau=policy.tau,
        policy=policy.name.value,
        queue_id=queue_id,
        model=model,
        cloud=facts.cloud if settled.route == "cloud" else None,
        cloud_error=facts.cloud_error,
        timings=_timings(facts, total_ms),
        persisted=storage_error is None,
        storage_error=storage_error,
    )


def fits(question: Question, answer: str) -> bool:
    """Whether a stored answer can be this question's: a flipped bit may have made it another letter."""
    return bool(answer) and (not question.options or answer in tuple(question.letters))


def _timings(facts: Facts, total_ms: float) -> Timings:
    """The reading's own times when the model ran now; in all, what the caller waited."""
    total_ms = round(total_ms, 3)
    if not (facts.reading and facts.model_ran):
        return Timings(total_ms=total_ms)
    return Timings(**{**asdict(facts.reading.timings), "total_ms": total_ms})
