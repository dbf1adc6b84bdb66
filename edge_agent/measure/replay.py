"""Replays decisions from their stored facts: derives them again, checks them against the log, and tries other policies.

Owns the reading of stored facts and the comparison. Runs no model and asks no cloud. Running the model again would not be
a replay, because prefix caching and batch shape change the low bits of its logits. Invariant: an answer that no stored fact
gives is unknown, and counts as unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from edge_agent.core import routing
from edge_agent.core.outcome import CloudKind
from edge_agent.core.question import same
from edge_agent.core.records import CloudAnswer, OpenReading, Reading
from edge_agent.core.routing import Circumstances, Policy, PolicyName, Step

_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, OverflowError)  # what reading a damaged fact can raise


@dataclass(frozen=True, slots=True)
class DecisionFacts:
    """The stored facts of one decision. `cloud` is the answer it took or ended with; `any_cloud` is the newest one stored.

    `removed` means that there was such an answer, but that it was deleted to free space.
    """

    rule_version: int
    policy: Policy
    circumstances: Circumstances
    reading: Reading | OpenReading | None
    cloud_kind: CloudKind | None
    cloud: CloudAnswer | None
    any_cloud: CloudAnswer | None
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Replayed:
    """What follows from the facts. `answer` is None if it is unknown; `differences` list where the log says something else.

    `unknown` is true if the cloud's answer was deleted to free space; the rest still follows from the facts.
    """

    answer: str | None
    route: str
    reason: str
    cause: str | None
    score: float | None
    provisional: bool
    differences: tuple[str, ...]
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class Tally:
    """What a policy costs and answers over a log.

    `deferred` questions want the cloud. Each is asked once: `cloud_calls`, with `cloud_tokens` where the number is known.
    `unknown` decisions have an answer that no stored fact gives. `changed` decisions have another final answer than the log.
    """

    decisions: int
    kept: int
    deferred: int
    deferral_rate: float
    cloud_calls: int
    cloud_tokens: int
    unknown: int
    changed: int


def facts(row: dict[str, Any]) -> DecisionFacts:
    """The facts in a row of `Store.decisions`. Raises one of `_DAMAGED` if they are damaged."""
    policy = json.loads(row["policy"])
    circumstances = json.loads(row["circumstances"])
    known = {field.name for field in fields(Circumstances)}
    return DecisionFacts(
        rule_version=row["rule_version"],
        policy=Policy(**{**policy, "name": PolicyName(policy["name"]), "weights": tuple(policy.get("weights", ()))}),
        circumstances=Circumstances(**{name: circumstances[name] for name in known & circumstances.keys()}),
        reading=Reading.from_json(row["reading"]) if row["reading"] else None,
        cloud_kind=CloudKind(row["cloud_kind"]) if row["cloud_kind"] else None,
        cloud=_cloud_answer(row["cloud_answer"]),
        any_cloud=_cloud_answer(row["any_cloud_answer"]),
        removed=row["cloud_answer"] == "",
    )


def replay(row: dict[str, Any]) -> Replayed:
    """Derive a row of `Store.decisions` from its facts, and list where the row says something else."""
    try:
        return _derive(row)
    except _DAMAGED as error:
        return _underivable(row, f"its facts are damaged ({type(error).__name__})")


def _derive(row: dict[str, Any]) -> Replayed:
    found = facts(row)
    if found.rule_version > routing.RULE_VERSION:
        return _underivable(row, f"it needs rule version {found.rule_version}, but this edge-agent has only {routing.RULE_VERSION}")
    planned = routing.plan(found.reading, found.policy, found.circumstances)
    settled = None if planned.step is Step.READ else routing.settle(planned, found.cloud_kind, found.circumstances)
    if settled is None:
        return _underivable(row, "no answer follows from its facts")
    source = found.cloud if settled.route == "cloud" else found.reading
    derived: dict[str, Any] = {
        "answer": source.answer if source else None,
        "route": settled.route,
        "reason": settled.reason.value,
        "cause": planned.cause.value if planned.cause else None,
        "score": planned.score,
        "provisional": settled.provisional,
    }
    expected = {**derived, "deferred": planned.cause is not None}
    if settled.route == "cloud" and found.removed:
        del expected["answer"]
    stored = {name: bool(row[name]) if name in ("provisional", "deferred") else row[name] for name in expected}
    differences = [f"{name} is {stored[name]!r}, but {expected[name]!r} follows" for name in expected if stored[name] != expected[name]]
    differences += _wrong_ending(row, found)
    return Replayed(**derived, differences=tuple(differences), unknown=found.removed)


def _wrong_ending(row: dict[str, Any], found: DecisionFacts) -> list[str]:
    """The errors in the ending of a provisional decision."""
    ending, final = row["ending"], row["final_answer"]
    if ending in (None, "abandoned"):
        wrong = final is not None or (ending == "abandoned" and not row["provisional"])
        return [f"ending is {ending!r} with the final answer {final!r}"] if wrong else []
    if not row["provisional"] or (found.cloud is None and not found.removed):
        return [f"ending is {ending!r}, but it was not provisional or no cloud answer is stored"]
    answer = found.cloud.answer if found.cloud else str(final)
    due = "upheld" if same(row["answer"], answer) else "overturned"
    if (ending, final) != (due, answer):
        return [f"ending is {ending!r} with {final!r}, but {due!r} with {answer!r} follows"]
    return []


def final_answer(row: dict[str, Any]) -> str:
    """The final answer of a decision."""
    return str(row["final_answer"] if row["final_answer"] is not None else row["answer"])


def compare(rows: Iterable[dict[str, Any]], tau: float | None = None, policy: PolicyName | None = None) -> tuple[Tally, Tally]:
    """What the policies in the log cost, and what another `tau`, `policy` or both would have cost, over all `rows`.

    A `tau` compares with the printed confidence, whatever calibration decided; a `policy` alone keeps the calibration. The cloud counts
    as reachable, with the answers that it gave before. A question that must not be sent is not sent here either.
    """
    ours, theirs = _Count(), _Count()
    for row in rows:
        try:
            found = facts(row)
            other = replace(found.policy if tau is None else found.policy.with_tau(tau), name=policy or found.policy.name)
            wanted = [_would(found, rules) for rules in (found.policy, other)]
        except _DAMAGED:
            wanted = [(None, False, None)] * 2
        for count, (answer, deferred, cloud) in zip((ours, theirs), wanted, strict=True):
            count.add(row, answer, deferred, cloud)
    return ours.tally(), theirs.tally()


def _would(found: DecisionFacts, policy: Policy) -> tuple[str | None, bool, CloudAnswer | None]:
    """The answer under a policy, whether the policy wants the cloud, and the cloud's answer if it is stored."""
    circumstances = replace(found.circumstances, cloud_configured=True, queue_full=False, over_budget=False)
    planned = routing.plan(found.reading, policy, circumstances)
    if planned.step is Step.ASK_CLOUD:
        return found.any_cloud.answer if found.any_cloud else None, True, found.any_cloud
    return found.reading.answer if found.reading else None, False, None


class _Count:
    """Adds up one policy's `Tally`."""

    def __init__(self) -> None:
        self.decisions = self.deferred = self.unknown = self.changed = 0
        self.calls: dict[str, int] = {}

    def add(self, row: dict[str, Any], answer: str | None, deferred: bool, cloud: CloudAnswer | None) -> None:
        self.decisions += 1
        self.deferred += deferred
        self.unknown += answer is None
        self.changed += answer is not None and not same(answer, final_answer(row))
        if deferred:
            self.calls[row["fingerprint"]] = (cloud.n_prompt_tokens or 0) + (cloud.n_completion_tokens or 0) if cloud else 0

    def tally(self) -> Tally:
        n = self.decisions
        rate = self.deferred / n if n else 0.0
        return Tally(n, n - self.deferred, self.deferred, rate, len(self.calls), sum(self.calls.values()), self.unknown, self.changed)


def _underivable(row: dict[str, Any], why: str) -> Replayed:
    return Replayed(None, row["route"], row["reason"], row["cause"], row["score"], bool(row["provisional"]), (why,))


def _cloud_answer(text: str | None) -> CloudAnswer | None:
    return CloudAnswer.from_json(text) if text else None
