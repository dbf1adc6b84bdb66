"""`edge-agent config`: shows the settings in force and where each comes from, and changes `config.toml`."""

from __future__ import annotations

import os
import tomllib
from typing import Any

import click

from edge_agent.cli import verbosity
from edge_agent.cli.app import EXIT_CODES, main, with_settings
from edge_agent.cli.show import echo, print_json
from edge_agent.core.config import settings
from edge_agent.core.errors import BadSetting
from edge_agent.core.terminal import plain

_DECLARED = {one.name: one for one in settings.DECLARED}
_TABLES = frozenset(one.name for one in settings.DECLARED if one.unit == "table")


@main.group("config", invoke_without_command=True, epilog=EXIT_CODES)
@with_settings(load=settings.examine)
def config_group(config: tuple[settings.Settings, list[BadSetting]], as_json: bool) -> None:
    """Show all settings: the value in force, and whether it comes from the environment, config.toml or the default.

    The cloud's key is only said to be set or not. A wrong value is named; then the exit code is 78.
    """
    if click.get_current_context().invoked_subcommand:
        return
    from edge_agent.agent import assembly

    found, wrong = config[0], config[1] + assembly.problems(config[0])
    sources, unknown = settings.sources(), settings.unknown_variables()
    rows = [_row(one, found, sources.get(one.name, "default")) for one in settings.DECLARED]
    if as_json:
        paths = {"config_file": str(found.config_file), "exists": found.config_file.exists()}
        folders = {"data_folder": str(found.data_folder), "cache_folder": str(found.cache_folder)}
        print_json({**paths, **folders, "settings": rows, "unknown_variables": unknown, "problems": [str(error) for error in wrong]})
    else:
        echo(plain(f"{found.config_file}" + ("" if found.config_file.exists() else "  (does not exist; `config set` makes it)")))
        for row in rows:
            value = verbosity.shown(row["name"], getattr(found, row["name"]))
            source = "" if row["source"] == "default" else f"  ({row['source']})"
            echo(plain(f"{row['name']:<24}{value}{source}"))
    for error in wrong:
        click.echo(f"edge-agent: {plain(str(error))}", err=True)
    if wrong:
        click.get_current_context().exit(78)


def _row(one: settings.Declared, found: settings.Settings, source: str) -> dict[str, Any]:
    row = {"name": one.name, **settings.public(found, one.name), "source": source}
    return row if one.name in settings.SECRETS else {**row, "default": one.default or None}


@config_group.command("path", epilog=EXIT_CODES)
@with_settings(load=settings.examine)
def config_path(config: tuple[settings.Settings, list[BadSetting]], as_json: bool) -> None:
    """Print the path of config.toml, whether it exists or not."""
    path = config[0].config_file
    if as_json:
        print_json({"config_file": str(path), "exists": path.exists()})
    else:
        echo(plain(str(path)))


@config_group.command("set", epilog=EXIT_CODES)
@click.argument("name")
@click.argument("values", metavar="VALUE...", nargs=-1, required=True)
@with_settings(load=settings.examine)
def config_set(config: tuple[settings.Settings, list[BadSetting]], name: str, values: tuple[str, ...], as_json: bool) -> None:
    """Set a value in config.toml, and leave every other line as it is.

    A list of patterns takes several VALUES, and a table is written like '{ top_p = 0.9 }'. Quotation marks around a text belong
    to TOML and not to the value. A flag or an environment variable still overrules the file. The cloud's key cannot be set here:
    give it in EDGE_AGENT_CLOUD_KEY, or name a file with cloud_key_file.
    """
    from edge_agent.core.config.file import set_value

    path = config[0].config_file
    value = _checked(name, values)
    _check_use(name, value)
    set_value(path, name, value)
    over = settings.sources().get(name, str(path))
    if over != str(path):
        click.echo(f"edge-agent: {over} is set, too, and overrules the file.", err=True)
    if name in ("model", "adapter"):
        _check_file(name, value, config[0])
    if name == "calibration":
        _check_calibration(value, config[0])
    _changed(name, value, str(path), as_json)


