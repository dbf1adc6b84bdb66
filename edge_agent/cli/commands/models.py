"""`edge-agent models`: the models and adapters on this device, which one is the default, and removing one."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from typing import TYPE_CHECKING, Any

import click

from edge_agent.cli import verbosity
from edge_agent.cli.app import EXIT_CODES, main, with_settings
from edge_agent.cli.show import echo, print_json, print_table, say
from edge_agent.core.config import loading, settings
from edge_agent.core.errors import ModelMissing, ModelRefused, StorageError
from edge_agent.core.terminal import plain

if TYPE_CHECKING:
    from edge_agent.model.previous import Kept
    from edge_agent.model.pulled import Pulled

RESTART = "A server that runs keeps the model it has open; restart it (for the service: systemctl restart edge-agent)."


@main.group(invoke_without_command=True, epilog=EXIT_CODES)
@with_settings()
@click.pass_context
def models(context: click.Context, config: settings.Settings, as_json: bool) -> None:
    """List the models known by name, and which of their files are on this device.

    Adapters that were pulled are listed after them.
    """
    if context.invoked_subcommand:
        return
    rows = _rows(config)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["here"] = ", ".join(_in_short(file) for file in row["files"]) or "no"
    print_table(rows, ("name", "here", "licence", "summary"))
    if any(not row["files"] for row in rows):
        click.echo("\nTo get one that is not here, run `edge-agent pull NAME`: it fetches the model or says how to make it.", err=True)


@models.command("default", epilog=EXIT_CODES)
@click.argument("name", required=False)
@click.option(
    "--previous", "go_back", is_flag=True, help="Go back to the model before: the version that was replaced, or the default of before."
)
@with_settings()
def models_default(config: settings.Settings, name: str | None, go_back: bool, as_json: bool) -> None:
    """Use a model from now on, where no other is given; without NAME, show which one that is.

    NAME is a name from `edge-agent models` or a .gguf file. It becomes `model` in config.toml; everything else there stays.

    --previous undoes the last change of the default model: a pull that replaced it, or `edge-agent models default NAME`. It needs no
    network. Given again, it returns to the newer one.
    """
    from edge_agent.model import catalog, previous

    if go_back and name is not None:
        raise click.UsageError("Give a NAME or --previous, not both.")
    previous.finish(config.models_folder)
    if go_back:
        _go_back(config, as_json)
    elif name is not None:
        path = catalog.resolve(name, config.models_folder)
        is_path = name not in catalog.entries() and (pathlib.PurePath(name).name != name or pathlib.Path(name).is_file())
        _choose(config, str(path.resolve()) if is_path else name, path)
        _tell_default(config, as_json, f"{{model}} is now the model in {config.config_file}")
    else:
        _tell_default(config, as_json, "{model} is the model, from {path}", is_changed=False)


def _choose(config: settings.Settings, value: str, path: pathlib.Path) -> None:
    """Make a model that can be read the default, and note which was it before. Raises `ModelRefused` or `StorageError`."""
    from edge_agent.core.config.file import set_value
    from edge_agent.model import gguf, previous

    gguf.read_model(path)
    with contextlib.suppress(StorageError):  # the way back is a convenience: a folder that cannot be written must not prevent the choice
        previous.note_choice(config.models_folder, loading.load({}, _without_model()).model, value)
    set_value(config.config_file, "model", value)


def _go_back(config: settings.Settings, as_json: bool) -> None:
    """Undo the last change of the default model. Raises `ModelMissing` if nothing of before is kept."""
    from edge_agent.model import catalog, previous

    value = loading.load({}, _without_model()).model
    if chosen := previous.chosen_before(config.models_folder, value):
        _choose(config, chosen, catalog.resolve(chosen, config.models_folder))
        _tell_default(config, as_json, f"{{model}} is the model again in {config.config_file}")
        return
    for file in _files_in_force(config):
        if records := previous.go_back(config.models_folder, file.name):
            words = ", ".join(f"{record.file} (sha256 {record.sha256[:12]})" for record in records)
            _tell_default(config, as_json, f"{{model}} is now another version: {words}")
            return
    raise ModelMissing(
        f"Nothing is kept of before '{value}': it has replaced no other model here, or it has answered for {previous.KEPT_DAYS} days; "
        "choose one with `edge-agent models default NAME`."
    )


def _tell_default(config: settings.Settings, as_json: bool, words: str, is_changed: bool = True) -> None:
    """Say which model is the default now, what is kept of before, and what else there is to know."""
    from edge_agent.model import catalog, previous

    value, variable = loading.load({}, _without_model()).model, settings.ENVIRONMENT["model"]
    try:
        path = catalog.resolve(value, config.models_folder)
    except ModelMissing:
        if is_changed:
            raise
        path = None
    chosen = previous.chosen_before(config.models_folder, value)
    kept = previous.before(path.parent, path.name) if path else None
    if as_json:
        before = {"model": chosen} if chosen else {"model": value, **kept.to_dict()} if kept else None
        print_json({"model": value, "path": path and str(path), "config_file": str(config.config_file), "previous": before})
    else:
        echo(plain(words.format(model=value, path=path or "a file that is not here; `edge-agent models` lists what is")))
        if chosen:
            say(f"The model before was {chosen}; `{previous.COMMAND}` goes back to it.", err=True)
        elif kept:
            say(about_kept(kept), err=True)
    if is_changed:
        click.echo(RESTART, err=True)
    if os.environ.get(variable):
        click.echo(plain(f"But {variable} is set to {os.environ[variable]}, which comes first; unset it."), err=True)
    if config.adapter and is_changed:
        click.echo(plain(f"The adapter {config.adapter} is still set, and must be for this model."), err=True)


def about_kept(kept: Kept) -> str:
    """Which other version of a model is kept, and until when, in words."""
    from edge_agent.model import previous

    words = ", ".join(f"{record.file}, sha256 {record.sha256[:12]}" for record in kept.records)
    since = "first answered" if kept.has_answered else "has answered"
    return (
        f"Another version is kept ({kept.bytes / 1e6:,.1f} MB: {words}) until {previous.KEPT_DAYS} days after this one {since} here; "
        f"`{previous.COMMAND}` goes back to it."
    )


def _without_model() -> dict[str, str]:
    """The environment without the variable that names a model: what config.toml says."""
    return {name: value for name, value in os.environ.items() if name != settings.ENVIRONMENT["model"]}


def _files_in_force(config: settings.Settings) -> list[pathlib.Path]:
    """The files in the models folder of the default model and its adapter, the model first, whether they are there or not."""
    from edge_agent.model import catalog

    found = []
    for resolve, name in ((catalog.resolve, loading.load({}, _without_model()).model), (catalog.resolve_adapter, config.adapter)):
        if name:
            try:
                path = resolve(name, config.models_folder)
            except ModelMissing:
                path = config.models_folder / f"{pathlib.PurePath(name).name.removesuffix('.gguf')}.gguf"
            if path.parent.resolve() == config.models_folder.resolve():
                found.append(config.models_folder / path.name)
    return found


@models.command("rm", epilog=EXIT_CODES)
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--in-use", is_flag=True, help="Also remove the model or adapter that the settings name.")
@click.option("--previous", "only_previous", is_flag=True, help="Remove only the version before it, which an update left here.")
@with_settings()
def models_rm(config: settings.Settings, name: str, yes: bool, in_use: bool, only_previous: bool, as_json: bool) -> None:
    """Remove a model or an adapter that was pulled, with the version before it, and forget its hash.

    NAME is a name from `edge-agent models`. A program that has the file open keeps it until it ends. The next pull of the same
    file is trusted like a first one.
    """
    from edge_agent.model import previous, pulled
    from edge_agent.model.calibration import waiting_beside

    record = _pulled(config, name)
    assert record.file is not None
    path, kept = config.models_folder / record.file, previous.before(config.models_folder, record.file)
    if only_previous and kept is None:
        raise ModelMissing(f"No version before '{path.stem}' is kept here; `edge-agent models` lists what is.")
    if not only_previous and path in _in_use(config) and not in_use:
        raise ModelRefused(
            f"'{path.stem}' is what the settings name as the model or adapter; choose another with `edge-agent models default`, "
            "or give --in-use."
        )
    files = [] if only_previous else [one for one in (path, waiting_beside(path)) if one.is_file()]
    n_bytes = sum(one.stat().st_size for one in files) + (kept.bytes if kept else 0)
    what = f"the version before {path.name}" if only_previous else f"{path.name} and the version before it" if kept else path.name
    if not yes and not sys.stdin.isatty():
        raise click.UsageError(plain(f"This removes {what} ({n_bytes / 1e6:,.1f} MB); give --yes if you mean it."))
    if not yes:
        with verbosity.aloud():
            click.confirm(plain(f"Remove {what} and free {n_bytes / 1e6:,.1f} MB?"), abort=True, err=True)
    previous.drop(config.models_folder, record.file)
    for one in reversed(files):  # the model last: until it is gone, the same command removes the rest
        _unlink(one)
    if not only_previous:
        pulled.remove(config.models_folder, record.file)
    if as_json:
        gone = [str(kept.folder / str(one.file)) for one in kept.records] if kept else []
        print_json({"removed": [*(str(one) for one in files), *gone], "bytes": n_bytes})
    else:
        echo(plain(f"{what} is removed; {n_bytes / 1e6:,.1f} MB are free again"))


def _unlink(path: pathlib.Path) -> None:
    from edge_agent.core.files import not_written

    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise not_written(path, error) from error


def _pulled(config: settings.Settings, name: str) -> Pulled:
    """The record of the one pulled file that a name means. Raises `ModelMissing` or `ModelRefused`."""
    from edge_agent.model import catalog, pulled

    records = [record for record in pulled.load(config.models_folder) if record.file]
    found = [record for record in records if name in (record.file, pathlib.PurePath(str(record.file)).stem)]
    found = found or [record for record in records if record.alias == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise ModelRefused(f"'{name}' has several files here; name one of them: {', '.join(str(record.file) for record in found)}.")
    entry = catalog.entries().get(name)
    if entry and entry.bundled_file:
        raise ModelRefused(f"'{name}' comes with edge-agent and stays.")
    by_hand = config.models_folder / f"{name.removesuffix('.gguf')}.gguf"
    if by_hand.name in {path.name for path in config.models_folder.glob("*.gguf")}:
        raise ModelRefused(f"'{name}' was not pulled but copied here by hand; remove {by_hand} yourself.")
    names = ", ".join(pathlib.PurePath(str(record.file)).stem for record in records)
    raise ModelMissing(f"'{name}' was not pulled to this device; " + (f"pulled were: {names}." if names else "nothing was."))


def _in_use(config: settings.Settings) -> set[pathlib.Path]:
    """The files in the models folder that the settings name as model and adapter."""
    from edge_agent.model import catalog

    found = set()
    for resolve, name in ((catalog.resolve, config.model), (catalog.resolve_adapter, config.adapter)):
        try:
            if name:
                path = resolve(name, config.models_folder)
                found.add(config.models_folder / path.name if path.parent.resolve() == config.models_folder.resolve() else path)
        except ModelMissing:
            continue
    return found


def _rows(config: settings.Settings) -> list[dict[str, Any]]:
    """The catalogue's entries with their files, then all other files in the models folder, adapters last."""
    from dataclasses import asdict

    from edge_agent.model import catalog, pulled

    records = {record.file: record for record in pulled.load(config.models_folder) if record.file}
    files = {path: records.get(path.name) for path in sorted(config.models_folder.glob("*.gguf"))}
    rows = []
    for entry in catalog.entries().values():
        pinned = {"revision": entry.revision or catalog.UNPINNED, "sha256": entry.sha256 or catalog.UNPINNED}
        bundled = {catalog.resolve(entry.name): None} if entry.bundled_file else {}
        here = bundled | {path: record for path, record in files.items() if record and record.alias == entry.name}
        facts = asdict(entry) | {"kind": "model"}
        rows.append(facts | pinned | {"files": [_file(path, record) for path, record in here.items()]})
    others = [_other(path, record) for path, record in files.items() if record is None or record.alias is None]
    return rows + sorted(others, key=lambda row: row["kind"] == "adapter")


