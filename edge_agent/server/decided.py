"""What a decision looks like over HTTP: the object `edge_agent` in a reply, the `X-Edge-*` headers, and the tokens that it took.

Owns their names. Pure. Invariants: a header holds ASCII that no stranger wrote; probabilities belong to whoever answered.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from edge_agent.core.records import Decision

CHOSEN_TOKENS = 2  # of a choice: the level and the letter; the format says all others


class Usage(NamedTuple):
    """The tokens that a request took, on this device and in the cloud; `n_cached` of the prompt were in the device's cache."""

    n_prompt: int = 0
    n_cached: int = 0
    n_completion: int = 0

    @property
    def n_total(self) -> int:
        """Both kinds together."""
        return self.n_prompt + self.n_completion

    def as_object(self) -> dict[str, Any]:
        """The object `usage` of OpenAI's responses and decisions."""
        return {
            "input_tokens": self.n_prompt,
            "input_tokens_details": {"cached_tokens": self.n_cached, "cache_write_tokens": 0},
            "output_tokens": self.n_completion,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.n_total,
        }


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
        "X-Edge-Readout": decision.readout,
        "X-Edge-Score": decision.score,
        "X-Edge-Tau": decision.tau,
        "X-Edge-Calibration": decision.calibration,
        "X-Edge-Provisional": str(decision.provisional).lower(),
        "X-Edge-Recalled": str(decision.recalled).lower(),
        "X-Edge-Decision-Id": decision.decision_id if decision.persisted else None,
        "X-Edge-Queue-Id": decision.queue_id,
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def usage(decisions: Iterable[Decision]) -> Usage:
    """What was evaluated now for these decisions: the device's readings and, where the cloud answered, what it counted itself.

    An open answer takes one pass for each token. A recalled decision took nothing.
    """
    n_prompt = n_cached = n_completion = 0
    for decision in decisions:
        timings, cloud = decision.timings, decision.cloud
        if timings.n_forward:
            n_prompt += timings.n_prompt_tokens
            n_cached += timings.n_cached_tokens
            n_completion += CHOSEN_TOKENS if decision.answer_probs is not None else timings.n_forward
        if cloud is not None and not decision.recalled:
            n_prompt += cloud.n_prompt_tokens or 0
            n_completion += cloud.n_completion_tokens or 0
    return Usage(n_prompt, n_cached, n_completion)


def probs(decision: Decision) -> dict[str, float] | None:
    """The probability of every letter by whoever answered; None if they gave none."""
    if decision.route == "local":
        return decision.answer_probs
    return decision.cloud.probs if decision.cloud else None


def confidence(decision: Decision) -> float | None:
    """How sure whoever answered was; None if they did not say."""
    return decision.confidence if decision.route == "local" else decision.cloud_confidence
