"""Readouts side by side: which number of a reading tells right answers from wrong ones best, and at what price.

Owns the verdict and its table. The figures come from `evaluation`. Invariant: a readout is called better only where the paired
interval of the difference does not hold 0.
"""

from __future__ import annotations

import math

from edge_agent.core import readouts
from edge_agent.measure.evaluation.figures import Evaluation, Readout
from edge_agent.measure.report import pictures
from edge_agent.measure.report.markup import NOTHING, Html, element, figure, percent, section, span, table, with_small
from edge_agent.measure.report.measured import Measured

_HEAD = ("readout", "readings", "AUROC", "against confidence", "ECE", "Brier", "AURC", "APGR", "CPT 50, %", "right at the same share, %")


def side_by_side(measured: Measured) -> Html:
    """All readouts of the same answers, best first."""
    found = sorted(measured.evaluation.readouts.items(), key=lambda each: (_order(each[1].auroc), each[0]))
    cells = [[name, *_cells(readout)] for name, readout in found]
    how = (
        "AUROC is how likely a right answer has a higher score than a wrong one; 0.5 is chance. The difference to the printed confidence "
        "is measured on the same questions; if its interval holds 0, it may be chance. ECE and Brier are errors of the score as a "
        "probability, AURC the error among kept answers on average over all shares kept: lower is better. APGR is the part of the gap to "
        "the cloud that is closed on average, CPT 50 the least share of calls that closes half of it. The last column sends as many "
        "questions as the printed confidence does."
    )
    if readouts.COMBINED in measured.evaluation.readouts and measured.evaluation.weights:
        how += " The combined readout was fitted on one half of the questions and is measured on the other."
    shown = [(name, readout.auroc, *readout.intervals["auroc"]) for name, readout in found if math.isfinite(readout.auroc)]
    chart = [element("div", pictures.differences(shown).framed("Lines are 95 % intervals."), class_="pair")] if shown else []
    caption = f"Readouts side by side{measured.heading}"
    told = [element("p", verdict(measured.evaluation), class_="says"), table(caption, _HEAD, cells), element("p", how, class_="how")]
    return section(caption, "readouts", *told, *chart)


def verdict(evaluation: Evaluation) -> str:
    """Which readout is better than the printed confidence, and what the order of the options changes, in a few sentences."""
    gains = {name: _gain(readout) for name, readout in evaluation.readouts.items()}
    better = sorted((name for name, (_, low, _) in gains.items() if low > 0), key=lambda name: -gains[name][0])
    said = []
    if not any(math.isfinite(readout.auroc) for readout in evaluation.readouts.values()):
        said.append("Which one is better cannot be said: the answers are all right, all wrong, or not graded.")
    elif not better:
        said.append("No other readout is better than the printed confidence by more than chance on these questions.")
    else:
        best, (gain, low, high) = better[0], gains[better[0]]
        passes = evaluation.readouts[best].passes
        price = "" if passes <= 1 else f", for {passes:.3g} readings a question instead of one"
        interval = f"95 % interval {low:+.3f} to {high:+.3f}".replace("-", "−")
        said.append(f"The readout {best} is better than the printed confidence by {gain:.3f} of AUROC ({interval}){price}.")
        cheap = next((name for name in better if evaluation.readouts[name].passes <= 1), best)
        said += [f"Of those that one reading holds, {cheap} is best."] if cheap != best else []
    orders = evaluation.orders
    if orders and orders.flipped.questions:
        said.append(f"When the options are reversed, {percent(orders.flipped.share)} % of the answers become another option.")
    return " ".join(said)


def _cells(readout: Readout) -> list[str]:
    gain, low, high = _gain(readout)
    return [
        f"{readout.passes:.3g}",
        with_small(figure(readout.auroc), span(*readout.intervals["auroc"], 3, 1)),
        NOTHING if math.isnan(gain) else with_small(f"{gain:+.3f}".replace("-", "−"), span(low, high, 3, 1)),
        figure(readout.ece),
        figure(readout.brier),
        figure(readout.aurc),
        figure(readout.apgr),
        percent(readout.cpt_50),
        percent(readout.same_rate),
    ]


def _gain(readout: Readout) -> tuple[float, float, float]:
    """How much more AUROC it has than the printed confidence, with its interval; nan for that itself."""
    return next(((one.difference, one.low, one.high) for one in readout.compared if one.figure == "auroc"), (math.nan,) * 3)


def _order(auroc: float) -> float:
    return -auroc if math.isfinite(auroc) else 1.0
