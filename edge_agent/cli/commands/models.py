"""`edge-agent models`: the models and adapters on this device, which one is the default, and removing one."""

from __future__ import annotations

import pathlib
import sys
from typing import TYPE_CHECKING, Any

import click

from edge_agent.cli import verbosity
from edge_agent.cli.app import EXIT_CODES, main, with_settings
from edge_agent.cli.show import echo, print_json, print_table
from edge_agent.core.config import settings
from edge_agent.core.errors import ModelMissing, ModelRefused
from edge_agent.core.terminal import plain

if TYPE_CHECKING:
    from edge_agent.model.pulled import Pulled


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
        row["here"] = ", ".join(f"{file['name']} ({file['bytes'] / 1e6:,.0f} MB)" for file in row["files"]) or "no"
    print_table(rows, ("name", "here", "licence", "summary"))
    if any(not row["files"] for row in rows):
        click.echo("\nTo get one that is not here, run `edge-agent pull NAME`: it fetches the model or says how to make it.", err=True)


@models.command("default", epilog=EXIT_CODES)
@click.argument("name")
@with_settings()
def models_default(config: settings.Settings, name: str, as_json: bool) -> None:
    """Use a model from now on, where no other is given.

    NAME is a name from `edge-agent models` or a .gguf file. It becomes `model` in config.toml; everything else there stays.
    """
    import os

    from edge_agent.core.config.file import set_value
    from edge_agent.model import catalog, gguf

    path = catalog.resolve(name, config.models_folder)
    gguf.read_model(path)
    is_path = name not in catalog.entries() and (pathlib.PurePath(name).name != name or pathlib.Path(name).is_file())
    value = str(path.resolve()) if is_path else name
    set_value(config.config_file, "model", value)
    variable = settings.ENVIRONMENT["model"]
    if as_json:
        print_json({"model": value, "path": str(path), "config_file": str(config.config_file)})
    else:
        echo(plain(f"{value} is now the model in {config.config_file}"))
    if os.environ.get(variable):
        click.echo(plain(f"But {variable} is set to {os.environ[variable]}, which comes first; unset it."), err=True)
    if config.adapter:
        click.echo(plain(f"The adapter {config.adapter} is still set, and must be for this model."), err=True)


@models.command("rm", epilog=EXIT_CODES)
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--in-use", is_flag=True, help="Also remove the model or adapter that the settings name.")
@with_settings()
def models_rm(config: settings.Settings, name: str, yes: bool, in_use: bool, as_json: bool) -> None:
    """Remove a model or an adapter that was pulled, and forget its hash.

    NAME is a name from `edge-agent models`. A program that has the file open keeps it until it ends. The next pull of the same
    file is trusted like a first one.
    """
    from edge_agent.model import pulled
    from edge_agent.model.calibration import waiting_beside

    record = _pulled(config, name)
    assert record.file is not None
    path = config.models_folder / record.file
    if path in _in_use(config) and not in_use:
        raise ModelRefused(
            f"'{path.stem}' is what the settings name as the model or adapter; choose another with `edge-agent models default`, "
            "or give --in-use."
        )
    files = [one for one in (path, waiting_beside(path)) if one.is_file()]
    n_bytes = sum(one.stat().st_size for one in files)
    if not yes and not sys.stdin.isatty():
        raise click.UsageError(plain(f"This removes {path.name} ({n_bytes / 1e6:,.1f} MB); give --yes if you mean it."))
    if not yes:
        with verbosity.aloud():
            click.confirm(plain(f"Remove {path.name} and free {n_bytes / 1e6:,.1f} MB?"), abort=True, err=True)
    for one in reversed(files):  # the model last: until it is gone, the same command removes the rest
        _unlink(one)
    pulled.remove(config.models_folder, record.file)
    if as_json:
        print_json({"removed": [str(one) for one in files], "bytes": n_bytes})
    else:
        echo(plain(f"{path.name} is removed; {n_bytes / 1e6:,.1f} MB are free again"))


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


def _file(path: pathlib.Path, record: Pulled | None) -> dict[str, Any]:
    facts = {key: getattr(record, key) for key in ("sha256", "source", "revision", "pulled_at")} if record else {}
    return {"name": path.name, "path": str(path), "bytes": path.stat().st_size} | facts
