"""`edge-agent eval`: a model on questions with known answers."""

from __future__ import annotations

import contextlib
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from edge_agent.cli.app import EXIT_CODES, SAMPLE, fraction, main, with_settings
from edge_agent.cli.show import print_json, say, terminal_width
from edge_agent.core.config import settings
from edge_agent.core.errors import BadData

if TYPE_CHECKING:
    from edge_agent.measure.evaluate import Row
    from edge_agent.measure.sets.loading import DataSet


@main.command("eval", epilog=EXIT_CODES)
@click.argument("file")
@click.option(
    "--cloud-accuracy",
    callback=fraction,
    metavar="NUMBER",
    default="0.95",
    help="The simulated cloud's accuracy.  [default: 0.95]",
)
@click.option("--greedy", is_flag=True, help="Also let the model print freely, and count how often it keeps the format (slow).")
@click.option("--limit", type=click.IntRange(1), help=f"Ask only this many questions: {SAMPLE}.")
@click.option("--rows", type=click.Path(path_type=pathlib.Path), help="Write one JSON line for each question to this file.")
@with_settings("tau", "model", "adapter")
def eval_command(
    config: settings.Settings, file: str, cloud_accuracy: float, greedy: bool, limit: int | None, rows: pathlib.Path | None, as_json: bool
) -> None:
    """Measure a model on questions with known answers.

    FILE has one JSON object a line; '-' is stdin. An object has "question", "options" (a list), "answer" (a letter) and,
    optionally, "domain", "difficulty" and "id". Nothing is stored and no cloud is asked: routing is measured with a
    simulated cloud.
    """
    from edge_agent.engine.local_model import LocalModel
    from edge_agent.measure import evaluate, tables
    from edge_agent.measure.rows import RowsFile, check_apart
    from edge_agent.model import catalog

    if rows:
        check_apart(rows, file)
    data = _data_set(file, limit)
    questions = data.rows
    for note in data.notes:
        click.echo(f"{note}.", err=True)
    path = catalog.resolve(config.model, config.models_folder)
    facts, answered = catalog.identify(path), []
    adapter = catalog.resolve_adapter(config.adapter, config.models_folder) if config.adapter else None
    with contextlib.ExitStack() as stack:
        rows_file = stack.enter_context(RowsFile(rows)) if rows else None
        model = stack.enter_context(LocalModel(path, adapter=adapter))
        for row in _with_progress(evaluate.ask(model, questions, greedy), len(questions)):
            answered.append(row)
            if rows_file:
                rows_file.write(row.to_dict())
        evaluation = evaluate.evaluate(answered, model.profile, config.tau, cloud_accuracy)
    if as_json:
        identity = {"name": facts.name, "sha256": facts.sha256, "quantization": facts.quantization}
        if adapter:
            identity["adapter_sha256"] = catalog.identify(adapter).sha256
        print_json({"file": file, "model": identity, **evaluation.to_dict()})
    else:
        on = f", with the adapter {adapter.name} (sha256 {catalog.identify(adapter).sha256[:12]})" if adapter else ""
        for line in (f"model          {facts.name} (sha256 {facts.sha256[:12]}){on}", *tables.lines(evaluation, terminal_width())):
            say(line, 15 if line[13:15] == "  " else 0)  # after a label, or from the start


def _data_set(file: str, limit: int | None) -> DataSet:
    from edge_agent.measure.sets import loading

    if file != "-":
        return loading.load(pathlib.Path(file), limit)
    if sys.stdin is None:
        raise BadData("There is no stdin to read from; give a file.")
    return loading.read(sys.stdin.buffer, "stdin", limit)


def _with_progress(rows: Iterator[Row], total: int) -> Iterator[Row]:
    """The same rows, with a count on stderr if it is a terminal."""
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
