"""What a typed answer says beyond its API: the object `x_edge_agent`, the headers and the tokens that its request took.

Owns their fields. Pure. Invariant: the fields of the API itself are never bent for what stands here.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from edge_agent.core.records import Decision
from edge_agent.core.typed import TypedKind
from edge_agent.server import decided
from edge_agent.server.typed.rounds import Answered


class XEdgeAgent(BaseModel):
    """How a typed answer came about: the decision as `/edge/ask` shows it, and how it relates to the typed question."""

    model_config = ConfigDict(extra="allow")

    answered_by: str = Field(description="Whose probabilities the answer has: `device` or `cloud`.")
    trained: bool = Field(description="Whether a FogGen model was trained for this type (choice), or it is a mapping (yes/no, score).")
    route: str = Field(description="Who decided: `local` or `cloud`.")
    reason: str = Field(description="What decided the route.")
    cause: str | None = Field(description="Why the cloud was wanted, if it was.")
    provisional: bool = Field(description="Whether the answer is the device's own until a cloud's answer counts.")
    recalled: bool = Field(description="Whether everything was known from an earlier request.")
    confidence: float | None = Field(description="The confidence that the FogGen model printed; not the API's `confidence`.")
    expected_confidence: float | None = Field(description="The mean of the printed levels under their probabilities.")
    readout: str = Field(description="Which number of the reading compares with tau: the printed `confidence`, or another by calibration.")
    score: float | None = Field(description="That number.")
    tau: float = Field(description="The threshold: an answer with a score of at least this is kept.")
    calibration: str | None = Field(description="The sha256 of the calibration that chose readout and tau; null if none did.")
    decision_id: str = Field(description="The decision of the last round; read it at `/edge/decisions/{id}`.")
    queue_id: int | None = Field(description="The row of the queue in which the question waits for the cloud.")
    rounds: list[str] = Field(description="The decisions of all rounds, in the order asked; one for up to 26 options.")
    cloud: dict[str, Any] | None = Field(description="The cloud's model, latency, tokens, its `letter` and its `choice`.")
    cloud_confidence: float | None = Field(description="The probability that the cloud gave to its own letter.")


def x_edge_agent(answer: Answered, names: list[Any]) -> dict[str, Any]:
    """The object `x_edge_agent` of one answer; `names` are the options as the client named them."""
    decision = answer.decision
    data = decision.to_dict()
    cloud = data["cloud"]
    if decision.cloud and answer.cloud_choice is not None:
        cloud = {**cloud, "letter": decision.cloud.answer, "choice": names[answer.cloud_choice]}
    return {
        "cloud_confidence": None,
        **data,
        "answered_by": answer.answered_by,
        "trained": answer.asked.kind is TypedKind.CHOICE,
        "rounds": [one.decision_id for one in answer.decisions],
        "cloud": cloud,
    }


def headers(answers: list[Answered]) -> dict[str, str]:
    """The `X-Edge-*` headers, where a request was one decision."""
    one: Decision | None = answers[0].decision if len(answers) == 1 and len(answers[0].decisions) == 1 else None
    return decided.headers(one) if one else {}


def usage(answers: list[Answered]) -> decided.Usage:
    """The tokens that a request took, in all rounds of all its questions."""
    return decided.usage(decision for answer in answers for decision in answer.decisions)
