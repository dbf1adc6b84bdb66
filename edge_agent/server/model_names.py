"""The names by which a client chooses who may answer: `edge-auto`, `edge-auto-0.75`, `edge-local`, `edge-cloud`.

Owns these names. Pure. Invariant: a name that is not ours is refused, so no client believes that it reached another model.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from edge_agent.core.routing import PolicyName

NAMES = ("edge-auto", "edge-local", "edge-cloud")


class Chosen(NamedTuple):
    """What a model's name says: the policy and the tau for this question, None where the agent's own count."""

    policy: str | None = None
    tau: float | None = None


def chosen(name: str) -> Chosen | None:
    """What a model's name says; None for a name that is not ours. `edge-auto-0.75` keeps answers from 0.75 on."""
    if name == "edge-auto":
        return Chosen()
    if name == "edge-local":
        return Chosen(PolicyName.ONLY_LOCAL.value)
    if name == "edge-cloud":
        return Chosen(PolicyName.ONLY_CLOUD.value)
    found = re.fullmatch(r"edge-auto-(0(?:\.[0-9]{1,6})?|1(?:\.0{1,6})?)", name)
    return Chosen(PolicyName.PREFER_LOCAL.value, float(found[1])) if found else None
