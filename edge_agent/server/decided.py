"""What a decision looks like over HTTP: the object `edge_agent` in a reply, the `X-Edge-*` headers, and the tokens that it took.

Owns their names. Pure. Invariants: a header holds ASCII that no stranger wrote; probabilities belong to whoever answered.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from edge_agent.core.records import Decision

CHOSEN_TOKENS = 2


class Usage(NamedTuple):
    """The tokens that this answer took now: nothing if it was remembered."""

    n_prompt: int = 0
    n_cached: int = 0
    n_completion: int = 0

    @property
    def n_total(self) -> int:
        """Both kinds together."""
        return self.n_prompt + self.n_completion


def as_object(decision: Decision, ignored: Iterable[str] = ()) -> dict[str, Any]:
    """The object `edge_agent`: the whole decision, and the parameters of the request that do nothing here."""
    return {**decision.to_dict(), "ignored": sorted(ignored)}


def headers(decision: Decision) -> dict[str, str]:
    """The headers of a reply that holds one decision."""
    found: dict[str, object] = {
        "X-Edge-Route": decision.route,
        "X-Edge-Reason": decision.reason,
        "X-Edge-Cause": decision.cause,
        "X-Edge-Confidence": decision.confidence,
        "X-Edge-Cloud-Confidence": decision.cloud_confidence,
        "X-Edge-Tau": decision.tau,
        "X-Edge-Provisional": str(decision.provisional).lower(),
        "X-Edge-Recalled": str(decision.recalled).lower(),
        "X-Edge-Decision-Id": decision.decision_id if decision.persisted else None,
        "X-Edge-Queue-Id": decision.queue_id,
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def usage(decision: Decision) -> Usage:
    """What was evaluated for this answer: by the cloud if it answered, otherwise by this device.

    Of a choice the model chooses two tokens, the level and the letter: the format says the others. An open answer takes a pass a token.
    """
    if decision.recalled:
        return Usage()
    if decision.route == "cloud" and decision.cloud is not None:
        return Usage(decision.cloud.n_prompt_tokens or 0, 0, decision.cloud.n_completion_tokens or 0)
    timings = decision.timings
    n_chosen = CHOSEN_TOKENS if decision.answer_probs is not None else timings.n_forward
    return Usage(timings.n_prompt_tokens, timings.n_cached_tokens, n_chosen)


def probs(decision: Decision) -> dict[str, float] | None:
    """The probability of every letter by whoever answered; None if they gave none."""
    if decision.route == "local":
        return decision.answer_probs
    return decision.cloud.probs if decision.cloud else None


def confidence(decision: Decision) -> float | None:
    """How sure whoever answered was; None if they did not say."""
    return decision.confidence if decision.route == "local" else decision.cloud_confidence
