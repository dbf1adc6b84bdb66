"""The words and layout of decisions, tables and JSON.

Owns everything that is printed to stdout. Decides nothing. Invariant: text from a model, a cloud or another person reaches a
terminal without control characters.
"""

from __future__ import annotations

import json
import os
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from edge_agent.core.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_agent.core.records import Decision

_PROVISIONAL = {
    "no_cloud": "no cloud is configured",
    "offline": "the cloud cannot be reached",
    "cloud_error": "the cloud returned no usable answer",
    "over_budget": "the cloud budget is used up for now",
}
_FINAL = {
    "queue_full": "the queue for the cloud is full",
    "disk_low": "the disk is nearly full, and the rest is reserved for the queue",
    "never_send": "this question must not be sent",
}
NO_DECISIONS = "No decisions yet. Ask a question with `edge-agent ask`."
_BY_POLICY = ("only_local", "only_cloud", "prefer_cloud")


def print_decision(decision: Decision, only_answer: bool = False) -> None:
    """Print one decision for a person, or `only_answer`."""
    words = decision.answer_text if decision.answer == decision.answer_text else f"{decision.answer}. {decision.answer_text}"
    echo(click.style(plain(words), bold=True))
    if only_answer:
        return
    for name, text in [("sure", _sure(decision)), ("from", _source(decision)), ("time", _time(decision)), ("model", _model(decision))]:
        if text:
            echo(f"   {name:<8}{plain(text)}")
    if decision.queue_id is not None:
        echo(f"   {'queued':<8}as number {decision.queue_id}; `edge-agent queue drain` asks the cloud when it is reachable")
    if not decision.persisted:
        echo(
            click.style(plain(f"   {'lost':<8}not stored: {(decision.storage_error or '').rstrip('.')}; see `edge-agent doctor`"), fg="red")
        )


def _sure(decision: Decision) -> str:
    if decision.confidence is None:
        return "not asked"
    if decision.cause == "no_confidence":
        return "unknown: the model printed no confidence"
    if decision.reason in _BY_POLICY or decision.cause in _BY_POLICY:
        return f"{decision.confidence:.0%} (the policy {decision.policy} does not use it)"
    return f"{decision.score:.0%}; {decision.tau:.0%} is " + ("needed to keep an answer" if decision.deferred else "enough")


def _source(decision: Decision) -> str:
    where = "this device"
    if decision.cloud:
        where = f"the cloud ({decision.cloud.model})"
    elif decision.provisional:
        where = f"this device, provisional: {decision.cloud_error or _PROVISIONAL[decision.reason]}"
    elif decision.reason in _FINAL:
        where = f"this device, final: {_FINAL[decision.reason]}"
    return f"{where}; remembered from before" if decision.recalled else where


def _time(decision: Decision) -> str:
    cloud = f", {decision.cloud.latency_ms:.0f} ms of it for the cloud" if decision.cloud and not decision.recalled else ""
    return f"{decision.timings.total_ms:.0f} ms{cloud}"


def _model(decision: Decision) -> str:
    if decision.confidence is None:
        return ""  # the model was not asked
    return decision.model.name + (", a small demo model" if decision.model.name.startswith("FogGen-demo") else "")


def print_rows(
    rows: list[dict[str, Any]],
    as_json: bool,
    columns: tuple[str, ...],
    for_people: Callable[[dict[str, Any]], dict[str, Any]],
    if_none: str,
) -> None:
    """Print all rows as JSON, or as a table with the extra columns of `for_people`, or `if_none` if there are no rows."""
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo(if_none)
    else:
        print_table([row | for_people(row) for row in rows], columns)


def print_table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Print rows under a bold header, with long cells cut."""
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    for number, line in enumerate([list(columns), *cells]):
        shown = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        echo(click.style(shown, bold=True) if number == 0 else shown)


def _cell(value: object) -> str:
    text = plain(" ".join(str("" if value is None else value).split()))
    return text if len(text) <= 48 else text[:47] + "…"


def print_json(data: object, line: bool = False) -> None:
    """Print JSON, on one `line` if more objects follow."""
    click.echo(json.dumps(data, ensure_ascii=False, indent=None if line else 2))


def echo(text: str) -> None:
    """Print one line to stdout, without colour if NO_COLOR is set."""
    click.echo(text, color=False if os.environ.get("NO_COLOR") else None)


def duration(seconds: float) -> str:
    """A time span in its largest unit: 40 s, 7 min, 3 h, 6 days."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def iso(seconds: float) -> str:
    """A Unix time in ISO 8601, in local time."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")