@config_group.command("unset", epilog=EXIT_CODES)
@click.argument("name")
@with_settings(load=settings.examine)
def config_unset(config: tuple[settings.Settings, list[BadSetting]], name: str, as_json: bool) -> None:
    """Remove a value from config.toml, so that its default counts again."""
    from edge_agent.core.config.file import unset

    path = config[0].config_file
    unset(path, name)  # also a name that is no setting: such a line is an error, and this mends it
    _changed(name, None, str(path), as_json)


def _checked(name: str, values: tuple[str, ...]) -> Any:
    """The value to write: as TOML if it is, otherwise as a text. Raises `BadSetting`."""
    if name == "cloud_key":
        raise BadSetting(
            "The cloud's key is a secret and cannot be in config.toml; set EDGE_AGENT_CLOUD_KEY, or `config set cloud_key_file`."
        )
    if name not in _DECLARED:
        from difflib import get_close_matches

        near = get_close_matches(name, _DECLARED, 1)
        hint = f"do you mean {near[0]}?" if near else "`edge-agent config` shows all of them."
        raise BadSetting(f"There is no setting '{name:.80}'; {hint}")
    source = f"The value of {name}"
    if isinstance(_DECLARED[name].default, tuple):
        listed = _toml(values[0]) if len(values) == 1 else None
        if not isinstance(listed, list):
            listed = [_pattern(name, text) for text in values]
        settings.checked(name, listed, source)
        return listed
    if len(values) > 1:
        raise BadSetting(f"{name} takes one value, but {len(values)} were given; put a value with spaces in quotation marks.")
    value = _toml(values[0])
    try:
        settings.checked(name, value, source)
    except BadSetting:
        if name in _TABLES:
            raise
        settings.checked(name, values[0], source)
        return values[0]
    return value


def _pattern(name: str, text: str) -> str:
    """One of several texts, without the quotation marks that TOML has around it. Raises `BadSetting`."""
    value = _toml(text)
    if isinstance(value, str) and value != text and "\x08" in value:
        raise BadSetting(f"{name} has {text!r:.80}, in which TOML reads \\b as a control character; leave the quotation marks out.")
    if value == text and len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" and text[0] not in text[1:-1]:
        raise BadSetting(f"{name} has {text!r:.80}, which is not a text in TOML; leave the quotation marks out.")
    return value if isinstance(value, str) else text


def _check_use(name: str, value: Any) -> None:
    """Raises `BadSetting` for a value that every later command would refuse, whatever else is set."""
    from edge_agent.agent import assembly

    nothing = {settings.HOME: os.devnull}  # no config.toml and no variable counts
    found, wrong = settings.examine({"cloud_url": "http://127.0.0.1/v1", name: value}, nothing)
    for error in (*wrong, *assembly.problems(found, {})):
        raise error


def _toml(text: str) -> Any:
    """The value that the text is in TOML; the text itself if it is none."""
    try:
        return tomllib.loads(f"x = {text}")["x"] if "\n" not in text else text
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _check_file(name: str, value: str, config: settings.Settings) -> None:
    """Say so if the model or adapter is not here, or not what its name says. It may come later, so this is no error."""
    from edge_agent.core.errors import ModelError
    from edge_agent.model import catalog, gguf

    resolve, read = (catalog.resolve, gguf.read_model) if name == "model" else (catalog.resolve_adapter, gguf.read_adapter)
    try:
        read(resolve(str(config.config_file.parent / value) if value.endswith(".gguf") else value, config.models_folder))
    except ModelError as error:
        click.echo(f"edge-agent: it cannot be used yet: {plain(str(error))}", err=True)


def _check_calibration(value: str, config: settings.Settings) -> None:
    """Say so if no calibration here has this name. It may come later, so this is no error."""
    from edge_agent.model.calibration import named

    if not named(config.calibrations_folder, settings.checked("calibration", value, "The value of calibration")):
        click.echo(
            f"edge-agent: it does not count yet: there is no calibration {plain(value[:64])} in {config.calibrations_folder}", err=True
        )


def _changed(name: str, value: Any, path: str, as_json: bool) -> None:
    if as_json:
        shown = {"set": value is not None} if name in settings.SECRETS else {"value": value}
        print_json({"name": name, **shown, "config_file": path})
    else:
        echo(plain(f"{name} is {'its default' if value is None else verbosity.shown(name, value)} in {path}"))
