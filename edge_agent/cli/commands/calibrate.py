"""`edge-agent calibrate`: chooses tau for a goal, with a guarantee where one is asked for, and stores it."""

from __future__ import annotations

import pathlib
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from edge_agent.cli.app import EXIT_CODES, PROFILE, SAMPLE, Amount, fraction, main, with_settings
from edge_agent.cli.show import echo, print_json, print_table, say
from edge_agent.core.config import checks, settings
from edge_agent.core.errors import BadData, ModelError, StorageError
from edge_agent.core.files import check_output_folder
from edge_agent.core.readouts import READOUTS

if TYPE_CHECKING:
    from edge_agent.cli.answering import AnsweringProgress
    from edge_agent.measure.calibrate.goals import Goal, Price
    from edge_agent.measure.run.run import Run
    from edge_agent.measure.sets.loading import DataSet
    from edge_agent.model.calibration import Calibration
    from edge_agent.model.catalog import ModelFiles

_SHOWN = 12  # the start of a sha256 that a person reads
_SHORTEST = 6  # the least of one that names a calibration, as in the setting


@main.command("calibrate", epilog=EXIT_CODES)
@click.argument("data", required=False)
@click.option("--cloud-rate", callback=fraction, metavar="NUMBER", help="Goal: send this share of the questions to the cloud, 0 to 1.")
@click.option("--accuracy", callback=fraction, metavar="NUMBER", help="Goal: device and cloud together are right on this share, 0 to 1.")
@click.option("--budget", metavar="MONEY/TIME", help="Goal: spend at most this on the cloud: 3.00/day, 20/week or 60/month.")
@click.option(
    "--max-local-error", callback=fraction, metavar="NUMBER",
    help="Goal, with a guarantee: at most this share of the kept answers is wrong, 0 to 1.",
)  # fmt: skip
@click.option(
    "--delta", callback=fraction, metavar="NUMBER", help="The probability with which the guarantee may fail, 0 to 1.  [default: 0.05]"
)
@click.option("--questions-per-day", type=Amount(), metavar="NUMBER", help="How many questions come in a day, for --budget.")
@click.option("--prompt-tokens", type=Amount(), metavar="NUMBER", help="Tokens that a question sends to the cloud.  [default: measured]")
@click.option("--completion-tokens", type=Amount(), metavar="NUMBER", help="Tokens that the cloud answers with.  [default: measured]")
@click.option("--prompt-price", type=Amount(), metavar="NUMBER", help="The cloud's price of a million prompt tokens.")
@click.option("--completion-price", type=Amount(), metavar="NUMBER", help="The cloud's price of a million completion tokens.")
@click.option("--readout", type=click.Choice(READOUTS), help="Use this readout.  [default: the first part of the questions chooses]")
@click.option(
    "--cloud", "cloud_name", metavar="WHICH",
    help="Where the cloud's answers come from: none, simulated, live, or a file of recorded answers."
    "  [default: none; simulated for --accuracy and --budget]",
)  # fmt: skip
@click.option("--cloud-accuracy", callback=fraction, metavar="NUMBER", help="How often the simulated cloud is right.  [default: 0.95]")
@click.option("--form", metavar="NAME", help="The form of DATA, where it could be several.")
@click.option("--recorded-model", metavar="NAME", help="Which model's recorded answers count, if the file has several.")
@click.option("--limit", type=click.IntRange(1), help=f"Ask only this many questions: {SAMPLE}.")
@click.option(
    "--rows", type=click.Path(path_type=pathlib.Path), metavar="RUN.db",
    help="Keep the answers in this file, so that an interrupted run can go on, and to calibrate again without the model.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=pathlib.Path), metavar="FOLDER", help="Write the calibration into this folder; store nothing here."
)
@click.option("--dry-run", is_flag=True, help="Store nothing.")
@click.option("--live", is_flag=True, help="Show how the stored calibration does, from this device's own decisions.")
@click.option("--list", "listed", is_flag=True, help="Show the stored calibrations.")
@click.option("--remove", metavar="SHA256", help="Delete the stored calibration whose sha256 begins so.")
@with_settings("model", *PROFILE, "adapter", "cloud_url", "cloud_model")
def calibrate(config: settings.Settings, data: str | None, as_json: bool, **options: Any) -> None:
    """Choose tau for a goal from questions with known answers, and store it.

    DATA is a file of questions as for `edge-agent eval`, or RUN.db, a finished run of `edge-agent eval --rows RUN.db`, which needs no
    model. Give one goal: --cloud-rate, --accuracy, --budget or --max-local-error. --max-local-error comes with a guarantee: with
    probability 1 - delta over the questions drawn, at most that share of the kept answers is wrong.

    The calibration is bound to the model file, its adapter and its profile, and applies from the next question on. If no tau
    reaches the goal, that is the result: nothing is stored, and the command says what would help.
    """
    actions = (options["live"], options["listed"], options["remove"] is not None, data is not None)
    if sum(actions) != 1:
        raise click.UsageError("Give DATA and one goal, or one of --live, --list and --remove.")
    if options["listed"]:
        _list(config, as_json)
    elif options["remove"] is not None:
        _remove(config, options["remove"], as_json)
    elif options["live"]:
        _live(config, as_json)
    else:
        assert data is not None
        _calibrate(config, data, as_json, options)


