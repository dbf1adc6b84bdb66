"""`edge-agent eval`: a model, and perhaps a cloud, on questions with known answers."""

from __future__ import annotations

import contextlib
import pathlib
from typing import TYPE_CHECKING

import click

from edge_agent.cli.answering import DATABASES, LIVE, NONE, SIMULATED, AnsweringProgress, cloud_source, questions, say_missing
from edge_agent.cli.app import EXIT_CODES, PROFILE, SAMPLE, Amount, fraction, main, with_settings
from edge_agent.cli.outputs import check_outputs, data_files, model_files, write_text
from edge_agent.cli.show import print_json, say, terminal_width
from edge_agent.core.config import settings
from edge_agent.core.terminal import plain

if TYPE_CHECKING:
    from edge_agent.measure.run.run import Run
    from edge_agent.model.calibration import Calibration


@main.command("eval", epilog=EXIT_CODES)
@click.argument("data")
@click.option(
    "--cloud", "cloud_name", default=SIMULATED, metavar="WHICH",
    help="Where the cloud's answers come from: none, simulated, live (the cloud of your settings), or a file of recorded answers."
    "  [default: simulated]",
)  # fmt: skip
@click.option(
    "--cloud-accuracy", callback=fraction, metavar="NUMBER", help="How often the simulated cloud is right, 0 to 1.  [default: 0.95]"
)
@click.option(
    "--cloud-seed", type=click.IntRange(0), metavar="NUMBER",
    help="Draw right or wrong for each question of the simulated cloud, instead of counting its expected value.",
)  # fmt: skip
@click.option(
    "--prompt-price", type=Amount(), metavar="NUMBER", help="The cloud's price of a million prompt tokens.  [default: the setting]"
)
@click.option(
    "--completion-price", type=Amount(), metavar="NUMBER", help="The cloud's price of a million completion tokens.  [default: the setting]"
)
@click.option("--orders", type=click.Choice(["2", "all"]), help="Also average over option orders: the reversed one, or all cyclic shifts.")
@click.option("--automix", is_flag=True, help="Also let the model verify its answer, as AutoMix does.")
@click.option("--greedy", is_flag=True, help="Also let the model print freely, and count how often it keeps the format (slow).")
@click.option(
    "--max-answer-tokens", type=click.IntRange(1, 4096), metavar="NUMBER",
    help="The longest answer in words.  [default: 64; 512 for GSM8K]",
)  # fmt: skip
@click.option("--form", metavar="NAME", help="The form of DATA, where it could be several.")
@click.option("--recorded-model", metavar="NAME", help="Which model's recorded answers count, if the file has several.")
@click.option("--limit", type=click.IntRange(1), help=f"Ask only this many questions: {SAMPLE}.")
@click.option(
    "--rows", type=click.Path(path_type=pathlib.Path), metavar="FILE",
    help="Keep the answers in this SQLite file (.db), so that an interrupted run can go on; with another name, write JSON lines.",
)  # fmt: skip
@click.option(
    "--report", "page", type=click.Path(path_type=pathlib.Path), metavar="FILE", help="Also write a report of the run, one HTML page."
)
@with_settings("tau", "model", *PROFILE, "adapter", "cloud_url", "cloud_model")
def eval_command(
    config: settings.Settings,
    data: str,
    cloud_name: str,
    cloud_accuracy: float | None,
    cloud_seed: int | None,
    prompt_price: float | None,
    completion_price: float | None,
    orders: str | None,
    automix: bool,
    greedy: bool,
    max_answer_tokens: int | None,
    form: str | None,
    recorded_model: str | None,
    limit: int | None,
    rows: pathlib.Path | None,
    page: pathlib.Path | None,
    as_json: bool,
) -> None:
    """Measure a model on questions with known answers.

    DATA is a file, a folder (MMLU), or '-' for stdin: JSON lines, JSON or CSV in the forms of MMLU, MMLU-Pro, MedQA, AQuA-RAT, ARC,
    OpenBookQA, SciQ, GSM8K, SQuAD, TruthfulQA and KazCulture, or with "question", "options" (a list), "answer" (a letter) and,
    optionally, "domain", "difficulty" and "id". No decision is stored. A live cloud gets every question, except those that must not be
    sent, and its calls count in the budget.

    If a calibration of this model is in force here and no tau is given, the first table shows what the device does by it.

    With --rows RUN.db an interrupted run goes on where it was: give the same command again. Nothing is asked twice.
    """
    from edge_agent.measure.rows import RowsFile
    from edge_agent.measure.run import run
    from edge_agent.measure.run.answered import ALL_ORDERS, RunOptions
    from edge_agent.model import catalog

    files = catalog.files_of(config)
    recorded = None if cloud_name in (NONE, SIMULATED, LIVE) else cloud_name
    read = data_files(data, "the questions") | data_files(recorded, "the recorded answers") | model_files([files])
    check_outputs(config, [(rows, "the answers of the run"), (page, "the report")], read)
    asked = questions(data, limit, form)
    wanted = RunOptions({None: 0, "2": 2, "all": ALL_ORDERS}[orders], automix, greedy, max_answer_tokens)
    database = rows if rows and rows.suffix.lower() in DATABASES else None
    with contextlib.ExitStack() as stack:
        lines = stack.enter_context(RowsFile(rows)) if rows and not database else None
        cloud = stack.enter_context(
            cloud_source(config, cloud_name, cloud_accuracy, cloud_seed, prompt_price, completion_price, asked, recorded_model)
        )
        try:
            with AnsweringProgress() as progress:
                found = run.answer(asked, files, cloud, wanted, database, progress.step, progress.start)
        except KeyboardInterrupt:
            if database:
                click.echo(f"The answers so far are in {plain(str(rows))}; give the same command again to go on.", err=True)
            raise
        if lines:
            for row in found.rows:
                lines.write(row.to_dict())
        say_missing(found, cloud, database)
    calibration = _in_force(found, config)
    _show(found, data, config.tau, calibration, files.adapter, as_json)
    if page:
        from edge_agent.measure.report import of_run
        from edge_agent.measure.report.page import html

        write_text(page, html([of_run.measured(found, config.tau, calibration)]))
        click.echo(f"Wrote the report {plain(str(page))}.", err=True)


