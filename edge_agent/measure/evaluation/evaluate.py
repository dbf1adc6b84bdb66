"""Computes all figures of answered questions: FogGen's table, and the field's metrics for every readout.

Owns which questions count for which figure, the halves, and the costs. The formulas are in `metrics`, the shapes in `figures`, the
layout in `tables`. Invariant: pure; no model and no cloud is asked, so the same results can be evaluated at another `tau`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edge_agent.core import readouts, routing
from edge_agent.core.errors import BadData
from edge_agent.measure import metrics
from edge_agent.measure.evaluation import readout, routed
from edge_agent.measure.evaluation.figures import REFERENCE, ByCalibration, Evaluation, Greedy, Orders, Readout, Share, Speed
from edge_agent.measure.evaluation.routed import Bools, Floats, Scored, share_of
from edge_agent.measure.metrics import Threshold
from edge_agent.measure.readouts import combine
from edge_agent.measure.readouts.orders import ORDERS_2, ORDERS_ALL
from edge_agent.measure.results import Results
from edge_agent.model.calibration import Calibration
from edge_agent.model.profile import LEVELS

SALT = "eval"
"""Of the draws that decide, within a level, which questions are deferred to reach a target rate."""
PLAIN_NOTE = (
    "This is a plain model: it prints no confidence and has no tau of its own. On a device its answers count as unsure until `edge-agent "
    "calibrate` has measured which of its readouts to trust, and from where on."
)
PER_CALL = "a call to the cloud costs 1, the device nothing"


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """What some runs know beside their `Results`; columns are (n,), with nan where a question has none.

    `correct` is 1 where the answer of a readout that asks again is right (the mean over orders may choose another letter). `agreed`
    is 1 where such a readout chose the same option in all orders. `ms` is the mean time of a readout for a question. `keeps_format`
    and `same_as_printed` compare with unconstrained printing. `f1` is SQuAD's mean F1.
    """

    difficulties: Sequence[int | None] = ()
    correct: Mapping[str, Floats] = field(default_factory=dict)
    agreed: Mapping[str, Floats] = field(default_factory=dict)
    ms: Mapping[str, float] = field(default_factory=dict)
    keeps_format: Floats | None = None
    same_as_printed: Floats | None = None
    f1: float = math.nan
    notes: tuple[str, ...] = ()


def evaluate(
    results: Results, levels: Sequence[str], tau: float, beside: Beside | None = None, calibration: Calibration | None = None
) -> Evaluation:
    """Everything that follows from the results. `levels` are the profile's, as printed. Raises `BadData` without questions."""
    if not len(results):
        raise BadData("There are no answered questions; ask at least one.")
    beside, numbers = beside or Beside(), [float(level) for level in levels or LEVELS]
    results, weights, notes = _combined(results)
    cost, costs, cost_notes = _costs(results)
    halves = combine.fitting_half(results.fingerprints)
    reference = results.reference
    printed = results.scores[reference]
    right = {name: beside.correct.get(name, results.edge_correct) for name in results.scores}
    draws = np.array([routing.draw(fingerprint, SALT) for fingerprint in results.fingerprints])
    found: dict[str, Readout] = {}
    for name, score in results.scores.items():
        known = _known(results, score, right[name])
        if not known.any():
            continue
        mine = _scored(results, known, score, right[name], draws, halves, cost)
        theirs = replace(mine, score=printed[known], edge=results.edge_correct[known])
        ms = beside.ms.get(name, float(np.nanmean(results.read_ms)))
        other = "" if name == reference else REFERENCE[reference]
        found[name] = readout.figures(mine, theirs, numbers, tau, results.passes.get(name, 1.0), ms, other)
    level_of = np.abs(printed[:, None] - np.array(numbers)).argmin(axis=1)
    return Evaluation(
        tau=tau,
        cloud=results.cloud,
        right=share_of(results.edge_correct),
        f1=beside.f1,
        no_confidence=share_of(results.no_confidence),
        readouts=found,
        levels={level: share_of(results.edge_correct[level_of == at]) for at, level in enumerate(levels)},
        difficulties=_difficulties(results, beside),
        orders=_orders(beside),
        weights=weights,
        costs=costs,
        greedy=_greedy(beside),
        speed=_speed(results.read_ms),
        notes=(*beside.notes, *_left_out(results), *notes, *cost_notes, *([] if levels else [PLAIN_NOTE])),
        calibration=_by_calibration(results, calibration) if calibration else None,
    )


def _by_calibration(results: Results, calibration: Calibration) -> ByCalibration:
    """What `routing.plan` does with these questions by a calibration: an answer without the readout goes to the cloud."""
    if calibration.readout == readouts.COMBINED and readouts.ANSWER_PROB in results.scores:
        score = combine.scores(results.scores, calibration.weights)
    else:
        score = results.scores.get(calibration.readout, np.full(len(results), np.nan))
    results, score = replace(results, no_confidence=results.no_confidence | np.isnan(score)), np.nan_to_num(score, nan=0.0)
    draws = np.array([routing.draw(fingerprint, calibration.salt) for fingerprint in results.fingerprints])
    threshold = Threshold(calibration.tau, calibration.tie_share)
    deferred = metrics.deferred_by(score, threshold, draws) | results.no_confidence
    known = _known(results, score, results.edge_correct)
    domains, mean = routed.table(_scored(results, known, score, results.edge_correct, draws, known, draws), threshold)
    return ByCalibration(calibration.sha256, calibration.readout, calibration.tau, calibration.tie_share, share_of(deferred), domains, mean)