def _other(path: pathlib.Path, record: Pulled | None) -> dict[str, Any]:
    """The row of a file that is not in the catalogue."""
    from edge_agent.model.gguf import peek

    origin, start = (f"pulled from {record.source}" if record else "copied here by hand"), peek(path)
    row: dict[str, Any] = {"name": path.stem, "summary": origin, "licence": None, "kind": "model", "architecture": start.architecture}
    if start.is_adapter:
        base = start.base_model or f"a {start.architecture} model"
        row |= {"kind": "adapter", "base": start.base_model, "summary": f"an adapter for {base}; {origin}"}
    return row | {"files": [_file(path, record)]}


def _in_short(file: dict[str, Any]) -> str:
    kept = f", and {file['previous']['bytes'] / 1e6:,.0f} MB of the version before" if "previous" in file else ""
    return f"{file['name']} ({file['bytes'] / 1e6:,.0f} MB{kept})"


def _file(path: pathlib.Path, record: Pulled | None) -> dict[str, Any]:
    from edge_agent.model import previous

    kept = previous.before(path.parent, path.name) if record else None
    facts = {key: getattr(record, key) for key in ("sha256", "source", "revision", "pulled_at")} if record else {}
    return {"name": path.name, "path": str(path), "bytes": path.stat().st_size} | facts | ({"previous": kept.to_dict()} if kept else {})
