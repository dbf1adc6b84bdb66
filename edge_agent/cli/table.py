"""Lays out a table for a terminal of any width, or for a pipe.

Owns widths and cuts; prints nothing. Invariants: no line is wider than the terminal; where there is no terminal, nothing is
cut. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_agent.core.terminal import columns_of, cut, one_line, padded

_GAP = "  "
_LEAST = 12  # a column is not made narrower; below, each row becomes a few lines


def lines(rows: Sequence[dict[str, Any]], columns: Sequence[str], width: int | None) -> tuple[str, list[str]]:
    """The header of a table and its lines. Columns that are empty in all rows are left out.

    `width` is that of the terminal, None if nothing is to be cut. Long cells are cut until the table fits. If it cannot fit, each
    row becomes a few lines, one for each column, and the header is "".
    """
    columns = [column for column in columns if any(row[column] not in (None, "") for row in rows)]
    table = [list(columns), *([_text(row[column]) for column in columns] for row in rows)]
    widths = [max(map(columns_of, cells)) for cells in zip(*table, strict=True)]
    if width is not None:
        fitting = _fitting(widths, width - len(_GAP) * (len(widths) - 1))
        if fitting is None:
            return "", _blocks(table, width)
        table = [[cut(cell, most) for cell, most in zip(cells, fitting, strict=True)] for cells in table]
        widths = fitting
    header, *others = [_line(cells, widths) for cells in table]
    return header, others


def _fitting(widths: list[int], room: int) -> list[int] | None:
    """Widths that fit, the widest columns made narrower; None if that is not enough."""
    widths = list(widths)
    while (over := sum(widths) - room) > 0:
        widest = max(widths)
        if widest <= _LEAST:
            return None
        narrower = max([_LEAST, *(one for one in widths if one < widest)])
        place = widths.index(widest)
        widths[place] = max(narrower, widest - over) if widths.count(widest) == 1 else widest - 1
    return widths


def _blocks(table: list[list[str]], width: int) -> list[str]:
    """Each row as lines of a name and a value, with an empty line between rows."""
    header, *rows = table
    names = max(map(columns_of, header))
    aligned = width - names - len(_GAP) >= _LEAST
    found = []
    for cells in rows:
        for name, cell in zip(header, cells, strict=True):
            if aligned and cell:
                found.append(padded(name, names) + _GAP + cut(cell, width - names - len(_GAP)))
            elif cell:
                found.append(cut(f"{name}: {cell}", width))
        found.append("")
    return found[:-1]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP.join(padded(cell, width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _text(value: object) -> str:
    return "" if value is None else one_line(str(value))
