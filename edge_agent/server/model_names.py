"""The names by which a client chooses who may answer: `edge-auto`, `edge-auto-0.75`, `edge-local`, `edge-cloud`.

Owns these names, and the error for any other. Pure. Invariant: a name that is not ours is refused, so no client believes that it
reached another model.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from edge_agent.core.routing import PolicyName
from edge_agent.server.faults import Refusal

DEFAULT = "edge-auto"
ALIAS = "jev-latest"  # the default name of clients of the System One API
SINCE = "2026-11-01"  # the date of these names, not of the model behind them
DESCRIPTIONS = {
    DEFAULT: "This device answers, and the cloud where the device is not sure enough; edge-auto-0.75 sets how sure.",
    "edge-local": "This device alone answers.",
    "edge-cloud": "The cloud alone answers.",
}
NAMES = tuple(DESCRIPTIONS)


class Chosen(NamedTuple):
    """What a model's name says: the policy and the tau for this question, None where the agent's own count."""

    policy: str | None = None
    tau: float | None = None


def chosen(name: str) -> Chosen:
    """What a model's name says; `edge-auto-0.75` keeps answers from 0.75 on. Raises `Refusal` for a name that is not ours."""
    if name in (DEFAULT, ALIAS):
        return Chosen()
    if name == "edge-local":
        return Chosen(PolicyName.ONLY_LOCAL.value)
    if name == "edge-cloud":
        return Chosen(PolicyName.ONLY_CLOUD.value)
    found = re.fullmatch(r"edge-auto-(0(?:\.[0-9]{1,6})?|1(?:\.0{1,6})?)", name)
    if found is None:
        wanted = f"ask {', '.join(NAMES)}, {ALIAS}, or {DEFAULT}-0.75 for a tau of 0.75"
        if name.startswith(f"{DEFAULT}-"):
            wanted = f"after {DEFAULT}- write a tau from 0 to 1, as in {DEFAULT}-0.75"
        message = f"The model '{name:.80}' does not exist; {wanted}."
        raise Refusal(404, "model_not_found", message, "model")
    return Chosen(PolicyName.PREFER_LOCAL.value, float(found[1]))


def describe(name: str) -> str:
    """One sentence about a name that `chosen` knows."""
    return DESCRIPTIONS.get(DEFAULT if name.startswith(DEFAULT) or name == ALIAS else name, "")
