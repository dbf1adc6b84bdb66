"""The quantization ladder: what several files of one model answer to the same questions, and which one to choose.

Owns the pairing by question, the tau of each file that sends the same share to the cloud, and the rule of choice. Invariants: all
files are compared on the questions that all have answered, and a tau is measured on questions that did not choose it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_agent.core import routing
from edge_agent.core.errors import BadData
from edge_agent.core.terminal import shortened
from edge_agent.measure import metrics
from edge_agent.measure.evaluation import routed
from edge_agent.measure.metrics import Threshold
from edge_agent.measure.report.measured import Measured, mean_known
from edge_agent.measure.results import Bools, Floats

ALLOWED_LOSS = 0.01
"""How much accuracy a cheaper file may cost: one point."""
_HALVES = "ladder"  # the salt that parts the questions
_RIGHT = 0.5  # a graded answer counts as right from here on, where a figure needs right or wrong


@dataclass(frozen=True, slots=True)
class Rung:
    """One file; the first of the ladder is the one that the others are compared with. Shares are fractions.

    `read_ms` is the median, which other programs disturb least. `accuracy` is the device's alone, with its interval `low` to `high`.
    `routed` and `changed` (routes that differ from the first file's) are at the first file's tau. `own` is the threshold that sends
    the first file's share `target`; on questions that did not choose it, it sends `reached`, whose 95 % interval allows for the
    sampling error of both halves. `system` is the accuracy with the cloud at that threshold, `difference` how it differs from the
    first file's, paired by question.
    """

    name: str
    heading: str
    has_cloud: bool
    questions: int
    size_bytes: int | None
    read_ms: float
    accuracy: float
    low: float
    high: float
    auroc: float
    routed: float
    changed: float
    target: float
    own: Threshold
    reached: float
    reached_low: float
    reached_high: float
    system: float
    difference: float
    difference_low: float
    difference_high: float

    @property
    def reaches(self) -> bool:
        """Whether its own tau sends the wanted share, within sampling error."""
        return self.reached_low <= self.target <= self.reached_high


def climb(models: Sequence[Measured]) -> tuple[Rung, ...]:
    """One rung for each model, in their order. Raises `BadData` if they have no question in common."""
    common = _common(models)
    names = _names(models)
    first = common[0]
    tests = np.array([routing.draw(print_, _HALVES) < 0.5 for print_ in first.results.fingerprints], np.bool_)
    if tests.all() or not tests.any():
        tests = np.arange(len(tests)) % 2 == 1
    target, base = first.routed, _outcome(first, tests, first.routed)[2]
    return tuple(_rung(name, model, first, target, tests, base) for name, model in zip(names, common, strict=True))


def choose(rungs: Sequence[Rung]) -> tuple[Rung, str]:
    """The file to take and why, in one sentence.

    It is the fastest one that costs at most `ALLOWED_LOSS` of accuracy against the first file at the same share of cloud calls, by
    the lower end of the paired 95 % interval.
    """
    first = rungs[0]
    good = [rung for rung in rungs if rung is first or rung.difference_low >= -ALLOWED_LOSS]
    best = min(good, key=lambda rung: (rung.read_ms if math.isfinite(rung.read_ms) else math.inf, rung.size_bytes or 0))
    points = f"{100 * ALLOWED_LOSS:g} point"
    if best is first:
        why = "it is the fastest of these files" if len(good) == len(rungs) else f"no faster file is sure to cost at most {points}"
        return best, f"Choose {best.name}: {why}."
    return best, (
        f"Choose {best.name}: it is the fastest file that costs at most {points} against {first.name} at the same share of cloud calls "
        f"({_signed(best.difference)} points, 95 % interval {_signed(best.difference_low)} to {_signed(best.difference_high)})."
    )


def _rung(name: str, model: Measured, first: Measured, target: float, tests: Bools, base: Floats) -> Rung:
    results, at = model.results, model.graded
    alone = routed.share_of(results.edge_correct[at])
    own, deferred, outcome = _outcome(model, tests, target)
    known_ms = results.read_ms[~np.isnan(results.read_ms)]
    # Twice the variance: the half that chose the threshold has a sampling error, too.
    half = max(len(deferred) // 2, 1)
    reached = metrics.wilson(round(float(deferred.mean()) * half), half)
    both = ~np.isnan(outcome) & ~np.isnan(base)
    difference, interval = metrics.paired_difference(metrics.mean, (outcome[both],), (base[both],))
    return Rung(
        name=name,
        heading=model.heading,
        has_cloud=model.has_cloud,
        questions=len(results),
        size_bytes=model.size_bytes,
        read_ms=float(np.median(known_ms)) if len(known_ms) else math.nan,
        accuracy=alone.share,
        low=alone.low,
        high=alone.high,
        auroc=metrics.auroc(model.score[at], results.edge_correct[at] >= _RIGHT),
        routed=model.routed,
        changed=float((model.deferred != first.deferred).mean()),
        target=target,
        own=own,
        reached=float(deferred.mean()),
        reached_low=reached.low,
        reached_high=reached.high,
        system=mean_known(outcome),
        difference=difference,
        difference_low=interval.low,
        difference_high=interval.high,
    )


def _outcome(model: Measured, tests: Bools, target: float) -> tuple[Threshold, Bools, Floats]:
    """The threshold for a rate, chosen on the rest, which test questions it sends, and what is right then (both (m,))."""
    own = metrics.threshold_for_rate(model.score[~tests], target, always=model.results.no_confidence[~tests])
    deferred = model.deferred_at(own)[tests]
    edge, cloud = model.results.edge_correct[tests], model.results.cloud_correct[tests]
    return own, deferred, np.where(deferred, cloud, edge) if model.has_cloud else edge


def _common(models: Sequence[Measured]) -> list[Measured]:
    """The models with only the questions that all of them answered, in one order."""
    places = [{print_: n for n, print_ in reversed(list(enumerate(model.results.fingerprints)))} for model in models]
    shared = [print_ for print_ in places[0] if all(print_ in place for place in places)]
    if len(shared) < 2:
        raise BadData("The runs have no questions in common, so they cannot be compared; run all files on the same data.")
    shared.sort()
    return [
        replace(model, results=model.results.part(np.array([place[print_] for print_ in shared])), rule=models[0].rule)
        for model, place in zip(models, places, strict=True)
    ]


def _names(models: Sequence[Measured]) -> list[str]:
    """The quantization of each file, or as much more as tells them apart."""
    facts = [model.results.model for model in models]
    for names in ([shortened(fact.quantization, 16) for fact in facts], [shortened(fact.name, 24) for fact in facts]):
        if len(set(names)) == len(names) and all(names):
            return names
    return [f"{n}. {shortened(fact.name, 20)}" for n, fact in enumerate(facts, 1)]


def _signed(difference: float) -> str:
    return f"{100 * difference:+.1f}".replace("-", "−")
