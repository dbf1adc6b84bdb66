"""Text that is safe inside HTML and SVG.

Owns escaping, tables and the words for numbers. Knows no figure. Invariant: only an `Html` goes into a page as it is; every other
text, such as a model's name or a domain, is escaped, and control characters are taken out.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from edge_agent.core.terminal import plain

NOTHING = "–"
"""What an unknown figure shows as."""


class Html(str):
    """Markup that is already safe."""

    __slots__ = ()

    def __add__(self, other: str) -> Html:
        return Html(str(self) + safe(other))


def safe(value: str) -> Html:
    """The text as markup; an `Html` stays what it is."""
    return value if isinstance(value, Html) else Html(html.escape(plain(value)).replace(" %", "\N{NO-BREAK SPACE}%"))


def join(parts: Sequence[str], between: str = "\n") -> Html:
    """The parts one after the other, each made safe."""
    return Html(between.join(safe(part) for part in parts))


def element(tag: str, *content: str, **attributes: str) -> Html:
    """One element with its content; `class_` stands for class, and other underscores for hyphens."""
    written = "".join(f' {name.rstrip("_").replace("_", "-")}="{safe(value)}"' for name, value in attributes.items() if value)
    return Html(f"<{tag}{written}>{join(content, '')}</{tag}>")


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], last: int = 0) -> Html:
    """A table whose first column names the rows; the `last` rows are sums of the others."""
    top = join([element("th", cell, scope="col") for cell in head], "")
    lines = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(element("td", cell) for cell in row[1:]),
            class_="sum" if n >= len(rows) - last else "",
        )
        for n, row in enumerate(rows)
    ]
    inside = element("table", element("caption", caption), Html(f"<thead><tr>{top}</tr></thead>"), element("tbody", *lines))
    return element("div", inside, class_="scroll", tabindex="0", role="region", aria_label=caption)


def section(title: str, name: str, *content: str, flows: bool = False) -> Html:
    """A part of the page under its heading; `name` is unique on the page. If it `flows`, a sheet of paper may end inside it."""
    return element("section", element("h2", title, id=name), *content, aria_labelledby=name, class_="flows" if flows else "")


def percent(share: float, digits: int = 1) -> str:
    """A fraction in percent, without the sign."""
    return NOTHING if math.isnan(share) else f"{100 * share:.{digits}f}"


def points(difference: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return NOTHING if math.isnan(difference) else f"{round(100 * difference, 1) + 0.0:+.1f}".replace("-", "−")


def figure(value: float, digits: int = 3) -> str:
    """A number that is no share."""
    return NOTHING if math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def with_small(value: str, more: str) -> Html:
    """A figure with a second, smaller line, such as its interval."""
    return safe(value) + element("small", more) if more and more != NOTHING else safe(value)


def span(low: float, high: float, digits: int = 1, scale: float = 100) -> str:
    """An interval; shares in percent unless `scale` is 1."""
    if math.isnan(low) or math.isnan(high):
        return NOTHING
    return f"{scale * low:.{digits}f} to {scale * high:.{digits}f}".replace("-", "−")


def milliseconds(ms: float) -> str:
    """A time, with as many digits as it deserves."""
    if math.isnan(ms):
        return NOTHING
    return f"{ms / 1000:.2f} s" if ms >= 10_000 else f"{ms:,.0f} ms" if ms >= 100 else f"{ms:.1f} ms"


def count(n: int) -> str:
    """A whole number with commas."""
    return f"{n:,}"
