"""`edge-agent eval`: a model, and perhaps a cloud, on questions with known answers."""

from __future__ import annotations

import contextlib
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from edge_agent.cli.app import EXIT_CODES, SAMPLE, Amount, fraction, main, with_settings
from edge_agent.cli.show import print_json, say, terminal_width
from edge_agent.core.config import settings
from edge_agent.core.errors import BadData, BadSetting
from edge_agent.core.terminal import plain

if TYPE_CHECKING:
    from edge_agent.measure.run.answered import AnsweredRow
    from edge_agent.measure.run.clouds import Cloud
    from edge_agent.measure.run.run import DataSet, Run

DATABASES = (".db", ".sqlite", ".sqlite3")
NONE, SIMULATED, LIVE = "none", "simulated", "live"


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
@click.option("--limit", type=click.IntRange(1), help=f"Ask only this many questions: {SAMPLE}.")
@click.option(
    "--rows", type=click.Path(path_type=pathlib.Path), metavar="FILE",
    help="Keep the answers in this SQLite file (.db), so that an interrupted run can go on; with another name, write JSON lines.",
)  # fmt: skip
@with_settings("tau", "model", "adapter", "cloud_url", "cloud_model")
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
    limit: int | None,
    rows: pathlib.Path | None,
    as_json: bool,
) -> None:
    """Measure a model on questions with known answers.

    DATA has one JSON object a line; '-' is stdin. An object has "question", "options" (a list), "answer" (a letter) and, optionally,
    "domain", "difficulty" and "id". No decision is stored. A live cloud gets every question, except those that must not be sent, and its
    calls count in the budget.

    With --rows RUN.db an interrupted run goes on where it was: give the same command again. Nothing is asked twice.
    """
    from edge_agent.measure.rows import RowsFile, check_apart
    from edge_agent.measure.run import run
    from edge_agent.measure.run.answered import ALL_ORDERS, RunOptions
    from edge_agent.model import catalog
    from edge_agent.model.catalog import ModelFiles

    if cloud_name != SIMULATED and (cloud_accuracy is not None or cloud_seed is not None):
        raise click.UsageError("--cloud-accuracy and --cloud-seed are of the simulated cloud; leave them out, or --cloud.")
    if rows:
        check_apart(rows, data)
    questions = _questions(data, limit)
    path = catalog.resolve(config.model, config.models_folder)
    files = ModelFiles(path, catalog.resolve_adapter(config.adapter, config.models_folder) if config.adapter else None)
    prices = (
        config.cloud_prompt_price if prompt_price is None else prompt_price,
        (config.cloud_completion_price if completion_price is None else completion_price),
    )
    wanted = RunOptions({None: 0, "2": 2, "all": ALL_ORDERS}[orders], automix, greedy, max_answer_tokens)
    progress = _Progress()
    with contextlib.ExitStack() as stack:
        is_database = rows is not None and rows.suffix.lower() in DATABASES
        lines = stack.enter_context(RowsFile(rows)) if rows and not is_database else None
        cloud = stack.enter_context(_cloud(config, cloud_name, cloud_accuracy, cloud_seed, *prices))
        try:
            with progress:
                found = run.answer(questions, files, cloud, wanted, rows if is_database else None, progress.step, progress.start)
        except KeyboardInterrupt:
            if is_database:
                click.echo(f"The answers so far are in {plain(str(rows))}; give the same command again to go on.", err=True)
            raise
        if lines:
            for row in found.rows:
                lines.write(row.to_dict())
        _say_missing(found, cloud, rows if is_database else None)
    _show(found, questions, data, config.tau, as_json)


def _show(found: Run, questions: DataSet, data: str, tau: float | None, as_json: bool) -> None:
    from edge_agent.core.records import Reading
    from edge_agent.measure import evaluate, tables

    answered = [
        evaluate.Row(labelled, row.reading, row.read_ms, row.printed)
        for labelled, row in zip(questions.rows, found.rows, strict=True)
        if isinstance(row.reading, Reading)
    ]
    facts = found.facts
    evaluation = evaluate.evaluate(answered, facts.profile, tau, facts.cloud.accuracy or 1.0)
    model = facts.model
    if as_json:
        identity = {"name": model.name, "sha256": model.sha256, "quantization": model.quantization}
        if model.adapter_sha256:
            identity["adapter_sha256"] = model.adapter_sha256
        print_json({"file": data, "model": identity, **evaluation.to_dict()})
    else:
        on = f", with an adapter (sha256 {model.adapter_sha256[:12]})" if model.adapter_sha256 else ""
        for line in (f"model          {model.name} (sha256 {model.sha256[:12]}){on}", *tables.lines(evaluation, terminal_width())):
            say(line, 15 if line[13:15] == "  " else 0)  # after a label, or from the start


