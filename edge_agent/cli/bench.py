"""`edge-agent bench`: latency, memory and size of model files on this device."""

from __future__ import annotations

import json
import pathlib
from typing import TYPE_CHECKING

import click

from edge_agent import settings
from edge_agent.cli.group import EXIT_CODES, main, with_settings
from edge_agent.cli.show import echo, plain, print_json
from edge_agent.errors import StorageError

if TYPE_CHECKING:
    from edge_agent.question import Question


@main.command(epilog=EXIT_CODES)
@click.argument("models", nargs=-1)
@click.option("--repeats", type=click.IntRange(1, 100), default=3, show_default=True, help="Processes for each file.")
@click.option("--questions", "file", help="Ask these (one JSON object a line) instead of the built-in ones.")
@click.option("--limit", type=click.IntRange(3), help="Only the first so many questions.")
@click.option("--threads", type=click.IntRange(1), help="Threads to use.  [default: one a processor]")
@click.option("--csv", "csv_file", type=click.Path(path_type=pathlib.Path), help="Write the table to this file, too.")
@with_settings()
def bench(
    config: settings.Settings,
    models: tuple[str, ...],
    repeats: int,
    file: str | None,
    limit: int | None,
    threads: int | None,
    csv_file: pathlib.Path | None,
    as_json: bool,
) -> None:
    """Measure model files on this device.

    MODELS are .gguf files or catalogue names, such as a ladder of quantizations of one model; without any, the configured
    one. Each is run in processes of its own, in random order. Close other programs first: what they take is measured, too.
    """
    from edge_agent import catalog
    from edge_agent.llama import available_cpus
    from edge_agent.measure import bench as room
    from edge_agent.measure import bench_tables, machine

    paths = [catalog.resolve(model) for model in models or (config.model,)]
    n_threads = threads or available_cpus()
    about = machine.describe(available_cpus())
    questions = _questions(file)[:limit]
    runs = []
    for run in room.run(paths, questions, repeats, options={"n_threads": n_threads}):
        runs.append(run)
        click.echo(
            f"{run.number}/{run.total}  {run.path.name}  {sum(run.sample.decision_ms) / len(run.sample.decision_ms):.0f} ms", err=True
        )
    results = room.results(runs, paths, n_threads)
    if csv_file:
        _write(csv_file, bench_tables.csv(results))
    if as_json:
        print_json(room.to_dict(results, about, n_threads))
    else:
        for line in bench_tables.lines(results, about, n_threads):
            echo(plain(line))


def _questions(file: str | None) -> list[Question]:
    from edge_agent.measure import datasets
    from edge_agent.question import Question

    if file:
        return [labelled.question for labelled in datasets.load(pathlib.Path(file), None)]
    text = (pathlib.Path(datasets.__file__).parent / "bench_questions.jsonl").read_text(encoding="utf-8")
    return [Question.from_json(json.loads(line)) for line in text.splitlines()]


def _write(path: pathlib.Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"The file '{path}' cannot be written ({error.strerror}); choose another place.") from error
