"""The charts of a report, each drawn from one or more measured models.

Owns what is drawn, its title and its description in words. Computes no figure of its own. Invariant: the title of a chart with a
simulated cloud says so, because a picture is shown without its page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edge_agent.core import readouts
from edge_agent.core.terminal import shortened
from edge_agent.measure import metrics
from edge_agent.measure.report.charts import Axis, Chart, around
from edge_agent.measure.report.ladder import Rung
from edge_agent.measure.report.markup import figure, milliseconds, percent
from edge_agent.measure.report.measured import Measured, mean_known

_TAKES_ALL = ((0.0, "0"), (20.0, "20"), (40.0, "40"), (60.0, "60"), (80.0, "80"), (100.0, "100"))
_FEW = 12  # so many different scores get a dot each
_FEW_FILES = 7  # so many have room for their figures
_SEEN = 0.03  # lines that differ by less of the axis look like one
_KINDS = ("system", "edge", "cloud", "oracle")  # of lines for several models


def deferral(measured: Measured) -> Chart:
    """Accuracy against the share of questions that go to the cloud."""
    curve, oracle = measured.curve, metrics.oracle_curve(*measured.answers[1:])
    low, high = around([100 * float(value) for value in (*curve.system, *oracle.system)], 10, 0, 100)
    chart = Chart(
        "deferral",
        f"Accuracy by share sent to the cloud{measured.heading}",
        f"Line chart. {_ends(measured)} By its confidence, the device reaches {percent(measured.all.system)} % when "
        f"{percent(measured.routed)} % of the questions go to the cloud; random routing reaches {percent(measured.all.random)} %.",
        Axis("questions sent to the cloud, %", 0, 100, _TAKES_ALL),
        Axis("right answers, %", low, high),
    )
    chart.line(np.column_stack([100 * oracle.rate, 100 * oracle.system]), "oracle", "oracle (best possible)")
    chart.line([(0, 100 * curve.system[0]), (100, 100 * curve.system[-1])], "random", "random routing")
    chart.line(np.column_stack([100 * curve.rate, 100 * curve.system]), "system", "routing by confidence")
    if len(curve.tau) <= _FEW:
        for tau, rate, system in list(zip(*curve, strict=True))[1:-1]:
            if not math.isclose(rate, measured.routed):
                chart.dot(100 * rate, 100 * system, "system", words=f"{tau:g}")
    chart.dot(100 * measured.routed, 100 * measured.all.system, "here", "threshold in force", f"tau = {measured.rule.tau:.3g}", big=True)
    return chart


def cost(measured: Measured) -> Chart:
    """Accuracy against what 1,000 questions cost."""
    curve, prices = measured.costs, measured.call_prices
    assert prices is not None
    paid, accuracy = 1000 * curve.cost, 100 * curve.system
    dear = float(paid[-1])
    low, high = around([float(value) for value in accuracy], 10, 0, 100)
    here = 1000 * float(np.where(measured.deferred, prices, 0.0)[measured.counted].mean())
    chart = Chart(
        "cost",
        f"Accuracy by cost{measured.heading}",
        f"Line chart. Sending all questions costs {figure(dear, 2)} for 1,000 questions, the threshold in force {figure(here, 2)}.",
        Axis("cost of 1,000 questions", 0, dear or 1.0),
        Axis("right answers, %", low, high),
    )
    chart.line([(0, accuracy[0]), (dear, accuracy[-1])], "random", "random routing")
    chart.line(np.column_stack([paid, accuracy]), "system", "routing by confidence")
    chart.dot(here, 100 * measured.all.system, "here", "threshold in force", f"{here:.2f}", big=True)
    return chart


def reliability(measured: Measured, readout: str) -> Chart:
    """How often answers are right at each confidence, with intervals and counts."""
    bins = [bin_ for bin_ in measured.evaluation.readouts[readout].reliability if bin_.questions]
    n_all = sum(bin_.questions for bin_ in bins)
    words = [f"near {bin_.level:g}: {percent(bin_.right)} % of {bin_.questions:,}" for bin_ in bins]
    chart = Chart(
        f"reliability-{readout}",
        f"Can {readout} be believed?",
        "Dots with 95 % intervals: the share of right answers at each confidence. " + "; ".join(words) + ".",
        Axis(f"{readout}, %", 0, 100, _TAKES_ALL),
        Axis("right answers, %", 0, 100, _TAKES_ALL),
    )
    for bin_ in bins:
        chart.bar(min(max(100 * bin_.mean_score, 3), 97), 6, 100 * bin_.questions / n_all, "count", "share of the questions")
    chart.line([(0, 0), (100, 100)], "random", "perfectly honest")
    for bin_ in bins:
        x = 100 * bin_.mean_score
        chart.interval(x, 100 * bin_.low, 100 * bin_.high, "system")
        chart.dot(x, 100 * bin_.right, "system", "right, with 95 % interval", f"n = {bin_.questions:,}")
    return chart


def latency(models: Sequence[Measured]) -> Chart:
    """The mean time of a question against the share of questions that go to the cloud."""
    known = [model for model in models if model.cloud_ms is not None][: len(_KINDS)]
    spread = np.ptp([mean_known(model.results.read_ms) for model in known])
    if spread < _SEEN * (known[0].cloud_ms or 0.0):
        known = known[:1]
    read_ms = [mean_known(model.results.read_ms) for model in known]
    cloud_ms = max(model.cloud_ms or 0.0 for model in known)
    chart = Chart(
        "latency",
        f"Mean time of a question{known[0].heading}",
        f"Line chart. A reading takes {', '.join(f'{ms:.0f} ms ({model.name})' for ms, model in zip(read_ms, known, strict=True))}; "
        f"each call to the cloud adds {cloud_ms:.0f} ms.",
        Axis("questions sent to the cloud, %", 0, 100, _TAKES_ALL),
        Axis("mean time of a question, ms", 0, (max(read_ms) + cloud_ms) * 1.06 or 1.0),
    )
    chart.line([(0, cloud_ms), (100, cloud_ms)], "random", "no device, only the cloud")
    for ms, model, kind in zip(read_ms, known, _KINDS, strict=False):
        label = "device first, then the cloud" if len(known) == 1 else shortened(model.results.model.quantization or model.name, 20)
        chart.line([(0, ms), (100, ms + (model.cloud_ms or 0.0))], kind, label)
    ms = read_ms[0] + known[0].routed * (known[0].cloud_ms or 0.0)
    chart.dot(100 * known[0].routed, ms, "here", "threshold in force", f"{ms:,.0f} ms", big=True)
    return chart


def steps(rungs: Sequence[Rung]) -> Chart:
    """The quantization ladder: how often each file is right, alone and with the cloud at the same share of calls."""
    values = [100 * value for rung in rungs for value in (rung.accuracy, rung.low, rung.high, rung.system)]
    low, high = around(values, 4, 0, 100)
    chart = Chart(
        "ladder-right",
        f"Right answers by file{rungs[0].heading}",
        "Dots: " + "; ".join(f"{rung.name} {percent(rung.accuracy)} % alone in {milliseconds(rung.read_ms)}" for rung in rungs) + ".",
        _files(rungs),
        Axis("right answers, %", low, high),
    )

    def words(share: float) -> str:
        return percent(share) if len(rungs) <= _FEW_FILES else ""

    for n, rung in enumerate(rungs):
        chart.interval(n, 100 * rung.low, 100 * rung.high, "edge")
        chart.dot(
            n, 100 * rung.accuracy, "edge", "device alone, with 95 % interval", percent(rung.accuracy) if len(rungs) <= _FEW_FILES else ""
        )
        if rung.has_cloud:
            chart.dot(
                n,
                100 * rung.system,
                "system",
                "with the cloud, all at the same share of calls",
                percent(rung.system) if len(rungs) <= _FEW_FILES else "",
            )
    return chart


def shares(rungs: Sequence[Rung]) -> Chart:
    """The quantization ladder: what each file sends to the cloud at the first file's tau, and at its own."""
    target = 100 * rungs[0].target
    values = [100 * value for rung in rungs for value in (rung.routed, rung.reached_low, rung.reached_high)]
    low, high = around([target, *values], 8, 0, 100)
    chart = Chart(
        "ladder-sent",
        "Questions sent to the cloud by file",
        f"Dots: at the same tau {'; '.join(f'{rung.name} {percent(rung.routed)} %' for rung in rungs)}. Wanted: {target:.1f} %.",
        _files(rungs),
        Axis("questions sent to the cloud, %", low, high),
    )
    chart.line([(-0.5, target), (len(rungs) - 0.5, target)], "random", f"what {rungs[0].name} sends")
    for n, rung in enumerate(rungs):
        chart.interval(n + 0.12, 100 * rung.reached_low, 100 * rung.reached_high, "edge")
        chart.dot(n + 0.12, 100 * rung.reached, "edge", "own tau, on the other half, with 95 % interval")
        chart.dot(n - 0.12, 100 * rung.routed, "here", "the same tau")
    return chart


