"""The results of a benchmark as lines of text and as CSV.

Owns columns and units. Computes nothing. Invariant: a figure that was not measured is a dash in text and empty in CSV.
"""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from edge_agent.measure.bench.machine import Machine
from edge_agent.measure.bench.runs import Result

_COLUMNS = (
    ("file", lambda r: r.label),
    ("MB", lambda r: f"{r.size_bytes / 1e6:.0f}"),
    ("bits", lambda r: f"{r.bits_per_weight:.1f}"),
    ("load", lambda r: f"{r.load_ms:.0f}"),
    ("cold", lambda r: f"{r.cold_ms:.0f}"),
    ("restored", lambda r: _or_dash(r.restored_ms, "{:.0f}")),
    ("decision", lambda r: f"{r.decision_p50_ms:.1f}"),
    ("95 % interval", lambda r: "{:.1f}-{:.1f}".format(*r.decision_p50_interval_ms)),
    ("p95", lambda r: f"{r.decision_p95_ms:.1f}"),
    ("busy", lambda r: _or_dash(r.busy_p50_ms, "{:.1f}")),
    ("x prefill", lambda r: f"{r.prefill_ratio:.2f}"),
    ("floor", lambda r: f"{r.floor_ms:.1f}"),
    ("prefill/s", lambda r: f"{r.prefill_per_s:.0f}"),
    ("decode/s", lambda r: f"{r.decode_per_s:.0f}"),
    ("passes", lambda r: f"{r.n_forward:.1f}"),
    ("tokens", lambda r: f"{r.n_tokens:.0f}"),
    ("anon MB", lambda r: _or_dash(r.anonymous_bytes and r.anonymous_bytes / 1e6, "{:.0f}")),
    ("mapped MB", lambda r: _or_dash(r.mapped_bytes and r.mapped_bytes / 1e6, "{:.0f}")),
    ("differ", lambda r: _or_dash(r.differing, "{:.1%}")),
)
_LEGEND_WIDTH = 125
_LEGEND = """\
Times are in ms. load: opening the file; cold: the first answer of a new process; restored: the same with the system message
on disk; decision: the median of all warm decisions; busy: the same beside a program that keeps one core busy; x prefill: a
decision divided by a bare evaluation of the same tokens, in one batch if they fit; floor: the multiplications at the highest
measured rate or the bytes at the measured bandwidth, whichever takes longer; differ: answers that differ from the reference,
which has a dash here (by default the largest file)."""


def lines(results: Sequence[Result], machine: Machine, n_threads: int, width: int | None = None) -> Iterator[str]:
    """The machine, the table, and the meaning of its columns; in as many tables below each other as a terminal of `width` needs."""
    variant = f", llama.cpp's variant {machine.variant}" if machine.variant else ""
    yield f"{machine.processor}, {machine.architecture}, {n_threads} of {machine.n_cpus} CPUs{variant}"
    if machine.governor and machine.governor != "performance":
        yield f"The CPU governor is '{machine.governor}'; with 'performance' the figures vary less."
    if machine.throttled and machine.throttled != "0x0":
        yield f"The firmware reports throttling or low voltage ({machine.throttled}), so these figures are too slow."
    yield ""
    columns = [[name, *(show(result) for result in results)] for name, show in _COLUMNS]
    for part in _parts(columns, width):
        widths = [max(map(len, column)) for column in part]
        for row in zip(*part, strict=True):
            yield "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        yield ""
    yield from textwrap.wrap(_LEGEND, min(width or _LEGEND_WIDTH, _LEGEND_WIDTH))


def _parts(columns: list[list[str]], width: int | None) -> Iterator[list[list[str]]]:
    """The columns in groups that fit into `width`, each led by the first column, which names the rows."""
    first, *others = columns
    taken: list[list[str]] = []
    for column in others:
        if taken and width is not None and sum(max(map(len, one)) + 2 for one in (first, *taken, column)) - 2 > width:
            yield [first, *taken]
            taken = []
        taken.append(column)
    yield [first, *taken]


def as_csv(results: Sequence[Result]) -> str:
    """A header and one line for each file, with unrounded numbers."""
    out = io.StringIO()
    rows = [{key: value for key, value in asdict(result).items() if not isinstance(value, tuple | list)} for result in results]
    writer = csv.DictWriter(out, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