def _in_force(found: Run, config: settings.Settings) -> Calibration | None:
    """The calibration by which this device decides with the model of a run; what is wrong with one is said on stderr."""
    from edge_agent.agent.rules_in_force import Calibrations, RulesInForce
    from edge_agent.core.routing import PolicyName

    calibrations = Calibrations(config.calibrations_folder, config.calibration)
    return RulesInForce(PolicyName(config.policy), config.tau, calibrations).of(found.facts.model, found.facts.profile).calibration


def _show(found: Run, data: str, tau: float | None, calibration: Calibration | None, adapter: pathlib.Path | None, as_json: bool) -> None:
    """Print the figures of a run."""
    from edge_agent.measure.evaluation import tables
    from edge_agent.measure.evaluation.of_run import evaluate_run

    evaluation, model = evaluate_run(found, tau, calibration), found.facts.model
    if as_json:
        identity = {"name": model.name, "sha256": model.sha256, "quantization": model.quantization}
        if model.adapter_sha256:
            identity["adapter_sha256"] = model.adapter_sha256
        print_json({"file": data, "model": identity, **evaluation.to_dict()})
    else:
        on = f", with the adapter {plain(adapter.name)} (sha256 {model.adapter_sha256[:12]})" if adapter else ""
        for line in (f"model          {model.name} (sha256 {model.sha256[:12]}){on}", *tables.lines(evaluation, terminal_width())):
            say(line, 15 if line[13:15] == "  " else 0)  # after a label, or from the start
