"""The words of decisions, tables and JSON.

Owns everything that is printed to stdout; `table.py` owns how a table is laid out. Decides nothing. Invariant: text from a
model, a cloud or another person reaches a terminal without control characters.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

from edge_agent.cli import verbosity
from edge_agent.cli.table import lines
from edge_agent.core.readouts import CONFIDENCE
from edge_agent.core.records import option_text
from edge_agent.core.terminal import cut, one_line, plain, safe_json, shortened, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_agent.core.records import Decision

_PROVISIONAL = {
    "no_cloud": "no cloud is configured",
    "offline": "the cloud cannot be reached",
    "cloud_error": "the cloud returned no usable answer",
    "over_budget": "the cloud budget is used up for now",
}
INDENT = "   "
_FINAL = {
    "queue_full": "the queue for the cloud is full",
    "disk_low": "the disk is nearly full, and the rest is reserved for the queue",
    "never_send": "this question must not be sent",
}
_DRAIN = "`edge-agent queue drain` asks the cloud when it is reachable"
_NEXT = {"no_cloud": "set EDGE_AGENT_CLOUD_URL to ask a cloud, or `--policy only_local` to queue nothing"}
ID_SHOWN = 8  # the start of an id: enough to name one decision among thousands
NO_DECISIONS = "No decisions yet. Ask a question with `edge-agent ask`."
_FOREIGN = 0.01  # a format mass below it: FogGen models nearly always use their format, and others nearly never
_BY_POLICY = ("only_local", "only_cloud", "prefer_cloud")


def print_decision(decision: Decision, only_answer: bool = False, adapter: str | None = None) -> None:
    """Print one decision for a person, or `only_answer`; `adapter` is the path or name of the adapter on the model.

    An answer that was not stored is always said; with `only_answer`, on stderr.
    """
    words = decision.answer_text if decision.answer == decision.answer_text else f"{decision.answer}. {decision.answer_text}"
    echo(click.style(plain(words), bold=True))
    if only_answer:
        if not decision.persisted:
            why = decision.storage_error or "the reason is unknown"
            verbosity.problem(f"this answer is not stored: {why[:1].lower()}{why[1:]}")
        return
    said = [("sure", _sure(decision)), ("from", _source(decision)), ("time", _time(decision)), ("model", _model(decision, adapter))]
    for name, text in said:
        if text:
            say(f"{INDENT}{name:<8}{text}", 11)
    if decision.queue_id is not None:
        say(f"{INDENT}{'queued':<8}as number {decision.queue_id}; {_NEXT.get(decision.reason, _DRAIN)}", 11)
    if not decision.persisted:
        lost = f"{INDENT}{'lost':<8}not stored: {(decision.storage_error or '').rstrip('.')}; see `edge-agent doctor`"
        for line in lines_of(plain(lost), 11):
            echo(click.style(line, fg="red"))


def _sure(decision: Decision) -> str:
    if decision.format_mass is None:  # a plain model, or none was asked
        if decision.answer_probs is None:
            return "not asked"
        if decision.score is None and decision.reason not in _BY_POLICY and decision.cause not in _BY_POLICY:
            return (
                "unknown: a plain model prints no confidence, and no calibration counted here (`edge-agent calibrate` makes one; "
                "a tau of your own switches it off)"
            )
        if decision.reason in _BY_POLICY or decision.cause in _BY_POLICY:
            return f"unknown (the policy {decision.policy} does not ask how sure the model is)"
    elif decision.cause == "no_confidence":
        if decision.score is None:
            return f"unknown: an answer in words has no {decision.readout}"
        if decision.format_mass >= _FOREIGN:
            return "unknown: the model printed no confidence"
        from edge_agent.model.profile import IF_PLAIN

        return f"unknown: the model printed no confidence ({IF_PLAIN})"
    if decision.confidence is not None and (decision.reason in _BY_POLICY or decision.cause in _BY_POLICY):
        return f"{decision.confidence:.0%} (the policy {decision.policy} does not use it)"
    by = f", by calibration {decision.calibration[:ID_SHOWN]}" if decision.calibration else ""
    name = "" if decision.readout == CONFIDENCE else f"{decision.readout} "
    if decision.deferred and decision.score == decision.tau:
        return f"{name}{_share(decision.score)}, exactly the threshold, where a part of the questions goes to the cloud{by}"
    enough = "needed to keep an answer" if decision.deferred else "enough"
    return f"{name}{_share(decision.score)}; {_share(decision.tau)} is {enough}{by}"


def _share(value: float | None) -> str:
    """A fraction in percent, with a decimal only where it has one: scores other than the printed level are not round."""
    return "" if value is None else f"{value:.0%}" if abs(value * 100 - round(value * 100)) < 0.05 else f"{value:.1%}"


def _source(decision: Decision) -> str:
    where = "this device"
    if decision.cloud:
        where = f"the cloud ({decision.cloud.model})" + _cloud_sure(decision.cloud_confidence)
    elif decision.provisional:
        where = f"this device, provisional: {decision.cloud_error or _PROVISIONAL[decision.reason]}"
    elif decision.reason in _FINAL:
        where = f"this device, final: {_FINAL[decision.reason]}"
    return f"{where}; remembered from before" if decision.recalled else where


def _cloud_sure(confidence: float | None) -> str:
    """How sure the cloud is of its own answer, where it says so: 51% is worth knowing."""
    return "" if confidence is None else f", {confidence:.0%} sure"


def _time(decision: Decision) -> str:
    cloud = f", {decision.cloud.latency_ms:.0f} ms of it for the cloud" if decision.cloud and not decision.recalled else ""
    return f"{decision.timings.total_ms:.0f} ms{cloud}"


def _model(decision: Decision, adapter: str | None) -> str:
    if decision.answer_probs is None and decision.confidence is None:
        return ""  # the model was not asked
    name = decision.model.name + (", a small demo model" if decision.model.name.startswith("FogGen-demo") else "")
    return f"{name}, with the adapter {pathlib.PurePath(adapter).name}" if adapter and decision.model.adapter_sha256 else name


def print_rows(
    rows: list[dict[str, Any]],
    as_json: bool,
    for_programs: Callable[[dict[str, Any]], dict[str, Any]],
    for_people: Callable[[dict[str, Any]], dict[str, Any]],
    columns: tuple[str, ...],
    if_none: str,
) -> None:
    """Print all rows as JSON, each as `for_programs` says, or as a table with the columns of `for_people`; `if_none` if there are none."""
    if as_json:
        print_json([for_programs(row) for row in rows])
    elif rows:
        print_table([for_people(row) for row in rows], columns)
    else:
        echo(if_none)


def print_table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Print rows under a bold header. On a terminal, long cells are cut so that no line is wider than it."""
    header, others = lines(rows, columns, terminal_width())
    if header:
        echo(click.style(header, bold=True))
    for line in others:
        echo(line)