def _calibrate(config: settings.Settings, data: str, as_json: bool, options: dict[str, Any]) -> None:
    from edge_agent.measure.calibrate import extra, words
    from edge_agent.measure.calibrate.fit import fit
    from edge_agent.measure.readouts import combine

    goal = _goal(config, options)
    extra.scipy("stats")  # before the model is asked anything
    if options["out"]:
        check_output_folder(options["out"])
    run = _answered(config, data, goal, options)
    made = fit(
        run.results(),
        goal,
        data=pathlib.PurePath(run.facts.data).name,
        data_sha256=run.facts.data_sha256,
        created_at=datetime.now(UTC).isoformat(timespec="microseconds"),  # in UTC, so that the newest is the last in text order
        readout=options["readout"],
        combination=combine,
        letter_ms=None if run.facts.profile.is_plain else _letter_ms(run),  # a plain model has no level before its answer
    )
    stored = _store(config, made.calibration, options)
    if as_json:
        print_json({"data": data, "stored": stored, **words.to_dict(made)})
        return
    model = run.facts.model
    say(f"{'model':<15}{model.name} (sha256 {model.sha256[:_SHOWN]})", 15)
    for line in words.lines(made):
        say(line, 15)
    echo("")
    say(words.result(made))
    if made.calibration:
        say(_next(config, made.calibration, stored, options))


def _next(config: settings.Settings, found: Calibration, stored: str | None, options: dict[str, Any]) -> str:
    """Where the calibration is, and whether this device decides by it from now on."""
    if stored is None:
        return "Nothing was stored (--dry-run)."
    if options["out"]:
        return f"Written to {stored}. `edge-agent bundle` takes it along; on a device it belongs into the folder calibrations."
    words = f"Stored as {found.sha256[:_SHOWN]}"
    if why := _why_not(config, found):
        return f"{words}, but it does not apply yet: {why}."
    fitting = [one for one in _stored(config) if one.fits(found.model_sha256, found.adapter_sha256, found.profile_sha256)]
    before = fitting[1].in_words() if len(fitting) > 1 and config.calibration == checks.AUTO else ""
    replaced = f" It takes the place of {before}." if before else ""
    return (
        f"{words}; it applies from the next question on, and a running server uses it from its next start.{replaced} A tau that you set "
        "yourself (--tau, EDGE_AGENT_TAU, config.toml) switches it off; `edge-agent doctor` shows which one applies."
    )


def _why_not(config: settings.Settings, found: Calibration) -> str:
    """Why this device does not decide by a calibration that it has just stored; "" if it does."""
    from edge_agent.model import calibration, catalog

    if config.tau is not None:
        return f"a tau of {config.tau:g} is set (EDGE_AGENT_TAU or config.toml); `edge-agent config unset tau` removes one from config.toml"
    try:
        model = catalog.sha256_of(catalog.resolve(config.model, config.models_folder))
        adapter = catalog.sha256_of(catalog.resolve_adapter(config.adapter, config.models_folder)) if config.adapter else ""
    except ModelError:
        return "it is for another model file than the one in the settings, which cannot be used"
    if (found.model_sha256, found.adapter_sha256) != (model, adapter):
        return "it is for another model file or adapter than this device uses; choose that one with `edge-agent config set model`"
    applied = calibration.choose(config.calibrations_folder, model, adapter, found.profile_sha256, config.calibration).calibration
    if applied and applied.sha256 == found.sha256:
        return ""
    if config.calibration != checks.AUTO:
        return f"the setting calibration is {config.calibration}; `edge-agent config unset calibration` takes the newest"
    assert applied
    other = applied.sha256[:_SHOWN]
    return (
        f"{other} has a later date, {applied.created_at[:10]}; check the clock of this device, then `edge-agent calibrate --remove {other}`"
    )


