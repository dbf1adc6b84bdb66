"""The opening of a report: the one sentence that matters, four figures, and what was measured.

Owns what a reader learns in the first ten seconds, and the facts that everything rests on. Invariant: a simulated cloud is called
simulated in the headline and at every figure that it changes.
"""

from __future__ import annotations

import math

import numpy as np

from edge_agent.core import readouts
from edge_agent.measure.evaluation import routed
from edge_agent.measure.report.markup import NOTHING, Html, count, element, figure, join, milliseconds, percent, points, safe, section, span
from edge_agent.measure.report.measured import Measured
from edge_agent.measure.results import SIMULATED


def headline(measured: Measured) -> str:
    """The one sentence that matters."""
    line, rule = measured.all, measured.rule
    by = "" if rule.readout == readouts.CONFIDENCE else f" (readout {rule.readout})"
    kept = f"At a threshold of {rule.tau:.3g}{by}, the device answers {_of_hundred(1 - measured.routed)} of 100 questions itself"
    if measured.has_cloud:
        cloud = "a simulated cloud" if measured.results.cloud.kind == SIMULATED else "the cloud"
        both = f"together with {cloud}, {percent(line.system)} % are right"
        return f"{kept}; {both}, against {percent(line.random)} % with random routing."
    if math.isnan(line.edge):
        return f"{kept}. How many are right is not known, because the questions have no gold answers."
    right = measured.results.edge_correct[measured.counted & ~measured.deferred]
    return f"{kept} and is right on {percent(float(right.mean())) if len(right) else NOTHING} % of these; on all, {percent(line.edge)} %."


def opening(measured: Measured) -> Html:
    """The name, the headline, what it rests on, and four figures."""
    line, results = measured.all, measured.results
    parts = [element("h1", f"{measured.name} · routing report"), element("p", headline(measured), class_="headline")]
    if measured.has_cloud:
        parts.append(element("p", _gain(measured), class_="lead"))
    if results.cloud.kind == SIMULATED:
        said = f"The cloud is simulated: it is right with probability {results.cloud.accuracy:g} on every question, and nobody asked one. "
        parts.append(
            element("p", said + "All figures marked “simulated cloud” say what routing would be worth with such a cloud.", class_="warn")
        )
    kept = measured.counted & ~measured.deferred
    wrong = routed.share_of(1 - results.edge_correct[kept])
    n = line.questions or len(results)
    kept_share = 1 - measured.routed
    tiles = [(f"{percent(kept_share)} %", "stay on the device", f"{count(round(kept_share * n))} of {count(n)} questions")]
    if measured.has_cloud:
        tiles.append((f"{percent(line.system)} %", f"right together{measured.heading}", f"the device alone: {percent(line.edge)} %"))
        gain, gain_low, gain_high = measured.lift
        tiles.append((points(gain), f"points over random routing{measured.heading}", f"95 % interval {span(gain_low, gain_high)}"))
    else:
        tiles.append((_with_sign(line.edge), "right, the device alone", _interval(line.edge_low, line.edge_high)))
    tiles.append((_with_sign(wrong.share), "wrong among the kept answers", _interval(wrong.low, wrong.high)))
    shown = [element("li", element("strong", value), element("span", what), element("small", more)) for value, what, more in tiles]
    return join([*parts, element("ul", *shown, class_="tiles")])


def facts(measured: Measured) -> Html:
    """What was measured: the file, the data, the cloud and the rule."""
    results, model, rule = measured.results, measured.results.model, measured.rule
    said: list[tuple[str, str]] = [("Model", f"{model.name}, {model.quantization or 'unknown quantization'}, {model.architecture}")]
    size = f", {measured.size_bytes / 1e6:,.1f} MB" if measured.size_bytes else ""
    said.append(("File", element("span", "sha256 ", element("code", model.sha256), size)))
    if model.adapter_sha256:
        said.append(("Adapter", element("span", "sha256 ", element("code", model.adapter_sha256))))
    graded, answered = int(measured.graded.sum()), int((~np.isnan(results.cloud_correct)).sum())
    domains = len(set(results.domains))
    data = safe(measured.data or "not named")
    said.append(("Data", data + Html(", sha256 ") + element("code", measured.data_sha256) if measured.data_sha256 else data))
    said.append(("Questions", f"{count(len(results))} in {_plural(domains, 'domain')}; {count(graded)} with a gold answer"))
    said.append(("Cloud", results.cloud.words + (f"; it has an answer to {count(answered)}" if measured.has_cloud else "")))
    at = f"; of the scores that are exactly {rule.tau:.6g}, {percent(rule.tie_share)} % go to the cloud" if rule.tie_share else ""
    said.append(("Rule", f"an answer stays where {rule.readout} is at least {rule.tau:.6g}{at}"))
    unsure = int(results.no_confidence.sum())
    said.append(("No confidence", f"{_plural(unsure, 'question')}; always sent to the cloud, whatever the threshold"))
    times = results.read_ms[~np.isnan(results.read_ms)]
    if len(times):
        mean, middle, slow = (milliseconds(float(ms)) for ms in (times.mean(), *np.percentile(times, [50, 95])))
        said.append(("Reading", f"{mean} on average, median {middle}, 95 % within {slow}"))
    said += [("Note", note) for note in measured.evaluation.notes]
    listed = element("dl", *(element("dt", name) + element("dd", value) for name, value in said))
    return section("What was measured", "measured", listed)


def _gain(measured: Measured) -> str:
    gain, low, high = measured.lift
    interval = f"95 % interval {span(low, high)}"
    if low > 0:
        words = f"Choosing by confidence gains {figure(100 * gain, 1)} points over sending the same share at random ({interval})."
    elif high < 0:
        words = f"Choosing by confidence is worse than chance: {points(gain)} points ({interval})."
    else:
        words = f"The difference to random routing is {points(gain)} points, which may be chance ({interval})."
    return f"The device alone is right on {percent(measured.all.edge)} %, the cloud alone on {percent(measured.all.cloud)} %. {words}"


def _of_hundred(share: float) -> str:
    """A share as whole questions of 100, where that does not say more than is true."""
    whole = 100 * share
    if math.isnan(share):
        return "an unknown number"
    return "fewer than 1" if 0 < whole < 0.5 else "more than 99" if 99.5 < whole < 100 else f"{whole:.0f}"


def _plural(n: int, word: str) -> str:
    return f"{count(n)} {word}{'' if n == 1 else 's'}"


def _with_sign(share: float) -> str:
    return NOTHING if math.isnan(share) else f"{percent(share)} %"


def _interval(low: float, high: float) -> str:
    return "not known" if math.isnan(low) else f"95 % interval {span(low, high)} %"