def _known(results: Results, score: Floats, right: Floats) -> Bools:
    """The questions that count: with a gold answer and a score, and, if the cloud answered any, with its answer."""
    known: Bools = ~np.isnan(score) & ~np.isnan(right) & ~np.isnan(results.edge_correct)
    answered: Bools = ~np.isnan(results.cloud_correct)
    return known & answered if answered.any() else known


def _scored(results: Results, known: Bools, score: Floats, right: Floats, draws: Floats, halves: Bools, cost: Floats) -> Scored:
    return Scored(
        domains=tuple(name for name, counts in zip(results.domains, known, strict=True) if counts),
        score=score[known],
        edge=right[known],
        cloud=results.cloud_correct[known],
        no_confidence=results.no_confidence[known],
        draws=draws[known],
        chosen_on=halves[known],
        cost=cost[known],
    )


def _combined(results: Results) -> tuple[Results, tuple[float, ...], tuple[str, ...]]:
    """The results with the readout `combined`: fitted on one half, and scored (not nan) on the other alone."""
    half = combine.fitting_half(results.fingerprints)
    if readouts.COMBINED in results.scores or not all(part in results.scores for part in combine.PARTS):
        return results, (), ()
    try:
        weights = combine.fit({name: column[half] for name, column in results.scores.items()}, results.edge_correct[half])
    except BadData as error:
        return results, (), (str(error),)
    if weights is None or half.all():
        return results, (), ("The combined readout was not fitted: too few questions, or all right, or all wrong.",)
    column = np.where(half, np.nan, combine.scores(results.scores, weights))
    ordered: dict[str, Floats] = {}
    for name, score in results.scores.items():
        ordered[name] = score
        if name == readouts.MARGIN:
            ordered[readouts.COMBINED] = column
    return replace(results, scores=ordered), weights, ()


def _costs(results: Results) -> tuple[Floats, str, tuple[str, ...]]:
    """What a call to the cloud costs for each question, in which unit, and what was assumed."""
    cloud, n = results.cloud, len(results)
    if results.cloud_tokens is None or not (cloud.prompt_price or cloud.completion_price):
        return np.ones(n), PER_CALL, ()
    cost = metrics.call_costs(*results.cloud_tokens, cloud.prompt_price, cloud.completion_price)
    unknown = np.isnan(cost)
    if unknown.all() or not np.nansum(cost):
        return np.ones(n), PER_CALL, ()
    words = f"prices of {cloud.prompt_price:g} and {cloud.completion_price:g} for a million tokens of prompt and answer, the device nothing"
    notes = [f"The tokens of {unknown.sum():,} calls are not known; their mean price is used."] if unknown.any() else []
    if getattr(cloud, "estimated_tokens", False):
        notes.append("The tokens of the cloud are estimated from the length of the questions, not counted.")
    return np.where(unknown, np.nanmean(cost), cost), words, tuple(notes)


def _left_out(results: Results) -> tuple[str, ...]:
    """What does not count, in words."""
    no_gold, no_cloud = np.isnan(results.edge_correct).sum(), np.isnan(results.cloud_correct).sum()
    graded = ((results.edge_correct > 0) & (results.edge_correct < 1)).any()
    notes = []
    if no_gold:
        notes.append(f"{no_gold:,} of {len(results):,} questions have no gold answer; they count for no accuracy.")
    if 0 < no_cloud < len(results):
        notes.append(f"{no_cloud:,} of {len(results):,} questions have no answer of the cloud; all figures by readout leave them out.")
    if len(results) > readout.MOST_FOR_INTERVALS:
        notes.append(f"More than {readout.MOST_FOR_INTERVALS:,} questions: bootstrap intervals are left out, and readouts not compared.")
    if graded:
        notes.append("Some answers are graded with a fraction; AUROC counts them as right from 0.5 on.")
    return tuple(notes)


def _difficulties(results: Results, beside: Beside) -> dict[int, Share]:
    numbers = sorted({number for number in beside.difficulties if number is not None})
    return {number: share_of(results.edge_correct[[each == number for each in beside.difficulties]]) for number in numbers}


def _orders(beside: Beside) -> Orders | None:
    if not beside.agreed:
        return None
    flipped, moved = (share_of(1 - beside.agreed[name] if name in beside.agreed else []) for name in (ORDERS_2, ORDERS_ALL))
    return Orders(flipped, moved)


def _greedy(beside: Beside) -> Greedy | None:
    if beside.keeps_format is None or beside.same_as_printed is None:
        return None
    return Greedy(share_of(beside.keeps_format), share_of(beside.same_as_printed[beside.keeps_format == 1]))


def _speed(read_ms: Floats) -> Speed:
    known = read_ms[~np.isnan(read_ms)]
    if not len(known) or not known.sum():
        return Speed(math.nan, math.nan, math.nan, math.nan)
    median_ms, p95_ms = np.percentile(known, [50, 95])
    return Speed(float(1000 / known.mean()), float(known.mean()), float(median_ms), float(p95_ms))