def _goal(config: settings.Settings, options: dict[str, Any]) -> Goal:
    from edge_agent.measure.calibrate import goals

    given = [name for name in ("cloud_rate", "accuracy", "budget", "max_local_error") if options[name] is not None]
    if len(given) != 1:
        raise click.UsageError("Give one goal: --cloud-rate, --accuracy, --budget or --max-local-error.")
    kind = given[0]
    if options["delta"] is not None and kind != goals.MAX_LOCAL_ERROR:
        raise click.UsageError("--delta belongs to --max-local-error; the other goals are measured, not guaranteed.")
    if options["questions_per_day"] is not None and kind != goals.BUDGET:
        raise click.UsageError("--questions-per-day belongs to --budget.")
    value = goals.money_per_day(options[kind]) if kind == goals.BUDGET else options[kind]
    delta = None if kind != goals.MAX_LOCAL_ERROR else goals.DELTA if options["delta"] is None else options["delta"]
    return goals.Goal(kind, value, delta, options["questions_per_day"], _price(config, options) if kind == goals.BUDGET else None)


def _price(config: settings.Settings, options: dict[str, Any]) -> Price:
    from edge_agent.measure.calibrate import goals

    tokens = options["prompt_tokens"], options["completion_tokens"]
    if (tokens[0] is None) != (tokens[1] is None):
        raise click.UsageError("Give --prompt-tokens and --completion-tokens together.")
    # A flag counts, 0 too; without one the settings' price; without that the price of the run.
    prompt = (config.cloud_prompt_price or None) if options["prompt_price"] is None else options["prompt_price"]
    completion = (config.cloud_completion_price or None) if options["completion_price"] is None else options["completion_price"]
    return goals.Price(prompt, completion, None if tokens[0] is None else tokens)


def _answered(config: settings.Settings, data: str, goal: Goal, options: dict[str, Any]) -> Run:
    """The run of these questions: read from its file, or asked now."""
    from edge_agent.cli import answering, outputs
    from edge_agent.measure.calibrate.goals import ACCURACY, BUDGET, MAX_LOCAL_ERROR
    from edge_agent.measure.run import run
    from edge_agent.model import catalog

    if pathlib.Path(data).suffix.lower() in answering.DATABASES:
        made_by_eval = ("rows", "limit", "form", "cloud_name", "cloud_accuracy", "recorded_model")
        if any(options[name] is not None for name in made_by_eval):
            raise click.UsageError(f"{data} is a finished run: options for asking belong to `edge-agent eval`, which made it.")
        found = run.load(pathlib.Path(data))
        if not found.is_complete:
            raise BadData(
                f"The run in '{data}' is not finished ({len(found.rows)} of {found.facts.n_questions} questions); finish it first."
            )
        return found
    if options["rows"] and options["rows"].suffix.lower() not in answering.DATABASES:
        raise click.UsageError(f"--rows {options['rows']}: give a name that ends in .db.")
    files = catalog.files_of(config)
    name = options["cloud_name"] or (answering.SIMULATED if goal.kind in (ACCURACY, BUDGET) else answering.NONE)
    recorded = None if name in (answering.NONE, answering.SIMULATED, answering.LIVE) else name
    read = outputs.data_files(data, "the questions") | outputs.data_files(recorded, "the recorded answers") | outputs.model_files([files])
    outputs.check_outputs(config, [(options["rows"], "the answers of the run")], read)
    graded = goal.kind in (ACCURACY, MAX_LOCAL_ERROR)  # a rate needs no answers, and a budget is a rate
    questions = answering.questions(data, options["limit"], options["form"], graded)
    progress = answering.AnsweringProgress()
    questions, files = _with_way(questions, files, progress, bool(options["dry_run"] or options["out"]))
    prices = options["prompt_price"], options["completion_price"]
    with (
        answering.cloud_source(config, name, options["cloud_accuracy"], None, *prices, questions, options["recorded_model"]) as cloud,
        progress,
    ):
        found = run.answer(questions, files, cloud, None, options["rows"], progress.step, progress.start)
        answering.say_missing(found, cloud, options["rows"])
    return found


def _with_way(data: DataSet, files: ModelFiles, progress: AnsweringProgress, stores_nothing: bool) -> tuple[DataSet, ModelFiles]:
    """The questions that a calibration of this model may use, and the model read in the way that is best for a plain one.

    Nobody measures that again where a person or an earlier calibration has decided it.
    """
    from edge_agent.measure.calibrate import way
    from edge_agent.model import catalog, ways
    from edge_agent.model.profile import Profile

    facts = catalog.identified(files)
    assert files.ways
    known = files.ways.way(facts.sha256)
    if not Profile.from_json(facts.profile).is_plain or (known.answers and known.measured != data.sha256):
        return data, files
    mine, rest = way.parts(data)
    if not known.answers:
        with progress:
            found = way.measure(mine, files, known, progress.step, progress.start)
        known = replace(known, answers=found.best, measured=data.sha256)
        if files.ways.folder and not stores_nothing:
            ways.save(files.ways.folder, facts.sha256, known)
        say(f"{'answers':<15}{found.words}", 15, err=True)
    return rest, replace(files, ways=ways.Ways(known))


