"""What a benchmark found, as lines of text and as CSV.

Owns columns and units; computes nothing. Invariant: a figure that was not measured is a dash, or empty in CSV.
"""

from __future__ import annotations

import csv
import io
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
_LEGEND = """\
Times in ms. load: opening the file; cold: a new process to its first answer; restored: the same with the system message
kept on disk; decision: the median of all warm ones; x prefill: a decision against a bare evaluation of the same tokens, in
one batch if it holds them; floor: its multiplications at the fastest rate seen here, or its bytes at the measured bandwidth,
whichever is more; differ: decisions that are not those of the file that has a dash here, the largest if no other was named."""


def lines(results: Sequence[Result], machine: Machine, n_threads: int) -> Iterator[str]:
    """The machine, the table, and what its columns mean."""
    yield f"{machine.processor}, {machine.architecture}, {n_threads} of {machine.n_cpus} processors"
    if machine.governor and machine.governor != "performance":
        yield f"The governor is '{machine.governor}': 'performance' would give steadier figures."
    if machine.throttled and machine.throttled != "0x0":
        yield f"The firmware reports throttling or too little power ({machine.throttled}): these figures are too slow."
    yield ""
    rows = [[name for name, _ in _COLUMNS], *([show(result) for _, show in _COLUMNS] for result in results)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    for row in rows:
        yield "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
    yield ""
    yield from _LEGEND.splitlines()


def as_csv(results: Sequence[Result]) -> str:
    """A head and one line a file, numbers as measured."""
    out = io.StringIO()
    rows = [{key: value for key, value in asdict(result).items() if not isinstance(value, tuple | list)} for result in results]
    writer = csv.DictWriter(out, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
