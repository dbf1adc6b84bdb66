"""Which way a question goes, and why: pure functions over facts.

Owns policies, reasons and causes. No I/O, no clock, no model. Invariant: the same reading, policy and circumstances
make the same plan, and the same plan and outcome make the same settlement. So a stored decision can be checked, and
another threshold can be tried on yesterday's log.

    plan(None, ...)    -> READ or ASK_CLOUD        what is needed first
    plan(reading, ...) -> DONE or ASK_CLOUD        keep the answer, or ask the cloud
    settle(plan, kind) -> Settlement or None       how the question ended
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum

from edge_agent.core import readouts
from edge_agent.core.outcome import CloudKind
from edge_agent.core.records import LevelReading, OpenReading, Reading

RULE_VERSION = 4  # 2 added never_send, over_budget and queue_full, 3 calibrations, 4 plain models; each repeats every older decision


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
    NEVER_SEND = "never_send"
    OVER_BUDGET = "over_budget"
    QUEUE_FULL = "queue_full"
    DISK_LOW = "disk_low"


class Cause(StrEnum):
    """Why the cloud was wanted."""

    UNSURE = "unsure"
    NO_CONFIDENCE = "no_confidence"
    PREFER_CLOUD = "prefer_cloud"
    ONLY_CLOUD = "only_cloud"


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules in force: a name, the threshold `tau` (0 to 1), and the format mass below which there is no confidence.

    `tau` compares with the score of the `readout` (with its `weights`). Of the questions whose score is exactly tau, the share
    `tie_share` is deferred. `calibration` is the sha256 of the calibration that chose all this, "" if none did.
    """

    name: PolicyName = PolicyName.PREFER_LOCAL
    tau: float = 0.5
    format_mass_min: float = 0.5
    readout: str = readouts.CONFIDENCE
    weights: tuple[float, ...] = ()
    tie_share: float = 0.0
    calibration: str = ""

    def with_tau(self, tau: float) -> Policy:
        """The same with a tau that a person gives: it compares with the printed confidence, and no calibration counts."""
        return replace(self, tau=tau, readout=readouts.CONFIDENCE, weights=(), tie_share=0.0, calibration="")


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The facts around a decision at the moment it is made.

    `never_send`: this question must not leave the device. `over_budget`: nothing may be spent now. `queue_full`: no more
    questions can wait. `disk_low`: the rest of the disk is reserved for questions that already wait; nothing is stored, so
    replay never sees it. `draw` is this question's own number, 0 to 1 (`draw`), which decides where its score is exactly tau.
    """

    cloud_configured: bool
    never_send: bool = False
    over_budget: bool = False
    queue_full: bool = False
    disk_low: bool = False
    draw: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The next `step`; with DONE, the answer is the device's own and `reason` says why."""

    step: Step
    reason: Reason | None = None
    cause: Cause | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """How the question ended; `queue` means that the cloud must still be asked."""

    route: str
    reason: Reason
    provisional: bool = False
    queue: bool = False


def draw(fingerprint: str, salt: str) -> float:
    """A number from 0 to below 1 that belongs to a question, evenly spread over all questions; another `salt` gives another one."""
    return int.from_bytes(hashlib.sha256(f"draw-1:{salt}:{fingerprint}".encode()).digest()[:6]) / (1 << 48)


def plan(reading: LevelReading | None, policy: Policy, circumstances: Circumstances) -> Plan:
    """What to do next, given what is known so far.

    The level may be enough to know that the cloud is wanted: the letter can only lower the format mass. Where the readout needs the
    letter, the plan of a level is to read on. A question that must not be sent is answered on the device, whatever the policy says.
    """
    if policy.name is PolicyName.ONLY_CLOUD and not circumstances.never_send:
        return Plan(Step.ASK_CLOUD, cause=Cause.ONLY_CLOUD)
    if reading is None:
        return Plan(Step.READ)
    value = readouts.score(reading, policy.readout, policy.weights)
    if policy.name is PolicyName.ONLY_LOCAL:
        return Plan(Step.DONE, Reason.ONLY_LOCAL, score=value)
    cause = _cause(reading, value, policy, circumstances.draw)
    if cause is None:
        is_whole = isinstance(reading, (Reading, OpenReading))
        return Plan(Step.DONE, Reason.CONFIDENT, score=value) if is_whole or value is not None else Plan(Step.READ)
    if circumstances.never_send:
        return Plan(Step.DONE, Reason.NEVER_SEND, cause, value)
    if not circumstances.cloud_configured:
        return Plan(Step.DONE, Reason.NO_CLOUD, cause, value)
    return Plan(Step.ASK_CLOUD, cause=cause, score=value)


def _cause(reading: LevelReading, value: float | None, policy: Policy, draw: float) -> Cause | None:
    """Why the cloud is wanted, if it is."""
    if policy.name is PolicyName.ONLY_CLOUD:
        return Cause.ONLY_CLOUD
    if policy.name is PolicyName.PREFER_CLOUD:
        return Cause.PREFER_CLOUD
    if has_no_confidence(reading, policy.format_mass_min):
        return Cause.NO_CONFIDENCE
    if value is None:  # a plain model has no level, and an answer in words no probability; a level alone has no letter yet
        return Cause.NO_CONFIDENCE if isinstance(reading, (Reading, OpenReading)) else None
    return Cause.UNSURE if is_below(value, policy.tau, policy.tie_share, draw) else None


def has_no_confidence(reading: LevelReading, format_mass_min: float) -> bool:
    """Whether the model would more likely have printed something else than the format; a plain model has no format to keep."""
    return reading.format_mass is not None and reading.format_mass < format_mass_min


def is_below(value: float, tau: float, tie_share: float, draw: float) -> bool:
    """Whether a score is too low to keep the answer; of the scores that are exactly `tau`, the share `tie_share` is."""
    return value < tau or (value == tau and draw < tie_share)


def settle(planned: Plan, outcome: CloudKind | None, circumstances: Circumstances | None = None) -> Settlement | None:
    """How a planned question ends; `outcome` is how the cloud call ended, None if there was no call.

    Returns None if only the cloud may answer and it did not. A device's answer is final, not provisional, if the cloud will
    never be asked: the question must not be sent, or there is no room for it.
    """
    now = circumstances or Circumstances(cloud_configured=True)
    if planned.step is Step.DONE and (planned.cause is None or planned.reason is Reason.NEVER_SEND):
        assert planned.reason is not None
        return Settlement("local", planned.reason)
    if outcome is CloudKind.ANSWERED:
        assert planned.cause is not None
        return Settlement("cloud", Reason(planned.cause.value))
    if planned.cause is Cause.ONLY_CLOUD:
        return None
    if now.disk_low:
        return Settlement("local", Reason.DISK_LOW)
    if now.queue_full:
        return Settlement("local", Reason.QUEUE_FULL)
    if now.over_budget:
        return Settlement("local", Reason.OVER_BUDGET, provisional=True, queue=True)
    reason = planned.reason or (Reason.OFFLINE if outcome is CloudKind.OFFLINE else Reason.CLOUD_ERROR)
    return Settlement("local", reason, provisional=True, queue=True)