def _letter_ms(run: Run) -> float | None:
    """How long the letter takes after the level, the median."""
    import numpy as np

    times = [row.reading.timings.decode_ms for row in run.rows if row.reading.timings.n_forward]
    return float(np.median(times)) if times else None


def _store(config: settings.Settings, found: Calibration | None, options: dict[str, Any]) -> str | None:
    """Keep a calibration: in the folder --out, or as a file and a row of this device. Returns where; None if nothing was stored.

    The row is written first, so a crash between the two leaves a row that no decision names, and the same command stores both.
    """
    from edge_agent.model import calibration
    from edge_agent.store.store import Store

    if found is None or options["dry_run"]:
        return None
    if options["out"]:
        return str(calibration.save(options["out"], found))
    with Store(config.database) as store, store.transaction():
        store.put_calibration(found.sha256, time.time(), found.model_sha256, found.adapter_sha256, found.profile_sha256, found.to_json())
    return str(calibration.save(config.calibrations_folder, found))


def _stored(config: settings.Settings) -> list[Calibration]:
    """The sound calibrations in the folder, the newest first; what is wrong with the others goes to stderr."""
    from edge_agent.model import calibration

    found = []
    for path in sorted(config.calibrations_folder.glob("*.json")) if config.calibrations_folder.is_dir() else []:
        try:
            found.append(calibration.load(path))
        except BadData as error:
            say(str(error), err=True)
    return sorted(found, key=lambda one: one.created_at, reverse=True)


def _list(config: settings.Settings, as_json: bool) -> None:
    found = _stored(config)
    if as_json:
        print_json([{"sha256": one.sha256, **asdict(one)} for one in found])
    elif not found:
        echo("No calibrations yet. Make one with `edge-agent calibrate DATA --max-local-error 0.1`.")
    else:
        rows = [
            {
                "sha256": one.sha256[:_SHOWN], "made": one.created_at[:16].replace("T", " "), "model": one.model_sha256[:_SHOWN],
                "goal": f"{one.goal} {one.value:g}", "readout": one.readout, "tau": f"{one.tau:.4g}",
                "to the cloud": "" if one.deferral_rate is None else f"{one.deferral_rate:.0%}", "data": one.data,
            }
            for one in found
        ]  # fmt: skip
        print_table(rows, tuple(rows[0]))


def _remove(config: settings.Settings, start: str, as_json: bool) -> None:
    if len(start) < _SHORTEST:
        raise click.UsageError(f"--remove {start}: give at least {_SHORTEST} characters of its sha256; --list shows them.")
    found = [one for one in _stored(config) if one.sha256.startswith(start.lower())]
    if len(found) != 1:
        why = "More than one calibration begins" if found else "No calibration begins"
        raise BadData(f"{why} with {start[:64]!r}; `edge-agent calibrate --list` shows them.")
    path = config.calibrations_folder / f"{found[0].sha256}.json"
    try:
        path.unlink()
    except OSError as error:
        raise StorageError(f"'{path}' cannot be deleted ({error.strerror}); check the folder's owner.") from error
    if as_json:
        print_json({"removed": found[0].sha256})
    else:
        say(f"Removed {found[0].sha256[:_SHOWN]}. The decisions that it made stay, and can be replayed.")


def _live(config: settings.Settings, as_json: bool) -> None:
    from edge_agent.model import catalog
    from edge_agent.store import live
    from edge_agent.store.store import Store

    path = catalog.resolve(config.model, config.models_folder)
    adapter_sha256 = catalog.sha256_of(catalog.resolve_adapter(config.adapter, config.models_folder)) if config.adapter else ""
    model_sha256 = catalog.sha256_of(path)
    fitting = [one for one in _stored(config) if (one.model_sha256, one.adapter_sha256) == (model_sha256, adapter_sha256)]
    if config.calibration not in (checks.AUTO, checks.NONE):
        fitting = [one for one in fitting if one.sha256.startswith(config.calibration)]
    if not fitting:
        raise BadData(f"There is no calibration of {path.stem} to watch; make one with `edge-agent calibrate DATA`.")
    with Store(config.database) as store:
        found = live.report(store, fitting[0].to_json())
    if as_json:
        print_json(found.to_dict())
    else:
        for line in found.lines():
            say(line)
