"""Which way a question goes, and why: pure functions over facts.

Owns policies, reasons and causes. No I/O, no clock, no model. Invariant: the same reading, policy and circumstances
give the same plan, and the same plan and outcome the same settlement - so a stored decision can be checked, and
another threshold tried on yesterday's log.

    plan(None, ...)    -> READ or ASK_CLOUD        what must be known first
    plan(reading, ...) -> DONE or ASK_CLOUD        keep the answer, or ask the cloud
    settle(plan, kind) -> Settlement or None       what came of asking
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edge_agent.records import LevelReading

RULE_VERSION = 1


class PolicyName(StrEnum):
    """How cloud and device share the work."""

    PREFER_LOCAL = "prefer_local"
    ONLY_LOCAL = "only_local"
    PREFER_CLOUD = "prefer_cloud"
    ONLY_CLOUD = "only_cloud"


class Step(StrEnum):
    """What a plan asks for next."""

    READ = "read"
    ASK_CLOUD = "ask_cloud"
    DONE = "done"


class Reason(StrEnum):
    """What decided the route."""

    CONFIDENT = "confident"
    UNSURE = "unsure"
    NO_CONFIDENCE = "no_confidence"
    ONLY_LOCAL = "only_local"
    ONLY_CLOUD = "only_cloud"
    PREFER_CLOUD = "prefer_cloud"
    NO_CLOUD = "no_cloud"
    OFFLINE = "offline"
    CLOUD_ERROR = "cloud_error"


class Cause(StrEnum):
    """Why the cloud was wanted."""

    UNSURE = "unsure"
    NO_CONFIDENCE = "no_confidence"
    PREFER_CLOUD = "prefer_cloud"
    ONLY_CLOUD = "only_cloud"


class CloudKind(StrEnum):
    """How a call to the cloud ended."""

    ANSWERED = "answered"
    OFFLINE = "offline"  # no connection was made: nothing was sent
    TIMEOUT = "timeout"  # sent, perhaps answered and billed; nothing came in time
    REFUSED = "refused"  # the key was not accepted (401, 403)
    LIMITED = "limited"  # too many calls, or no credit (402, 429)
    FAILED = "failed"  # another HTTP status
    UNUSABLE = "unusable"  # a reply without an answer in it


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules in force: a name, the threshold `tau` (0 to 1) and what counts as a confidence at all."""

    name: PolicyName = PolicyName.PREFER_LOCAL
    tau: float = 0.5
    format_mass_min: float = 0.5
    readout: str = "confidence"


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the world is like at the moment of the decision."""

    cloud_configured: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The next `step`; with DONE, the answer is the device's own and `reason` says why."""

    step: Step
    reason: Reason | None = None
    cause: Cause | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """How the question went in the end; `queue` says that the cloud is still to be asked."""

    route: str
    reason: Reason
    provisional: bool = False
    queue: bool = False


def score(reading: LevelReading, readout: str) -> float:
    """The number that is compared with tau."""
    return {"confidence": reading.confidence, "expected_confidence": reading.expected_confidence}[readout]


def plan(reading: LevelReading | None, policy: Policy, circumstances: Circumstances) -> Plan:
    """What to do, given what is known so far.

    A level alone is enough to know that the cloud is wanted; what the letter adds can only lower the format mass.
    """
    if policy.name is PolicyName.ONLY_CLOUD:
        return Plan(Step.ASK_CLOUD, cause=Cause.ONLY_CLOUD)
    if reading is None:
        return Plan(Step.READ)
    value = score(reading, policy.readout)
    if policy.name is PolicyName.ONLY_LOCAL:
        return Plan(Step.DONE, Reason.ONLY_LOCAL, score=value)
    if policy.name is PolicyName.PREFER_CLOUD:
        cause = Cause.PREFER_CLOUD
    elif reading.format_mass < policy.format_mass_min:
        cause = Cause.NO_CONFIDENCE
    elif value < policy.tau:
        cause = Cause.UNSURE
    else:
        return Plan(Step.DONE, Reason.CONFIDENT, score=value)
    if not circumstances.cloud_configured:
        return Plan(Step.DONE, Reason.NO_CLOUD, cause, value)
    return Plan(Step.ASK_CLOUD, cause=cause, score=value)


def settle(planned: Plan, outcome: CloudKind | None) -> Settlement | None:
    """What came of the plan: `outcome` is how the cloud call ended, None where none was made.

    None when the policy allows nothing but the cloud and the cloud gave no answer.
    """
    if planned.step is Step.DONE:
        assert planned.reason is not None
        wanted = planned.cause is not None
        return Settlement("local", planned.reason, provisional=wanted, queue=wanted)
    if outcome is CloudKind.ANSWERED:
        assert planned.cause is not None
        return Settlement("cloud", Reason(planned.cause.value))
    if planned.cause is Cause.ONLY_CLOUD:
        return None
    reason = Reason.OFFLINE if outcome is CloudKind.OFFLINE else Reason.CLOUD_ERROR
    return Settlement("local", reason, provisional=True, queue=True)
