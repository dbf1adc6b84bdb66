"""`edge-agent pull`: gets a model onto this device."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from edge_agent.cli.app import EXIT_CODES, PROFILE, main, with_settings
from edge_agent.cli.commands.models import RESTART, about_kept
from edge_agent.cli.show import echo, print_json, say
from edge_agent.core.config import settings
from edge_agent.core.errors import ModelMissing
from edge_agent.core.terminal import ProgressLine, plain

if TYPE_CHECKING:
    from edge_agent.fetch.installed import Installed


@main.command(epilog=EXIT_CODES)
@click.argument("what")
@click.option("--file", metavar="NAME", help="The file to take, if there are several: its name, or a quantization such as Q4_K_M.")
@click.option("--upgrade", is_flag=True, help="Look for a newer version from the same source, and accept it.")
@click.option(
    "--use-settings", is_flag=True, help="Also use the model, threshold, policy and calibration of a downloaded bundle; never its cloud."
)
@click.option("--any-architecture", is_flag=True, help="Keep a model that edge-agent cannot run, for another program.")
@with_settings(*PROFILE)
def pull(
    config: settings.Settings, what: str, file: str | None, upgrade: bool, use_settings: bool, any_architecture: bool, as_json: bool
) -> None:
    """Get a model or an adapter onto this device.

    WHAT is a name from `edge-agent models`, owner/name on the Hugging Face Hub, a URL, or a .gguf file or bundle on this device
    (`edge-agent bundle` makes one).

    FogGen models print how sure they are before they answer; their architectures are qwen3 and gemma3. A model of the architecture
    llama or qwen2, or of those two with --profile plain, is a plain one: it runs, and its answers count as unsure until it has a
    calibration. Another architecture is refused after the first 256 KiB.

    The settings of a bundle on this device are used if there is no config.toml yet. Those of a downloaded one are only shown,
    unless you give --use-settings. The file is checked, opened once in a separate process, and recorded: the next pull must get
    the same file. An interrupted download resumes where it stopped. HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are honoured.
    """
    from dataclasses import asdict
    from functools import partial

    from edge_agent.fetch.choice import MustBeMade
    from edge_agent.fetch.hub import Hub
    from edge_agent.fetch.installed import check
    from edge_agent.fetch.pull import Puller
    from edge_agent.model import catalog, gguf, previous
    from edge_agent.model.profile import AS_IT_SAYS

    with Hub() as hub, ProgressLine() as line:
        try:
            puller = Puller(config.models_folder, hub, upgrade, line.transfer, config_file=config.config_file)
            puller.calibrations, puller.ways = config.calibrations_folder, config.data_folder
            if (chosen := catalog.ways_of(config)).wanted != AS_IT_SAYS:
                puller.check_file = partial(check, way=chosen.wanted)
            puller.any_architecture, puller.use_settings = any_architecture, use_settings
            puller.check_settings = partial(_check_settings, config)
            in_force = _in_force(config)
            installed = puller.pull(what, file)
            _note_change(config, in_force, installed)
            if chosen.wanted != AS_IT_SAYS and not installed.is_adapter:
                chosen.profile(installed.sha256, installed.path, gguf.read_header(installed.path))
        except MustBeMade as error:
            if as_json:
                print_json({"error": str(error), "commands": error.commands})
            else:
                for command in error.commands:
                    echo(command)
            raise
    kept = previous.before(installed.path.parent, installed.path.name)
    if as_json:
        print_json(asdict(installed) | {"path": str(installed.path), "previous": kept and kept.to_dict()})
        return
    echo(plain(f"{installed.path}  {installed.bytes:,} bytes  sha256 {installed.sha256}"))
    if not installed.is_new:
        click.echo("It was already here.", err=True)
    for words in (*_about_settings(installed, config), *_about_calibration(installed, config), *_about_use(installed)):
        click.echo(plain(words), err=True)
    if kept:
        say(about_kept(kept), err=True)
    if installed.is_new and in_force and _in_force(config) and installed.path.resolve() in (in_force, _in_force(config)):
        click.echo(RESTART, err=True)


def _in_force(config: settings.Settings) -> pathlib.Path | None:
    """The file of the model that answers where no other is given; None if it is not here."""
    from edge_agent.model import catalog

    try:
        return catalog.resolve(config.model, config.models_folder).resolve()
    except ModelMissing:
        return None


def _note_change(config: settings.Settings, before: pathlib.Path | None, installed: Installed) -> None:
    """If the pull changed which model answers, note how to go back: to another file, or to the version that was kept."""
    from edge_agent.model import previous

    here = installed.path.resolve()
    now = here if installed.settings_written else _in_force(config)
    if before is None or not installed.is_new:
        return
    if now == before == here:
        previous.forget_choice(config.models_folder)
    elif now is not None and now != before:
        new = installed.path.stem if installed.settings_written else config.model
        old = config.model if installed.settings_written else before.stem
        previous.note_choice(config.models_folder, old, new)


def _check_settings(config: settings.Settings, given: Mapping[str, Any]) -> None:
    """Raises `BadSetting` if no agent could use the settings of a bundle."""
    from edge_agent.agent import assembly

    alone = settings.Settings(config.data_folder, config.cache_folder, config.config_file, **given)
    for error in assembly.problems(alone, {}):
        raise error


def _about_settings(installed: Installed, config: settings.Settings) -> Iterator[str]:
    """Which settings came with a bundle, and whether they are used."""
    if installed.settings or installed.settings_written:
        words = _listed({"model": installed.path.stem, **installed.settings})
        there = f"are now in {config.config_file}" if installed.settings_written else f"were not used, because {config.config_file} exists"
        yield f"Its settings ({words}) {there}."
    cloud = {name: value for name, value in installed.left_out.items() if name.startswith("cloud_")}
    waiting = {name: value for name, value in installed.left_out.items() if name not in cloud}
    if waiting:
        words = _listed({"model": installed.path.stem, **waiting})
        yield f"It proposes settings ({words}); they came over the network and are not used unless you pull it with --use-settings."
    if cloud:
        yield f"It also names a cloud ({_listed(cloud)}); a download never sets up a cloud, so set it yourself if you trust it."


def _about_calibration(installed: Installed, config: settings.Settings) -> Iterator[str]:
    """Which calibration came with a bundle, and whether it applies."""
    if installed.calibration and not installed.calibration_used:
        why = "it came over the network and is not used unless you pull it with --use-settings"
        yield f"It has a calibration ({installed.calibration}); {why}."
    elif installed.calibration:
        tau = installed.settings.get("tau") if installed.settings_written else config.tau
        off = "" if tau is None else f". It does not count, because a tau is set: {tau:g}"
        yield f"Its calibration is here: {installed.calibration}{off}."


def _about_use(installed: Installed) -> Iterator[str]:
    """What to do with the file, and what not to expect of it."""
    if installed.warning:
        yield installed.warning
    if installed.is_adapter:
        base = f"its base model ({installed.base})" if installed.base else "its base model"
        yield f"It is an adapter. Ask {base} with it: edge-agent ask ... --model BASE --adapter {installed.path.stem}"
    else:
        yield f"Ask it: edge-agent ask ... --model {installed.alias or installed.path.stem}"


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
