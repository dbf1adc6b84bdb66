"""FogGen's table, and its picture: one line for each domain.

Owns the columns and the marks. Computes nothing. Invariant: headings say if the cloud is simulated.
"""

from __future__ import annotations

import math

from edge_agent.core.terminal import shortened
from edge_agent.measure.evaluation.figures import Routing
from edge_agent.measure.report.markup import Html, count, element, percent, points, safe, section, span, table
from edge_agent.measure.report.measured import Measured

_TABLE = ("domain", "questions", "cloud only, %", "edge raw, %", "95 % interval", "random, %", "system, %", "routed, %", "lift, points")
_LONG = 25  # so many domains do not fit on one sheet of paper


def by_domain(measured: Measured) -> Html:
    """FogGen's table and one bar for each domain."""
    lines = [*measured.domains, measured.mean, measured.all]
    rows = [_row(line) for line in lines]
    how = (
        "Edge raw is the device alone, system is the device and the cloud together. Random would send the same share of questions, "
        "chosen by chance; lift is what choosing by confidence gains over it. The published tables show the mean of the domains."
    )
    parts = [table(f"Routing by domain{measured.heading}", _TABLE, rows, last=2), element("p", how, class_="how")]
    if measured.has_cloud and len(measured.domains) > 1:
        parts.append(_bars(measured))
    return section(f"By domain{measured.heading}", "domains", *parts, flows=True)


def _row(line: Routing) -> list[str]:
    figures = [percent(value) for value in (line.cloud, line.edge)]
    more = [percent(value) for value in (line.random, line.system, line.routed)]
    return [shortened(line.domain, 60), count(line.questions), *figures, span(line.edge_low, line.edge_high), *more, points(line.lift)]


def _bars(measured: Measured) -> Html:
    """One line for each domain: a ring for the device alone, a dot for both together, a stroke for the cloud alone."""
    keys = (
        ('<circle class="edge" cx="50%" cy="50%" r="5"/>', "the device alone"),
        ('<circle class="system" cx="50%" cy="50%" r="5"/>', "together"),
        ('<path class="cloud" d="M7 1v12"/>', "the cloud alone"),
    )
    shown = [element("li", Html(f'<svg aria-hidden="true" class="key">{mark}</svg>') + safe(words)) for mark, words in keys]
    lines = [
        element(
            "li",
            element("span", shortened(line.domain, 60), class_="name", title=line.domain),
            _bar(line),
            element("span", points(line.system - line.edge), class_="value"),
        )
        for line in measured.domains
    ]
    scale = "".join(f'<text x="{value}%" y="14" text-anchor="middle">{value}</text>' for value in range(0, 101, 25))
    top = element(
        "li",
        element("span", "right answers, %", class_="name"),
        Html(f'<svg aria-hidden="true">{scale}</svg>'),
        element("span", "points", class_="value"),
    )
    title = element("h3", f"Accuracy by domain{measured.heading}")
    said = element("figcaption", "The longer the line from ring to dot, the more the cloud adds at this threshold.")
    return element(
        "figure",
        title,
        element("div", element("ul", *shown, class_="keys"), element("ul", top, *lines, class_="bars"), class_="marks"),
        said,
        class_="long" if len(lines) > _LONG else "",
    )


def _bar(line: Routing) -> Html:
    marks = ['<line class="track" x1="0" x2="100%" y1="50%" y2="50%"/>']
    shares = (percent(value) for value in (line.edge, line.system, line.cloud))
    words = "{}: the device alone {} %, together {} %, the cloud alone {} %".format(line.domain, *shares)
    if math.isfinite(line.cloud):
        marks.append(f'<svg x="{100 * line.cloud:.1f}%" overflow="visible"><path class="cloud" d="M0 3v16"/></svg>')
    if math.isfinite(line.edge) and math.isfinite(line.system):
        kind = "gain" if line.system >= line.edge else "loss"
        marks.append(f'<line class="{kind}" x1="{100 * line.edge:.1f}%" x2="{100 * line.system:.1f}%" y1="50%" y2="50%"/>')
    for kind, value in (("edge", line.edge), ("system", line.system)):
        if math.isfinite(value):
            marks.append(f'<circle class="{kind}" cx="{100 * value:.1f}%" cy="50%" r="5"/>')
    return Html(f'<svg role="img" aria-label="{safe(words)}">{"".join(marks)}</svg>')
