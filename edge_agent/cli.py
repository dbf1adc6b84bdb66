"""`edge-agent`: arguments in, output and exit codes out; the only room that prints.

Owns words and layout. Decides nothing. Invariant: data goes to stdout, everything else to stderr; a problem that a
person can act on ends in one line and its exit code, never in a traceback. Heavy rooms are imported by the command
that needs them, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import pathlib
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from edge_agent import __version__, settings
from edge_agent.errors import BadData, BadQuestion, BadSetting, EdgeAgentError
from edge_agent.question import Question

if TYPE_CHECKING:
    from edge_agent.measure.datasets import Labelled
    from edge_agent.measure.evaluate import Row
    from edge_agent.records import Decision

EXIT_CODES = """\b
Exit codes: 0 answered (a provisional answer that was queued, too), 1 bug, 2 usage,
65 bad input, 66 model missing or refused, 69 cloud unavailable (under only_cloud, or
to drain), 74 storage or output, 78 bad configuration, 130 interrupted,
141 the reader of the output left."""

_PROVISIONAL = {
    "no_cloud": "no cloud is set up",
    "offline": "the cloud cannot be reached",
    "cloud_error": "the cloud gave no usable answer",
}
_JOINERS = "\u200c\u200d"  # emoji and some scripts need them
_BY_POLICY = ("only_local", "only_cloud", "prefer_cloud")


def _fraction(_: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """A wrong number on the command line is a usage error (2), not a bad configuration (78)."""
    try:
        return None if value is None else float(settings.checked("tau", value, parameter.name or ""))
    except BadSetting as error:
        raise click.BadParameter(str(error)) from error


class _Group(click.Group):
    """Turns our own exceptions into one line on stderr and their exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except EdgeAgentError as error:
            click.echo(f"edge-agent: {error}", err=True)
            ctx.exit(error.exit_code)
        except (KeyboardInterrupt, click.Abort):
            click.echo("edge-agent: interrupted", err=True)
            ctx.exit(130)
        except OSError as error:
            if error.filename is not None:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered goes nowhere
            if error.errno == errno.EPIPE:
                ctx.exit(141)  # as a shell says of a reader that left
            click.echo(f"edge-agent: the output cannot be written ({error.strerror})", err=True)
            ctx.exit(74)


_SETTINGS = {
    "model": click.option("--model", help="A .gguf file or a catalogue name.  [default: demo]"),
    "tau": click.option(
        "--tau", callback=_fraction, metavar="NUMBER", help="Keep the answer from this confidence on, 0 to 1.  [default: the model's]"
    ),
    "policy": click.option("--policy", type=click.Choice(settings.POLICIES), help="Who may answer.  [default: prefer_local]"),
    "cloud_url": click.option("--cloud-url", help="Base URL of an OpenAI-compatible API; without it there is no cloud."),
    "cloud_model": click.option("--cloud-model", help="The model to ask for there."),
}


def _with_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of these settings and --json; they arrive as `config` and `as_json`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
        @functools.wraps(command)
        def wrapped(**arguments: Any) -> None:
            flags = {name: arguments.pop(name) for name in names}
            command(config=settings.load(flags), **arguments)

        for name in reversed(names):
            wrapped = _SETTINGS[name](wrapped)
        return wrapped

    return decorate


