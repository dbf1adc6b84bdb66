"""The page of a report: sound HTML, nothing from outside, nothing hostile, and the same figures as the evaluation."""

import dataclasses
import html
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from edge_agent.core.errors import BadData
from edge_agent.measure.report import page
from edge_agent.measure.report.markup import figure, percent, points
from tests.support.report_models import measured, results

HOSTILE = "<script>alert('x')</script>\"><img src=//evil onerror=alert(1)> $body \x1b[31m \u202e &amp; ${title}"
_EMPTY = {"meta", "br", "img", "link"}


class Outline(HTMLParser):
    """The elements of a page; fails where one is closed that is not open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.headings: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag in {"h1", "h2", "h3", "caption", "title"}:
            self.headings.append("")
        if tag not in _EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"h1", "h2", "h3", "caption", "title"}:
            self.headings[-1] += data


def words(text: str) -> str:
    """What a reader sees."""
    seen = re.sub(r"<[^>]+>", "|", text.split("<body>")[1])
    return html.unescape(seen).replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize("kind", ["simulated", "recorded", "none"])
def test_page_is_sound_and_needs_nothing_else(kind: str) -> None:
    text = page.html([measured(results(kind=kind))])
    outline = Outline(text)
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(outline.tags)
    assert not {"src", "href", "action", "onload"} & {name for name, _ in outline.attributes}
    assert "//" not in text and "url(" not in text and "@import" not in text
    ids = [value for name, value in outline.attributes if name == "id"]
    assert len(ids) == len(set(ids)) >= 10
    named = {value for name, values in outline.attributes if name == "aria-labelledby" for value in values.split()}
    assert named <= set(ids)


def test_strangers_words_are_escaped_everywhere() -> None:
    found = results(domains=(HOSTILE, "b"), name=HOSTILE, quantization=HOSTILE, kind="recorded", cloud_name=HOSTILE)
    other = results(domains=(HOSTILE, "b"), name="b" + HOSTILE, quantization="b" + HOSTILE, kind="recorded", seed=1)
    models = [measured(each, data=HOSTILE, notes=(HOSTILE,), data_sha256="<b>") for each in (found, other)]
    text = page.html(models)
    outline = Outline(text)
    assert not {"script", "img", "b"} & set(outline.tags)
    assert "onerror" not in {name for name, _ in outline.attributes}
    assert "\x1b" not in text and "\u202e" not in text
    assert text.count("&lt;script&gt;") >= 5
    for svg in page.pictures(models).values():
        assert "<script" not in svg and "\x1b" not in svg


def test_every_heading_with_cloud_figures_says_that_the_cloud_is_simulated() -> None:
    """Headings without the words are those whose figures do not change with the cloud."""
    without = {
        "What was measured", "Can the confidence be believed?", "Can confidence be believed?", "Can expected_confidence be believed?",
        "Which number tells right from wrong best?", "Questions sent to the cloud by file", "FogGen-test · routing report",
    }  # fmt: skip
    models = [measured(results(quantization=name, seed=seed)) for seed, name in enumerate(("Q8_0", "Q4_0"))]
    headings = [heading for heading in Outline(page.html(models)).headings if "error" not in heading]
    unmarked = {heading for heading in headings if "simulated cloud" not in heading}
    assert {heading.split(" against")[0] for heading in unmarked} <= without
    assert sum("simulated cloud" in heading for heading in headings) >= 10
    assert "simulated" not in page.html([measured(results(kind="recorded"))])
    pictures = page.pictures(models)
    assert all("(simulated cloud)</text>" in pictures[name] for name in ("deferral", "cost", "ladder-right"))


def test_figures_are_those_of_the_evaluation() -> None:
    model = measured(results(kind="recorded"))
    of_eval = model.evaluation.readouts["confidence"]
    for mine, theirs in zip((*model.domains, model.mean), (*of_eval.domains, of_eval.mean), strict=True):
        assert np.allclose(dataclasses.astuple(mine)[1:], dataclasses.astuple(theirs)[1:], equal_nan=True)
    shown = words(page.html([model]))
    for line in of_eval.domains:
        cells = (
            percent(line.cloud),
            percent(line.edge),
            percent(line.random),
            percent(line.system),
            percent(line.routed),
            points(line.lift),
        )
        assert all(f"|{cell}|" in shown for cell in cells)
    for readout in model.evaluation.readouts.values():
        assert all(f"|{cell}|" in shown for cell in (figure(readout.ece), figure(readout.brier), figure(readout.aurc)))
        assert figure(readout.auroc) in shown
    assert of_eval.intervals["lift"] == pytest.approx(model.lift[1:])


def test_headline_says_what_matters() -> None:
    model = measured(results(kind="recorded"))
    line = model.all
    kept = round(100 * (1 - line.routed))
    said = f"At a threshold of 0.5, the device answers {kept} of 100 questions itself; together with the cloud, "
    assert f"{said}{percent(line.system)} % are right, against {percent(line.random)} % with random routing." in words(page.html([model]))


def test_same_results_make_the_same_bytes() -> None:
    models = [[measured(results(quantization=name, seed=seed)) for seed, name in enumerate(("Q8_0", "Q4_0"))] for _ in range(2)]
    assert page.html(models[0]) == page.html(models[1])
    assert page.pictures(models[0]) == page.pictures(models[1])


@pytest.mark.parametrize("n", [1, 3, 40])
@pytest.mark.parametrize("tau", [0.0, 1.0])
@pytest.mark.parametrize("case", ["drawn", "all right", "all wrong", "nothing known", "no cloud", "never sure"])
def test_extreme_results_make_a_sound_page(n: int, tau: float, case: str) -> None:
    found = results(n, kind="none" if case == "no cloud" else "recorded", domains=("a",))
    nothing = {name: np.full(n, np.nan) for name in found.scores}
    changes = {
        "all right": {"edge_correct": np.ones(n)},
        "all wrong": {"edge_correct": np.zeros(n)},
        "nothing known": {"edge_correct": np.full(n, np.nan), "scores": nothing, "read_ms": np.full(n, np.nan), "cloud_tokens": None},
        "never sure": {"no_confidence": np.ones(n, np.bool_)},
    }.get(case, {})
    found = dataclasses.replace(found, **changes)
    models = [measured(found, tau=tau)] * (2 if n > 1 else 1)
    text = page.html(models)
    Outline(text)
    assert not re.search(r"\b(nan|inf|None)\b", words(text))
    assert not re.search(r'(?:x|y|x1|x2|cx|cy|width|height|d|points)="[^"]*(nan|inf)', text)


def test_no_answered_questions_are_refused() -> None:
    with pytest.raises(BadData, match="no answered questions"):
        page.html([measured(results(0))])


def test_many_domains_have_one_line_each() -> None:
    names = tuple(f"{at} " + "long name " * 30 for at in range(60))
    text = page.html([measured(results(1200, domains=names))])
    assert text.count('<span class="name" title=') == 60
    assert 'class="long"' in text


def test_pictures_stand_alone_and_keep_their_text() -> None:
    models = [measured(results(quantization=name, seed=seed)) for seed, name in enumerate(("Q8_0", "Q4_0"))]
    found = page.pictures(models)
    assert set(found) == {"deferral", "cost", "reliability-confidence", "ladder-right", "ladder-sent"}
    for name, svg in found.items():
        root = ElementTree.fromstring(svg)  # our own text
        space = "{http://www.w3.org/2000/svg}"
        assert root.tag == f"{space}svg" and "prefers-color-scheme: dark" in svg
        assert len(root.findall(f".//{space}text")) > 8, name
        assert root.find(f"{space}title") is not None and root.find(f"{space}desc") is not None
