"""What a decision looks like over HTTP: the object `edge_agent` in a reply, and the `X-Edge-*` headers.

Owns their names. Pure. Invariant: a header holds ASCII that no stranger wrote.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edge_agent.core.records import Decision


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
        "X-Edge-Tau": decision.tau,
        "X-Edge-Provisional": str(decision.provisional).lower(),
        "X-Edge-Recalled": str(decision.recalled).lower(),
        "X-Edge-Decision-Id": decision.decision_id if decision.persisted else None,
        "X-Edge-Queue-Id": decision.queue_id,
    }
    return {name: str(value) for name, value in found.items() if value is not None}