@click.group(cls=_Group, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edge-agent")
def main() -> None:
    """Small models that say how sure they are, on this device; a cloud for the rest.

    Settings come from flags, then the environment (EDGE_AGENT_MODEL, EDGE_AGENT_TAU, EDGE_AGENT_POLICY,
    EDGE_AGENT_CLOUD_URL, EDGE_AGENT_CLOUD_MODEL, EDGE_AGENT_CLOUD_KEY), then config.toml. EDGE_AGENT_HOME keeps
    everything in one folder.
    """


@main.command(epilog=EXIT_CODES)
@click.argument("text", required=False)
@click.option("--option", "options", multiple=True, help="One option's text; give it once for each option.")
@click.option("--refresh", is_flag=True, help="Ask anew, even if the answer is remembered.")
@_with_settings("tau", "policy", "model", "cloud_url", "cloud_model")
def ask(config: settings.Settings, text: str | None, options: tuple[str, ...], refresh: bool, as_json: bool) -> None:
    """Ask a multiple-choice question.

    TEXT is the question and then one option a line ('A. ...', 'B. ...'), or '-' to read that from stdin, or the
    question alone with --option for each option.
    """
    from edge_agent.agent import Agent

    question = _question(text, options)
    with Agent.open(config) as agent:
        decision = agent.ask(question, refresh=refresh)
    if as_json:
        _print_json(decision.to_dict())
    else:
        _print_decision(decision)
    if decision.provisional and not decision.persisted:
        click.get_current_context().exit(74)  # the question was not queued: it would be lost unseen


@main.group()
def queue() -> None:
    """Questions that wait for the cloud."""


@queue.command("list", epilog=EXIT_CODES)
@_with_settings()
def queue_list(config: settings.Settings, as_json: bool) -> None:
    """List them, oldest first."""
    from dataclasses import asdict

    from edge_agent.outbox import Outbox
    from edge_agent.store import Store

    with Store(config.database) as store:
        rows = [
            {**asdict(row), "created_at": _iso(row.created_at), "question": store.question(row.fingerprint).stem}
            for row in Outbox(store).list()
        ]
    if as_json:
        _print_json(rows)
    elif not rows:
        click.echo("Nothing was ever queued.")
    else:
        _print_table(rows, ("queue_id", "state", "attempts", "created_at", "question", "last_error"))


@queue.command("drain", epilog=EXIT_CODES)
@_with_settings("model", "cloud_url", "cloud_model")
def queue_drain(config: settings.Settings, as_json: bool) -> None:
    """Send what waits to the cloud, once over the queue."""
    from dataclasses import asdict

    from edge_agent.agent import Agent, Drained

    done = None
    with Agent.open(config) as agent:
        for step in agent.drain():
            if isinstance(step, Drained):
                done = step
            else:
                click.echo(f"sending question {step.queue_id} ...", err=True)
    assert done is not None
    if as_json:
        _print_json(asdict(done))
    else:
        click.echo(f"{done.answered} answered, {done.failed} failed, {done.waiting} still waiting.")
        if done.stopped:
            click.echo(f"Stopped early: {_plain(done.stopped)}. Drain again later.")
    if done.stopped or (done.failed and not done.answered):
        click.get_current_context().exit(69)


@main.command(epilog=EXIT_CODES)
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@_with_settings()
def log(config: settings.Settings, limit: int, as_json: bool) -> None:
    """Show the last decisions, newest first."""
    from edge_agent.store import Store

    with Store(config.database) as store:
        rows = store.log(limit)
    for row in rows:
        row["question"] = row.pop("stem")
        for key in ("options", "policy", "circumstances"):
            row[key] = json.loads(row[key])
        for key in ("created_at", "ended_at"):
            row[key] = _iso(row[key]) if row[key] else None
        for key in ("deferred", "recalled", "provisional"):
            row[key] = bool(row[key])
    if as_json:
        _print_json(rows)
    elif not rows:
        click.echo("No decisions yet; ask something with `edge-agent ask`.")
    else:
        for row in rows:
            if row["ending"] == "overturned":
                row["answer"] += f" → {row['final_answer']}"
            if row["cause"] == "no_confidence":
                row["score"] = None
            row["ending"] = row["ending"] or ("waiting" if row["provisional"] else "")
            row["recalled"] = "yes" if row["recalled"] else ""
        _print_table(rows, ("created_at", "question", "answer", "score", "route", "reason", "cause", "recalled", "ending"))


@main.command("eval", epilog=EXIT_CODES)
@click.argument("file")
@click.option(
    "--cloud-accuracy", callback=_fraction, metavar="NUMBER", default="0.95", help="Of the simulated cloud, 0 to 1.  [default: 0.95]"
)
@click.option("--greedy", is_flag=True, help="Also let the model print unconstrained, and count how often it keeps the format (slow).")
@click.option("--limit", type=click.IntRange(1), help="Only the first so many questions.")
@click.option("--rows", type=click.Path(path_type=pathlib.Path), help="Write one JSON line for each question to this file.")
@_with_settings("tau", "model")
def eval_command(
    config: settings.Settings, file: str, cloud_accuracy: float, greedy: bool, limit: int | None, rows: pathlib.Path | None, as_json: bool
) -> None:
    """Measure a model on questions with known answers.

    FILE has one JSON object a line, or is '-' for stdin: "question", "options" (a list), "answer" (a letter) and, if
    you like, "domain", "difficulty" and "id". Nothing is stored and no cloud is asked: routing is measured against a
    simulated one.
    """
    from edge_agent import catalog
    from edge_agent.engine import LocalModel
    from edge_agent.measure import evaluate, tables
    from edge_agent.measure.rows import RowsFile

    questions = _labelled_questions(file, limit)
    path = catalog.resolve(config.model)
    facts, answered = catalog.identify(path), []
    with contextlib.ExitStack() as stack:
        rows_file = stack.enter_context(RowsFile(rows)) if rows else None
        model = stack.enter_context(LocalModel(path))
        for row in _with_progress(evaluate.ask(model, questions, greedy), len(questions)):
            answered.append(row)
            if rows_file:
                rows_file.write(row.to_dict())
        evaluation = evaluate.evaluate(answered, model.profile, config.tau, cloud_accuracy)
    if as_json:
        identity = {"name": facts.name, "sha256": facts.sha256, "quantization": facts.quantization}
        _print_json({"file": file, "model": identity, **evaluation.to_dict()})
    else:
        for line in (f"model          {facts.name} (sha256 {facts.sha256[:12]})", *tables.lines(evaluation)):
            _echo(_plain(line))


@main.command(epilog=EXIT_CODES)
@_with_settings("model", "cloud_url", "cloud_model")
def doctor(config: settings.Settings, as_json: bool) -> None:
    """Check this installation: model, build, database, cloud settings."""
    from dataclasses import asdict

    from edge_agent import doctor as room

    checks = room.examine(config)
    if as_json:
        _print_json([asdict(check) for check in checks])
    else:
        for check in checks:
            mark = click.style("ok ", fg="green") if check.exit_code == 0 else click.style("BAD", fg="red", bold=True)
            _echo(f"{mark}  {check.name:<9} {check.detail}")
    sys.exit(next((check.exit_code for check in checks if check.exit_code), 0))


def _question(text: str | None, options: tuple[str, ...]) -> Question:
    if text == "-":
        if sys.stdin is None:
            raise BadQuestion("There is no stdin to read the question from; give it as an argument.")
        try:
            text = sys.stdin.buffer.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadQuestion(f"The question on stdin is not UTF-8 (byte {error.start}); check its encoding.") from error
    if text is None:
        raise click.UsageError("Give a question, or '-' to read it from stdin.")
    return Question(text, options) if options else Question.parse(text)


def _labelled_questions(file: str, limit: int | None) -> list[Labelled]:
    from edge_agent.measure import datasets

    if file != "-":
        return datasets.load(pathlib.Path(file), limit)
    if sys.stdin is None:
        raise BadData("There is no stdin to read questions from; give a file.")
    return datasets.read(sys.stdin.buffer, "stdin", limit)


def _with_progress(rows: Iterator[Row], total: int) -> Iterator[Row]:
    """The same rows, counted on stderr while they come, if that is a terminal."""
    visible = sys.stderr is not None and sys.stderr.isatty()
    started = shown = time.monotonic()
    try:
        for number, row in enumerate(rows, 1):
            now = time.monotonic()
            if visible and (now - shown > 0.2 or number == total):
                click.echo(f"\r{number}/{total}  {number / (now - started):.1f} questions/s".ljust(40), nl=False, err=True)
                shown = now
            yield row
    finally:
        if visible:
            click.echo(err=True)


def _print_decision(decision: Decision) -> None:
    _echo(click.style(_plain(f"{decision.answer}. {decision.answer_text}"), bold=True))
    for name, text in [("sure", _sure(decision)), ("from", _source(decision)), ("time", _time(decision)), ("model", _model(decision))]:
        if text:
            _echo(f"   {name:<8}{_plain(text)}")
    if decision.queue_id is not None:
        _echo(f"   {'queued':<8}as number {decision.queue_id}; `edge-agent queue drain` asks the cloud when it can be reached")
    if not decision.persisted:
        _echo(click.style(f"   {'lost':<8}the database refused to store this; see `edge-agent doctor`", fg="red"))


def _sure(decision: Decision) -> str:
    if decision.confidence is None:
        return "not asked"
    if decision.cause == "no_confidence":
        return "unknown: the model does not say its confidence"
    if decision.reason in _BY_POLICY or decision.cause in _BY_POLICY:
        return f"{decision.confidence:.0%} (the policy {decision.policy} decides without it)"
    return f"{decision.score:.0%}, and {decision.tau:.0%} is " + ("needed to keep an answer" if decision.deferred else "enough")


def _source(decision: Decision) -> str:
    where = "this device"
    if decision.cloud:
        where = f"the cloud ({decision.cloud.model})"
    elif decision.provisional:
        where = f"this device, provisionally: {decision.cloud_error or _PROVISIONAL[decision.reason]}"
    return f"{where}; remembered, nothing was run" if decision.recalled else where


def _time(decision: Decision) -> str:
    cloud = f", of which the cloud {decision.cloud.latency_ms:.0f} ms" if decision.cloud and not decision.recalled else ""
    return f"{decision.timings.total_ms:.0f} ms{cloud}"


def _model(decision: Decision) -> str:
    if decision.confidence is None:
        return ""  # it was not asked
    return decision.model.name + (", a toy for trying things out" if decision.model.name.startswith("FogGen-demo") else "")


def _print_table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    for number, line in enumerate([list(columns), *cells]):
        shown = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        _echo(click.style(shown, bold=True) if number == 0 else shown)


def _cell(value: object) -> str:
    text = _plain(" ".join(str("" if value is None else value).split()))
    return text if len(text) <= 48 else text[:47] + "…"


def _plain(text: str) -> str:
    """The text without control and direction characters, which could rewrite an operator's terminal."""
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c)[0] == "C" and c not in _JOINERS else c for c in text)


def _print_json(data: object) -> None:
    click.echo(json.dumps(data, ensure_ascii=False, indent=2))


def _echo(text: str) -> None:
    click.echo(text, color=False if os.environ.get("NO_COLOR") else None)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")
