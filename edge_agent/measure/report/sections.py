"""The sections of a report: words, tables and charts for one measured model.

Owns what a reader is told, and in which order. The figures come from `measured`, `compared` and `ladder`. Invariant: every heading
over a figure with a simulated cloud says that it is simulated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edge_agent.core import readouts
from edge_agent.measure import metrics
from edge_agent.measure.report import pictures
from edge_agent.measure.report.ladder import choose, climb
from edge_agent.measure.report.markup import (
    NOTHING,
    Html,
    count,
    element,
    figure,
    milliseconds,
    percent,
    points,
    section,
    span,
    table,
    with_small,
)
from edge_agent.measure.report.measured import Measured, mean_known
from edge_agent.model.calibration import Calibration


def curves(measured: Measured) -> Html:
    """What each call to the cloud buys."""
    if not measured.has_cloud:
        return section("What calls to the cloud buy", "curves", element("p", "There is no cloud in this run, so this is not known."))
    how = "Read up from a share of calls: the higher the blue line is over the dashed one, the better the confidence chooses what to send."
    if len(measured.curve.tau) <= 12:
        how += " Numbers next to dots are thresholds; between two dots, ties are sent by a draw."
    shown = [pictures.deferral(measured).framed(how)]
    if measured.has_prices:
        tokens = " The tokens are estimated from the length of the text." if measured.results.cloud.estimated_tokens else ""
        how = "The same, by money: what an answer more costs. Answers of the device count as free." + tokens
        shown.append(pictures.cost(measured).framed(how))
    area = metrics.apgr(*measured.answers)
    closed = f"On average over all shares, routing by confidence closes {percent(area)} % of the gap between device and cloud (APGR)"
    says = "" if math.isnan(area) else f"{closed}; random routing closes 50 %."
    missing = [] if len(shown) > 1 else [element("p", "There is no chart of costs, because the run has no prices.", class_="how")]
    return section(
        f"What calls to the cloud buy{measured.heading}",
        "curves",
        element("p", says, class_="says"),
        element("div", *shown, class_="pair"),
        *missing,
    )


def trust(measured: Measured) -> Html:
    """Whether a confidence means what it says."""
    wanted = dict.fromkeys((measured.results.reference, measured.rule.readout, readouts.EXPECTED))
    names = [name for name in wanted if name in measured.evaluation.readouts][:2]
    if not names:
        return section(
            "Can the confidence be believed?", "trust", element("p", "The questions have no gold answers, so this is not known.")
        )
    how = (
        "Each dot is the share of right answers near one confidence; the line through it is its 95 % interval, the bar how many questions "
        "have it. On the dashed line the confidence is honest; dots below it are overconfident."
    )
    shown = [pictures.reliability(measured, name).framed("") for name in names]
    return section("Can the confidence be believed?", "trust", element("div", *shown, class_="pair"), element("p", how, class_="how"))


def time(models: Sequence[Measured]) -> Html:
    """How long a question takes."""
    known = [model for model in models if model.cloud_ms is not None and not np.isnan(model.results.read_ms).all()]
    if not known:
        words = "The run has no times of calls to a cloud; give the mean time of a call to see what they cost."
        return section("How long a question takes", "time", element("p", words))
    first = known[0]
    read_ms, cloud_ms = mean_known(first.results.read_ms), first.cloud_ms or 0.0
    mean_ms = read_ms + first.routed * cloud_ms
    each = f"A reading takes {milliseconds(read_ms)}, a call to the cloud {milliseconds(cloud_ms)} more"
    says = f"{each}; at this threshold, a question takes {milliseconds(mean_ms)} on average."
    how = "A question that is sent takes the reading and the call. Below the dashed line, the device saves time as well as calls."
    chart = element("div", pictures.latency(known).framed(how), class_="pair")
    return section(f"How long a question takes{first.heading}", "time", element("p", says, class_="says"), chart)


def quantizations(models: Sequence[Measured]) -> Html:
    """The ladder of several files of one model, and which one to choose. Raises `BadData`."""
    rungs = climb(models)
    best, why = choose(rungs)
    first = rungs[0]
    head = (
        "file", "MB", "reading, ms", "right alone, %", "AUROC", "routed, %", "changed routes, %", "own tau", "then routed, %",
        "then right with cloud, %", f"against {first.name}, points",
    )  # fmt: skip
    cells = [
        [
            rung.name + (" ✓" if rung is best else ""),
            f"{rung.size_bytes / 1e6:,.1f}" if rung.size_bytes else NOTHING,
            figure(rung.read_ms, 1),
            with_small(percent(rung.accuracy), span(rung.low, rung.high)),
            figure(rung.auroc),
            percent(rung.routed),
            percent(rung.changed),
            with_small(f"{rung.own.tau:.4g}", f"{percent(rung.own.tie_share, 0)} % of ties" if rung.own.tie_share else ""),
            with_small(percent(rung.reached), span(rung.reached_low, rung.reached_high)),
            percent(rung.system),
            NOTHING if rung is first else with_small(points(rung.difference), span(rung.difference_low, rung.difference_high)),
        ]
        for rung in rungs
    ]
    reached = [rung for rung in rungs if rung.reaches]
    target = f"With its own tau each file should send {percent(first.target)} %, as {first.name} does: "
    target += (
        "all do, within sampling error." if len(reached) == len(rungs) else f"{len(reached)} of {len(rungs)} do, within sampling error."
    )
    how = (
        f"Routed and changed routes are at the same tau {models[0].rule.tau:.3g}: how much a smaller file moves what it means. Own tau is "
        f"set on one half of the {count(first.questions)} common questions to send the same share as {first.name}; everything to its right "
        f"is measured on the other half, with 95 % intervals. {target} Times are medians of these runs: compare them only "
        "where the machine did nothing else."
    )
    caption = f"Which file to take{first.heading}"
    right = "How often each file is right. Where the intervals overlap much, the table's last column is the finer comparison: it is paired."
    sent = "At the same tau, files that round differently send different shares. With its own tau, each comes back to the dashed line."
    charts = element("div", pictures.steps(rungs).framed(right), pictures.shares(rungs).framed(sent), class_="pair")
    return section(
        caption,
        "ladder",
        element("p", why, class_="choice"),
        table(caption, head, cells),
        element("p", how, class_="how"),
        charts,
        flows=True,
    )


def promise(measured: Measured) -> Html:
    """What the calibration in force promises."""
    calibration = measured.calibration
    assert calibration is not None
    choose_n, test_n, report_n = calibration.questions
    parts = [element("p", _promised(calibration), class_="choice")]
    found = [("readout", calibration.readout), ("tau", f"{calibration.tau:.6g}"), ("ties sent", f"{percent(calibration.tie_share)} %")]
    if calibration.deferral_rate is not None:
        found.append(("share sent, measured", f"{percent(calibration.deferral_rate)} %"))
    if calibration.local_error is not None:
        found.append(("wrong among kept, measured", f"{percent(calibration.local_error)} %"))
    found.append(("questions", f"{count(choose_n)} to choose, {count(test_n)} to test, {count(report_n)} to report"))
    found += [("data", calibration.data), ("made", calibration.created_at), ("sha256", element("code", calibration.sha256))]
    parts.append(element("dl", *(element("dt", name) + element("dd", value) for name, value in found)))
    if calibration.data_sha256 == measured.data_sha256:
        said = "This page shows the questions that the calibration was made from, so its other figures look better than they are."
        parts.append(element("p", said, class_="how"))
    return section("What the calibration promises", "promise", *parts)


def _promised(calibration: Calibration) -> str:
    value = calibration.value
    if calibration.goal == "max_local_error":
        sure = f"With {percent(1 - (calibration.delta or 0), 0)} % certainty, " if calibration.delta else ""
        return (
            f"{sure}at most {percent(value)} % of the answers that stay on the device are wrong, for questions like those it was tested on."
        )
    if calibration.goal == "cloud_rate":
        return f"About {percent(value)} % of the questions go to the cloud. This is a setting, not a guarantee."
    if calibration.goal == "accuracy":
        return f"About {percent(value)} % of all answers are right, with as few calls as that takes. This is a setting, not a guarantee."
    return f"The calls cost about {value:g}. This is a setting, not a guarantee; the budget itself is enforced when calls are made."
