"""Readouts side by side: how well each tells right answers from wrong ones, and whether the difference is more than chance.

Owns the paired comparison of two readouts on the same questions. The other formulas are in `metrics`. Invariant: every readout is
judged on the same questions, those with a gold answer and all scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_agent.core import readouts
from edge_agent.measure import metrics
from edge_agent.measure.report.measured import Measured
from edge_agent.measure.results import Floats

_Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Compared:
    """One readout: its figures with 95 % intervals; `gain` is its AUROC minus that of the printed confidence, on the same questions.

    `apgr` and `cpt_50` are nan without a cloud. `passes` is how many readings a question costs.
    """

    readout: str
    passes: float
    auroc: float
    auroc_low: float
    auroc_high: float
    gain: float
    gain_low: float
    gain_high: float
    ece: float
    brier: float
    apgr: float
    cpt_50: float


def compare(measured: Measured) -> tuple[Compared, ...]:
    """All readouts of the results, best AUROC first."""
    results = measured.results
    at = measured.graded & np.all([~np.isnan(column) for column in results.scores.values()], axis=0)
    right = results.edge_correct[at]
    both = at & measured.paired
    base = _placements(results.scores[readouts.CONFIDENCE][at], right)
    found = []
    for name, column in results.scores.items():
        score = column[at]
        placed = _placements(score, right)
        value, low, high = _interval(*placed)
        gain, gain_low, gain_high = _interval(*(mine - its for mine, its in zip(placed, base, strict=True)))
        if name == readouts.CONFIDENCE:
            gain = gain_low = gain_high = math.nan
        cloud = (column[both], results.edge_correct[both], results.cloud_correct[both])
        figures = {"ece": metrics.ece(score, right, measured.levels), "brier": metrics.brier(score, right)}
        figures |= {"apgr": metrics.apgr(*cloud), "cpt_50": metrics.cpt(*cloud, 0.5)}
        found.append(Compared(name, results.passes.get(name, 1.0), value, low, high, gain, gain_low, gain_high, **figures))
    return tuple(sorted(found, key=lambda row: (-row.auroc if math.isfinite(row.auroc) else 1.0, row.readout)))


def verdict(rows: tuple[Compared, ...]) -> str:
    """Which readout is better than the printed confidence, in one sentence."""
    better = [row for row in rows if row.gain_low > 0]
    if not any(math.isfinite(row.auroc) for row in rows):
        return "Which one is better cannot be said: the answers are all right, all wrong, or not graded."
    if not better:
        return "None is better than the printed confidence by more than chance on these questions."
    best = better[0]
    price = "" if best.passes <= 1 else f", for {best.passes:g} readings a question instead of one"
    cheap = next((row for row in better if row.passes <= 1), None)
    also = f" Of those that one reading holds, {cheap.readout} is best." if cheap and cheap is not best else ""
    interval = f"95 % interval {best.gain_low:+.3f} to {best.gain_high:+.3f}".replace("-", "−")
    return f"The readout {best.readout} is better than the printed confidence by {best.gain:.3f} of AUROC ({interval}){price}.{also}"


def _placements(score: Floats, right: Floats) -> tuple[Floats, Floats]:
    """For each right answer the share of wrong ones below it, for each wrong one the share of right ones above it; ties count half.

    Source: DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44(3).
    """
    positive, negative = score[right == 1], score[right == 0]
    if not len(positive) or not len(negative):
        return np.full(len(positive), math.nan), np.full(len(negative), math.nan)
    return _below(positive, negative), 1 - _below(negative, positive)


def _below(values: Floats, others: Floats) -> Floats:
    others = np.sort(others)
    below: Floats = (np.searchsorted(others, values, side="left") + np.searchsorted(others, values, side="right")) / (2 * len(others))
    return below


def _interval(positive: Floats, negative: Floats) -> tuple[float, float, float]:
    """A mean of placements with its 95 % interval; nan if there are too few."""
    if len(positive) < 2 or len(negative) < 2:
        value = float(positive.mean()) if len(positive) and len(negative) else math.nan
        return value, math.nan, math.nan
    value = float(positive.mean())
    half = _Z_95 * math.sqrt(float(positive.var(ddof=1)) / len(positive) + float(negative.var(ddof=1)) / len(negative))
    return value, max(value - half, -1.0), min(value + half, 1.0)