@contextlib.contextmanager
def _cloud(
    config: settings.Settings, name: str, accuracy: float | None, seed: int | None, prompt_price: float, completion_price: float
) -> Iterator[Cloud]:
    """The source of the cloud's answers. Raises `BadSetting` where the settings have no cloud to ask."""
    from edge_agent.measure.run import clouds

    if name == NONE:
        yield clouds.NoCloud()
    elif name == SIMULATED:
        yield clouds.Simulated(clouds.DEFAULT_ACCURACY if accuracy is None else accuracy, seed, prompt_price, completion_price)
    elif name == LIVE:
        from edge_agent.agent import assembly
        from edge_agent.cloud.gate import Gate
        from edge_agent.measure.run.live import Live
        from edge_agent.store.store import Store

        if config.policy == "only_local":
            raise BadSetting("The policy is only_local, so no question may leave this device; choose another policy or another --cloud.")
        if (model := assembly.cloud(config)) is None:
            raise BadSetting("There is no cloud to ask; set cloud_url (or give --cloud-url), or choose another --cloud.")
        rules = assembly.rules(config)
        with Store(config.database) as store:
            yield Live(store, Gate(store, model, config.limits.budget), rules, prompt_price, completion_price)
    else:
        raise BadSetting(f"There is no cloud {name!r:.80}; give none, simulated, live or a file of recorded answers.")


def _questions(data: str, limit: int | None) -> DataSet:
    """The questions, with what a person should know about them on stderr."""
    from edge_agent.measure import datasets
    from edge_agent.measure.run.run import DataSet

    if data == "-" and sys.stdin is None:
        raise BadData("There is no stdin to read from; give a file.")
    questions = datasets.read(sys.stdin.buffer, "stdin", limit) if data == "-" else datasets.load(pathlib.Path(data), limit)
    if repeated := [row.id for row in questions if row.question.repeated]:
        some = f"{len(repeated)} of {len(questions)} questions (first: {repeated[0]})"
        click.echo(f"{some} have options with the same text; the letters of such options count as one answer.", err=True)
    if folded := [row.id for row in questions if row.folded]:
        some = f"{len(folded)} of {len(questions)} questions (first: {folded[0]})"
        click.echo(f"{some} have a line break in an option; it is read as a space.", err=True)
    return DataSet(questions, data)


def _say_missing(found: Run, cloud: Cloud, file: pathlib.Path | None) -> None:
    """Say on stderr how many questions have no answer of the cloud, and what to do."""
    from edge_agent.measure.run.live import NEVER_SENT, Live

    if not isinstance(cloud, Live):
        return
    replies = [row.cloud for row in found.rows]
    kept = sum(reply is not None and reply.error == NEVER_SENT for reply in replies)
    if kept:
        click.echo(f"{kept} of {len(replies)} questions must not leave this device; the cloud was not asked.", err=True)
    missing = [reply for reply in replies if reply is None or (reply.error and reply.error != NEVER_SENT)]
    if missing:
        why = cloud.stopped or next((reply.error for reply in missing if reply), None) or "it was not asked"
        again = "give the same command again to ask these" if file else "with --rows RUN.db the same command asks these again"
        click.echo(plain(f"{len(missing)} of {len(replies)} questions have no answer of the cloud ({why}); {again}."), err=True)


class _Progress:
    """A line on stderr, if it is a terminal: how many questions are done, how fast, and how long it still takes."""

    def __init__(self) -> None:
        self._is_visible = sys.stderr is not None and sys.stderr.isatty()
        self._done = self._total = self._first = 0
        self._words, self._started, self._shown = "", 0.0, 0.0

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def start(self, what: str, done: int, total: int) -> None:
        """A part of the work begins with this many of its questions done."""
        self._end()
        self._words = "" if what == "reading" else f"{what}: "
        self._done, self._first, self._total = done, done, total
        self._started = self._shown = time.monotonic()

    def step(self, row: AnsweredRow) -> None:
        """One more question is done."""
        self._done += 1
        now = time.monotonic()
        if self._is_visible and (now - self._shown > 0.2 or self._done == self._total):
            rate = (self._done - self._first) / max(now - self._started, 1e-6)
            left_s = round((self._total - self._done) / rate)
            left = f"  {left_s // 60}:{left_s % 60:02} left" if left_s else ""
            line = f"{self._words}{self._done}/{self._total}  {rate:.1f} questions/s{left}"
            click.echo(f"\r{line}".ljust(60), nl=False, err=True)
            self._shown = now

    def _end(self) -> None:
        if self._is_visible and self._total:
            click.echo(err=True)
        self._total = 0
