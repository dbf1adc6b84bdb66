"""The page around the sections: one HTML file that needs nothing else.

Owns the order of the sections and the frame (page.html, page.css, chart.css). Invariants: no script, nothing from a network, and the
same results give the same bytes.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

from edge_agent import __version__
from edge_agent.core.errors import BadData
from edge_agent.measure.report import compared, domains, opening, sections
from edge_agent.measure.report import pictures as drawn
from edge_agent.measure.report.charts import style
from edge_agent.measure.report.ladder import climb
from edge_agent.measure.report.markup import Html, element, join, safe
from edge_agent.measure.report.measured import Measured


def html(models: Sequence[Measured]) -> str:
    """The report on the first model; with more than one, also the ladder of all of them.

    Raises `BadData` if there are no answered questions, or if several models have none in common.
    """
    if not models or not len(models[0].results):
        raise BadData("There are no answered questions to report on; run `edge-agent eval` first.")
    first = models[0]
    parts = [opening.opening(first)]
    if len(models) > 1:
        parts.append(sections.quantizations(models))
    if first.calibration:
        parts.append(sections.promise(first))
    parts += [domains.by_domain(first), sections.curves(first), sections.trust(first), compared.side_by_side(first)]
    parts += [sections.time(models), opening.facts(first), _footer()]
    title = safe(f"{first.name}: routing report{first.heading}")
    return string.Template(style("page.html")).substitute(title=title, style=style("chart.css") + style("page.css"), body=join(parts))


def pictures(models: Sequence[Measured]) -> dict[str, str]:
    """The charts of the page as SVG files that stand alone, by name: text that stays text, and colours for light and dark."""
    first = models[0]
    charts = [drawn.deferral(first)] if first.has_cloud else []
    charts += [drawn.cost(first)] if first.has_cloud and first.has_prices else []
    charts += [drawn.reliability(first, first.results.reference)] if first.results.reference in first.evaluation.readouts else []
    if len(models) > 1:
        rungs = climb(models)
        charts += [drawn.steps(rungs), drawn.shares(rungs)]
    return {chart.name: chart.svg(style("chart.css")) for chart in charts}


def _footer() -> Html:
    words = f"Made by edge-agent {__version__} from stored answers; no model and no cloud was asked to make this page. "
    return element("footer", words + "Intervals are 95 %: Wilson for shares, bootstrap over questions for the rest.")