def terminal_width() -> int | None:
    """How many columns stdout has; None if it is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def fitted(*parts: str, indent: str = "") -> str:
    """The parts on a line that is not wider than the terminal; whole where there is none."""
    line, width = indent + "  ".join(map(one_line, parts)), terminal_width()
    return line if width is None else cut(line, max(1, width))


def lines_of(text: str, indent: int = 0) -> list[str]:
    """The text on as many lines as it needs on the terminal, the following ones indented; on one where there is no terminal."""
    width = terminal_width()
    return [text] if width is None else wrapped(text, max(1, width), indent)


def say(text: str, indent: int = 0, err: bool = False) -> None:
    """Print a text to stdout, or to stderr, on as many lines as it needs (`lines_of`)."""
    for line in lines_of(plain(text), indent):
        echo(line, err)


def print_check(name: str, ok: bool, detail: str, warnings: Sequence[str] = ()) -> None:
    """Print the result of one check, and its warnings."""
    mark = click.style("ok ", fg="green") if ok else click.style("BAD", fg="red", bold=True)
    first, *others = lines_of(f"{'':<3}  {name:<11} {plain(detail)}", 17)
    echo(mark + first[3:])
    for line in others:
        echo(line)
    for warning in warnings:
        first, *others = lines_of(f"{'':<3}  {name:<11} {plain(warning)}", 17)
        echo(click.style("!! ", fg="yellow", bold=True) + first[3:])
        for line in others:
            echo(line)


def print_json(data: object, line: bool = False) -> None:
    """Print JSON, on one `line` if more objects follow."""
    in_utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    click.echo(safe_json(data, indent=None if line else 2, only_ascii=not in_utf8))


def echo(text: str, err: bool = False) -> None:
    """Print one line to stdout, or to stderr; without colour if NO_COLOR is set."""
    click.echo(text, err=err, color=False if os.environ.get("NO_COLOR") else None)


def duration(seconds: float) -> str:
    """A time span in its largest unit: 40 s, 7 min, 3 h, 6 days."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def outcome(row: dict[str, Any]) -> str:
    """What became of a provisional decision, in words; `row` has its `cloud_answer`."""
    from edge_agent.store.export import cloud_confidence

    was, final = (_quoted(option_text(row, row[key])) for key in ("answer", "final_answer"))
    sure = _cloud_sure(cloud_confidence(row))
    if row["ending"] == "overturned":
        return f"overturned: was {was}, the cloud says {final}{sure}"
    if row["ending"] == "upheld":
        said = f"the cloud says {final}, too" if final == was else f"was {was}, the cloud says {final}"
        return f"upheld: {said}{sure}"
    if row["ending"] == "abandoned":
        return f"abandoned: {was} stays, because no answer of the cloud came"
    return f"waiting: {was} until the cloud answers" if row["provisional"] else f"final: {was}"


def _quoted(text: str) -> str:
    """A short text as it is; a long one is cut."""
    return shortened(text, 40) if text else "nothing"