def _files(rungs: Sequence[Rung]) -> Axis:
    """An axis with one place for each file, and its speed under its name."""
    room = max(3, 60 // len(rungs))  # letters that fit side by side
    ticks = tuple((float(n), f"{shortened(rung.name, room)}\n{milliseconds(rung.read_ms)}") for n, rung in enumerate(rungs))
    return Axis("file, and the median time of a reading", -0.5, len(rungs) - 0.5, ticks)


def differences(rows: Sequence[tuple[str, float, float, float]]) -> Chart:
    """AUROC of each readout with its interval, one below the other: (readout, AUROC, low, high)."""
    low, high = around([value for row in rows for value in row[1:]], 0.1)
    height = 78 + 30 * len(rows)
    names = tuple((float(len(rows) - n), row[0]) for n, row in enumerate(rows))
    chart = Chart(
        "readouts",
        "Which number tells right from wrong best?",
        "AUROC with 95 % intervals: " + "; ".join(f"{row[0]} {figure(row[1])}" for row in rows) + ".",
        Axis("AUROC (0.5 is chance)", low, high),
        Axis("", 0.4, len(rows) + 0.6, names),
        height,
    )
    for (place, _), (name, value, least, most) in zip(names, rows, strict=True):
        chart.line([(least, place), (most, place)], "system")
        chart.dot(value, place, "here" if name == readouts.CONFIDENCE else "system", words=figure(value))
    return chart


def _ends(measured: Measured) -> str:
    return f"The device alone is right on {percent(measured.all.edge)} %, the cloud on {percent(measured.all.cloud)} %."
