"""Charts as SVG: axes, lines, dots, bars and their labels.

Owns scales, ticks and places. Knows no metric and no colour: a mark has a `kind`, which chart.css colours, so a chart follows the
page into dark mode and onto paper. Invariants: text stays text, a chart has a title and a description for those who cannot see it,
and points that are not numbers are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources

import numpy as np
import numpy.typing as npt

from edge_agent.measure.report.markup import Html, element, join, safe

Pairs = Sequence[tuple[float, float]] | npt.NDArray[np.float64]
WIDTH, HEIGHT = 480, 340
_RIGHT, _BOTTOM, _TOP = 14, 46, 10
_CHAR = 6.7  # the width of a letter at 12 px, on the safe side
_MOST_POINTS = 240  # of a line; more are not seen


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: what it shows, from `low` to `high`. `ticks` are values with their words; by default round numbers."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...] = ()

    def marks(self) -> tuple[tuple[float, str], ...]:
        """Its ticks."""
        return self.ticks or tuple((value, _words(value)) for value in round_numbers(self.low, self.high))


@dataclass(slots=True)
class Chart:
    """A chart that marks are added to; later marks lie on top. `name` is unique on the page."""

    name: str
    title: str
    description: str
    x: Axis
    y: Axis
    height: int = HEIGHT
    left: float = field(init=False)
    bottom: int = field(init=False)
    _marks: list[str] = field(default_factory=list)
    _legend: list[tuple[str, str, bool]] = field(default_factory=list)
    _next_to: list[tuple[float, float, str, bool]] = field(default_factory=list)
    _taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        longest = max((len(words) for _, words in self.y.marks()), default=0)
        self.bottom = _BOTTOM + 14 * max((words.count("\n") for _, words in self.x.marks()), default=0)
        self.left = max(54.0, longest * _CHAR + 14 + (18 if self.y.label else 0))

    def line(self, points: Pairs, kind: str, label: str = "") -> None:
        """A line through the points, in their order."""
        at = [self._at(x, y) for x, y in _thinned(points)]
        if len(at) < 2:
            return
        path = "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in at)
        self._marks.append(f'<path class="line {kind}" d="{path}"/>')
        self._name(kind, label, True)

    def band(self, low: Pairs, high: Pairs, kind: str) -> None:
        """The area between two lines."""
        outline = [*_thinned(low), *reversed(_thinned(high))]
        if len(outline) >= 4:
            path = "L".join(f"{_number(x)} {_number(y)}" for x, y in (self._at(x, y) for x, y in outline))
            self._marks.append(f'<path class="band {kind}" d="M{path}Z"/>')

    def dot(self, x: float, y: float, kind: str, label: str = "", words: str = "", big: bool = False) -> None:
        """A dot, with `words` next to it; `label` names its kind in the legend."""
        if not (math.isfinite(x) and math.isfinite(y)):
            return
        left, top = self._at(x, y)
        self._taken.append((left - 5, top - 5, left + 5, top + 5))
        self._marks.append(f'<circle class="dot {kind}" cx="{_number(left)}" cy="{_number(top)}" r="{6 if big else 3.6}"/>')
        if words:
            self._next_to.append((left, top, words, big))
        self._name(kind, label, False)

    def interval(self, x: float, low: float, high: float, kind: str) -> None:
        """An upright line with caps from `low` to `high`."""
        if math.isfinite(low) and math.isfinite(high):
            left, top = self._at(x, high)
            _, bottom = self._at(x, low)
            path = f"M{_number(left - 4)} {_number(top)}h8m-4 0V{_number(bottom)}m-4 0h8"
            self._taken.append((left - 4, top, left + 4, bottom))
            self._marks.append(f'<path class="whisker {kind}" d="{path}"/>')

    def bar(self, x: float, width: float, height: float, kind: str, label: str = "") -> None:
        """A bar on the x axis around `x`; `width` and `height` in the units of the axes."""
        if math.isfinite(height) and height > self.y.low:
            left, top = self._at(x - width / 2, height)
            right, bottom = self._at(x + width / 2, self.y.low)
            size = f'width="{_number(right - left)}" height="{_number(bottom - top)}"'
            self._marks.append(f'<rect class="bar {kind}" x="{_number(left)}" y="{_number(top)}" {size}/>')
            self._name(kind, label, False)

    def text(self, x: float, y: float, words: str, anchor: str = "middle", dy: float = 0) -> None:
        """Small words at a place."""
        left, top = self._at(x, y)
        self._marks.append(f'<text class="note" x="{_number(left)}" y="{_number(top + dy)}" text-anchor="{anchor}">{safe(words)}</text>')

    def svg(self, style: str = "") -> Html:
        """The whole chart. With a `style` it stands alone, as a file, under its title."""
        legend, above = self._drawn_legend()
        title = 26 if style else 0
        height = self.height + above + title
        space = f' xmlns="http://www.w3.org/2000/svg" width="{WIDTH}"' if style else ""
        named = f'role="img" aria-labelledby="{self.name}-t {self.name}-d"'
        head = f'<svg{space} class="chart" viewBox="0 0 {WIDTH} {height}" {named}>'
        words = element("title", self.title, id=f"{self.name}-t") + element("desc", self.description, id=f"{self.name}-d")
        sheet = f'<rect class="paper" width="{WIDTH}" height="{height}"/><text class="strong" x="6" y="18">{safe(self.title)}</text>'
        alone = element("style", Html(style)) + Html(sheet) if style else ""
        body = join([Html(part) for part in (*self._drawn_axes(), *self._marks, *self._placed_words())], "\n")
        shift = f'<g transform="translate(0 {title})">{legend}<g transform="translate(0 {above})">{body}</g></g>'
        return Html(f"{head}{words}{alone}{shift}</svg>")

    def framed(self, how: str = "") -> Html:
        """The chart under its title, with a sentence on how to read it."""
        return element("figure", element("h3", self.title), self.svg(), *([element("figcaption", how)] if how else []))

    def _at(self, x: float, y: float) -> tuple[float, float]:
        """The place of a value, inside the plot."""
        across = (x - self.x.low) / ((self.x.high - self.x.low) or 1)
        up = (y - self.y.low) / ((self.y.high - self.y.low) or 1)
        across, up = min(max(across, 0.0), 1.0), min(max(up, 0.0), 1.0)
        return self.left + across * (WIDTH - self.left - _RIGHT), self.height - self.bottom - up * (self.height - self.bottom - _TOP)

    def _placed_words(self) -> list[str]:
        """The words next to dots, strong ones first, each where it covers no other; small ones that fit nowhere are left out."""
        drawn, taken = [], list(self._taken)
        for left, top, words, big in sorted(self._next_to, key=lambda word: not word[3]):
            width = len(words) * (7.6 if big else 6.2)
            places = [(left + side * 9, top + down) for down in (15, -8, 4) for side in (1, -1)]
            for x, y in places:
                low = x if x > left else x - width
                box = (low, y - 11, low + width, y + 3)
                fits = low >= self.left - 8 and low + width <= WIDTH and y <= self.height - self.bottom - 2
                if fits and not any(box[0] < o[2] and o[0] < box[2] and box[1] < o[3] and o[1] < box[3] for o in taken):
                    kind, anchor = ("word strong" if big else "word"), ("start" if x > left else "end")
                    drawn.append(f'<text class="{kind}" x="{_number(x)}" y="{_number(y)}" text-anchor="{anchor}">{safe(words)}</text>')
                    taken.append(box)
                    break
        return drawn

    def _name(self, kind: str, label: str, is_line: bool) -> None:
        if label and label not in {known for _, known, _ in self._legend}:
            self._legend.append((kind, label, is_line))

    def _drawn_legend(self) -> tuple[Html, int]:
        """The legend, in as many lines as it needs, and its height."""
        parts, left, line = [], 4.0, 0
        for kind, label, is_line in self._legend:
            width = 32 + len(label) * _CHAR + 12
            if left > 4 and left + width > WIDTH:
                left, line = 4.0, line + 1
            y = 14 + 20 * line
            mark = f'<path class="line {kind}" d="M{_number(left)} {y - 4}h24"/>' if is_line else ""
            mark = mark or f'<circle class="dot {kind}" cx="{_number(left + 12)}" cy="{y - 4}" r="4.5"/>'
            parts.append(f'{mark}<text class="key" x="{_number(left + 30)}" y="{y}">{safe(label)}</text>')
            left += width
        return Html("".join(parts)), 20 * (line + 1) + 4 if parts else 0

    def _drawn_axes(self) -> list[str]:
        right, bottom = WIDTH - _RIGHT, self.height - self.bottom
        drawn = []
        for value, words in self.y.marks():
            _, y = self._at(self.x.low, value)
            drawn.append(f'<path class="grid" d="M{_number(self.left)} {_number(y)}H{right}"/>')
            drawn.append(f'<text class="tick" x="{_number(self.left - 7)}" y="{_number(y + 4)}" text-anchor="end">{safe(words)}</text>')
        for value, words in self.x.marks():
            x, _ = self._at(value, self.y.low)
            drawn.append(f'<path class="axis" d="M{_number(x)} {bottom}v4"/>')
            for n, row in enumerate(words.split("\n")):
                drawn.append(f'<text class="tick" x="{_number(x)}" y="{bottom + 18 + 14 * n}" text-anchor="middle">{safe(row)}</text>')
        drawn.append(f'<path class="axis" d="M{_number(self.left)} {bottom}H{right}"/>')
        middle = (_TOP + bottom) / 2
        drawn.append(
            f'<text class="label" x="{(self.left + right) / 2:.0f}" y="{self.height - 8}" text-anchor="middle">{safe(self.x.label)}</text>'
        )
        turned = f'transform="rotate(-90 13 {_number(middle)})"'
        drawn.append(f'<text class="label" x="13" y="{_number(middle)}" text-anchor="middle" {turned}>{safe(self.y.label)}</text>')
        return drawn


def style(name: str) -> str:
    """A style sheet of this package."""
    return resources.files("edge_agent.measure.report").joinpath(name).read_text(encoding="utf-8")


def round_numbers(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between `low` and `high`, about that many."""
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return [low] if math.isfinite(low) else []
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 2.5, 5, 10) if power * n >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def around(values: Sequence[float], least: float, low: float = 0.0, high: float = 1.0) -> tuple[float, float]:
    """Ends of an axis that shows all the values with some room, at least `least` long, inside `low` and `high`."""
    known = [value for value in values if math.isfinite(value)] or [low, high]
    bottom, top = min(known), max(known)
    room = max((top - bottom) * 0.08, (least - (top - bottom)) / 2)
    return max(low, bottom - room), min(high, top + room)


def _thinned(points: Pairs) -> list[tuple[float, float]]:
    """The points that are numbers; where there are very many, evenly chosen ones with both ends."""
    array = np.asarray(points, np.float64).reshape(-1, 2)
    array = array[np.isfinite(array).all(axis=1)]
    if len(array) > _MOST_POINTS:
        array = array[np.unique(np.linspace(0, len(array) - 1, _MOST_POINTS).round().astype(int))]
    return [(float(x), float(y)) for x, y in array]


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _words(value: float) -> str:
    return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:.3g}"
