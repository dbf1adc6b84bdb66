"""Lays out tables and sentences as plain text that fits a terminal.

Owns columns and rounding; knows no figure's meaning. Invariants: no line is wider than asked for, unless a single cell is; an
undefined figure shows as "-".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from edge_agent.core.terminal import columns_of, cut, padded, wrapped

_LEAST_NAME = 12  # the first column is not made narrower


def table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> Iterator[str]:
    """A table, its columns closer together and its names cut if it does not fit; if that is not enough, a few lines for each row."""
    widths = [max(map(columns_of, cells)) for cells in zip(head, *rows, strict=True)]
    if width is not None and (over := sum(widths) + len(widths) - 1 - width) > 0 and widths[0] - over >= _LEAST_NAME:
        widths[0] -= over
        head, *rows = ([cut(row[0], widths[0]), *row[1:]] for row in (head, *rows))
    gap = next((n for n in (2, 1) if width is None or sum(widths) + n * (len(widths) - 1) <= width), 0)
    for row in (head, *rows) if gap else ():
        first, *others = (" " * (most - columns_of(cell)) + cell for cell, most in zip(row, widths, strict=True))
        yield (" " * gap).join([padded(first.lstrip(), widths[0]), *others]).rstrip()
    for row in () if gap else rows:
        yield from _stacked(head, row, width or 0)


def _stacked(head: Sequence[str], row: Sequence[str], width: int) -> Iterator[str]:
    """A row as one line for each cell, or two where name and cell do not fit beside each other."""
    yield cut(row[0], max(1, width))
    names = max(map(columns_of, head[1:]))
    for name, cell in zip(head[1:], row[1:], strict=True):
        beside = f"  {padded(name, names)}  {cell}"
        yield from (beside,) if columns_of(beside) <= width else (f"  {name}", f"    {cell}")


def sentence(text: str, width: int | None, indent: int = 0) -> list[str]:
    """A text on as many lines as it needs; the lines after the first begin with `indent` spaces."""
    return [text] if width is None else wrapped(text, max(1, width), indent)


def percent(share: float) -> str:
    """A fraction as a percentage with one decimal, without the sign."""
    return "-" if math.isnan(share) else f"{100 * share:.1f}"


def points(difference: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return "-" if math.isnan(difference) else f"{100 * difference:+.1f}"


def figure(value: float) -> str:
    """A figure with three decimals."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def interval(low: float, high: float) -> str:
    """An interval of fractions, as percentages."""
    return "-" if math.isnan(low) else f"{100 * low:.1f}-{100 * high:.1f}"


def between(low: float, high: float) -> str:
    """An interval of differences of fractions, in percentage points with their signs."""
    return "-" if math.isnan(low) else f"{100 * low:+.1f} to {100 * high:+.1f}"
