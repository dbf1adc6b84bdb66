"""Formats an `Evaluation` as plain text.

Owns words, columns and rounding. Measures and prints nothing. Invariant: an undefined figure shows as "-", and every line
with the accuracy of a cloud says that the cloud is simulated, or stands under a heading that says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from edge_agent.core.terminal import columns_of, cut, padded
from edge_agent.measure.evaluate import Evaluation, Readout, Routing, Share

_ROUTING = ("domain", "questions", "cloud only", "edge raw", "95 %", "random", "system", "routed", "lift")
_READOUTS = ("readout", "AUROC", "ECE", "Brier", "APGR", "CPT 50 %", "CPT 80 %")

_LEAST_NAME = 12  # the first column is not made narrower


def lines(evaluation: Evaluation, width: int | None = None) -> Iterator[str]:
    """The whole evaluation as lines without line breaks; no table is wider than `width` columns, None if there is no limit."""
    yield from _facts(evaluation)
    cloud = f"a simulated cloud, right with probability {evaluation.simulated_cloud_accuracy:g}"
    for name, readout in evaluation.readouts.items():
        yield ""
        yield f"Routing by {name} at tau = {evaluation.tau:g}, with {cloud} (percent)"
        yield from _table(_ROUTING, [_routing(line) for line in (*readout.domains, readout.mean)], width)
    yield ""
    yield f"Confidence against truth; APGR and CPT (percent) with {cloud}"
    yield from _table(_READOUTS, [_readout(name, readout) for name, readout in evaluation.readouts.items()], width)
    yield from _groups("confidence", evaluation.levels, width)
    yield from _groups("difficulty", {str(number): share for number, share in evaluation.difficulties.items()}, width)


def _facts(evaluation: Evaluation) -> Iterator[str]:
    yield f"right          {_with_interval(evaluation.right)}"
    yield f"no confidence  {_with_interval(evaluation.no_confidence)}"
    if evaluation.greedy:
        kept, same = evaluation.greedy.keeps_format, evaluation.greedy.same
        yield f"unconstrained  {_with_interval(kept)} keep the format; {_with_interval(same)} of these give the same answer as the reading"
    speed = evaluation.speed
    times = f"{speed.mean_ms:.1f} ms a question (median {speed.median_ms:.1f}, 95th percentile {speed.p95_ms:.1f})"
    yield f"speed          {speed.questions_per_s:.1f} questions/s; {times}"


def _routing(line: Routing) -> list[str]:
    interval = _interval(line.edge_low, line.edge_high)
    shares = [_percent(share) for share in (line.random, line.system, line.routed)]
    return [line.domain, str(line.questions), _percent(line.cloud), _percent(line.edge), interval, *shares, f"{100 * line.lift:+.1f}"]


def _readout(name: str, readout: Readout) -> list[str]:
    figures = [_figure(value) for value in (readout.auroc, readout.ece, readout.brier, readout.apgr)]
    return [name, *figures, _percent(readout.cpt_50), _percent(readout.cpt_80)]


def _groups(title: str, groups: Mapping[str, Share], width: int | None) -> Iterator[str]:
    """The share of right answers in each group of questions. No lines if there is no group."""
    total = sum(share.questions for share in groups.values())
    rows = [
        [name, str(share.questions), _percent(share.questions / total), _percent(share.share), _interval(share.low, share.high)]
        for name, share in groups.items()
    ]
    if rows:
        yield ""
        yield from _table((title, "questions", "share", "right", "95 %"), rows, width)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> Iterator[str]:
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
        yield row[0]
        names = max(map(columns_of, head[1:]))
        yield from (f"  {padded(name, names)}  {cell}" for name, cell in zip(head[1:], row[1:], strict=True))


def _with_interval(share: Share) -> str:
    return f"{_percent(share.share)} % ({_interval(share.low, share.high)}) of {share.questions}"


def _interval(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{100 * low:.1f}-{100 * high:.1f}"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}"


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
