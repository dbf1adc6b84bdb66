"""`edge-agent bench`: latency, memory and size of model files on this device."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

import click

from edge_agent.cli.app import EXIT_CODES, PROFILE, SAMPLE, main, with_settings
from edge_agent.cli.outputs import check_outputs, data_files, model_files, write_text
from edge_agent.cli.show import echo, print_json, terminal_width
from edge_agent.core.config import settings
from edge_agent.core.terminal import plain

if TYPE_CHECKING:
    from edge_agent.core.question import Question
    from edge_agent.model.catalog import ModelFiles


@main.command(epilog=EXIT_CODES)
@click.argument("models", nargs=-1)
@click.option("--adapter", metavar="GGUF", help="An adapter for each of MODELS, made with python -m convert --adapter-gguf.")
@click.option("--against", metavar="REF", help="Also measure this file, without the adapter, and compare the answers with it.")
@click.option("--repeats", type=click.IntRange(1, 100), default=3, show_default=True, help="Number of processes for each file.")
@click.option("--questions", "file", metavar="PATH", help="Ask these questions (one JSON object a line) instead of the built-in ones.")
@click.option("--limit", type=click.IntRange(3), help=f"Ask only this many questions; from a file of --questions, {SAMPLE}.")
@click.option("--threads", type=click.IntRange(1), help="Threads to use.  [default: one for each CPU]")
@click.option("--tune", is_flag=True, help="Find the fastest options for each file on this device, and save them for `ask`.")
@click.option("--picture", type=click.Path(path_type=pathlib.Path), help="Draw size against latency (.svg or .png; needs matplotlib).")
@click.option("--csv", "csv_file", type=click.Path(path_type=pathlib.Path), help="Also write the table to this file.")
@click.option("--share", is_flag=True, help="Print a small JSON about this board and its figures, without anything personal, to send in.")
@with_settings(*PROFILE)
def bench(
    config: settings.Settings,
    models: tuple[str, ...],
    adapter: str | None,
    against: str | None,
    repeats: int,
    file: str | None,
    limit: int | None,
    threads: int | None,
    tune: bool,
    picture: pathlib.Path | None,
    csv_file: pathlib.Path | None,
    share: bool,
    as_json: bool,
) -> None:
    """Measure model files on this device.

    MODELS are .gguf files or names from `edge-agent models`, for example several quantizations of one model. The default is
    the configured model with its adapter. Each file runs in separate processes, in random order. Close other programs first,
    because their load changes the figures.

    To compare an adapter with the merged file: bench BASE --adapter A --against MERGED.
    """
    from edge_agent.engine.spare_cpus import available_cpus
    from edge_agent.measure.bench import machine, runs, tables
    from edge_agent.model.catalog import ModelFiles, resolve, resolve_adapter, ways_of

    if tune and (against or csv_file or picture):
        raise click.UsageError("--tune only saves options; leave out --against, --csv and --picture.")
    if share and (tune or file or limit or as_json):
        raise click.UsageError("--share prints JSON about all built-in questions; leave out --tune, --questions, --limit and --json.")
    adapter = adapter or (None if models else config.adapter)
    on_each = resolve_adapter(adapter, config.models_folder) if adapter else None
    measured = [ModelFiles(resolve(model, config.models_folder), on_each, ways_of(config)) for model in models or (config.model,)]
    reference = ModelFiles(resolve(against, config.models_folder), None, ways_of(config)) if against else None
    if reference and reference not in measured:
        measured.append(reference)
    check_outputs(config, [(csv_file, "the table"), (picture, "the picture")], data_files(file, "the questions") | model_files(measured))
    if picture:
        from edge_agent.measure.bench.picture import check_can_draw

        check_can_draw(picture)
    questions = _questions(file, limit)
    if tune:
        _tune(config, measured, questions, as_json)
        return
    n_threads = threads or available_cpus()
    about = machine.describe(available_cpus())
    finished = []
    for run in runs.run(measured, questions, repeats, options={"n_threads": n_threads}, busy_repeats=1):
        finished.append(run)
        name = (
            run.model.path.name + (" with the adapter" if run.model.adapter else "") + (" beside a busy core" if run.is_beside_busy else "")
        )
        click.echo(f"{run.number}/{run.total}  {name}  {sum(run.sample.decision_ms) / len(run.sample.decision_ms):.0f} ms", err=True)
    results = runs.results(finished, measured, n_threads, reference)
    if picture:
        from edge_agent.measure.bench.picture import latency_by_size

        latency_by_size(results, about, picture)
    if csv_file:
        write_text(csv_file, tables.as_csv(results))
    if share:
        from edge_agent.measure.bench import share as shared

        print_json(shared.to_dict(results, measured, about, n_threads))
    elif as_json:
        print_json(runs.to_dict(results, about, n_threads))
    else:
        for line in tables.lines(results, about, n_threads, terminal_width()):
            echo(plain(line))


def _tune(config: settings.Settings, models: list[ModelFiles], questions: list[Question], as_json: bool) -> None:
    """Search for the fastest options of each file, and save them."""
    from edge_agent.engine.llama import build
    from edge_agent.engine.spare_cpus import available_cpus
    from edge_agent.measure.bench import runs, tune
    from edge_agent.model import catalog, tuning

    found = []
    for model in models:

        def decide(options: dict[str, Any], model: ModelFiles = model) -> list[float]:
            return [took for run in runs.run([model], questions, 1, options=options) for took in run.sample.decision_ms]

        best = None
        for trial in tune.search(decide, available_cpus()):
            best = trial if trial.best else best
            chosen = ", ".join(f"{name} {value}" for name, value in trial.options.items())
            click.echo(f"{model.path.name}  {trial.decision_ms:7.1f} ms  {'*' if trial.best else ' '}  {chosen}", err=True)
        assert best is not None
        facts = catalog.identify(model.path)
        tuning.save(config.data_folder, facts.sha256, build(), best.options, best.decision_ms)
        found.append({"file": str(model.path), "options": best.options, "decision_ms": best.decision_ms})
    if as_json:
        print_json(found)
    else:
        for row in found:
            echo(plain(f"{row['file']}: {row['decision_ms']:.1f} ms, saved for this file on this device"))


def _questions(file: str | None, limit: int | None) -> list[Question]:
    from edge_agent.measure.sets import loading

    return [row.question for row in loading.load(pathlib.Path(file), limit).rows] if file else loading.built_in()[:limit]
