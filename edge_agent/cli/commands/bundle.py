"""`edge-agent bundle`: model, adapter, calibration and settings in one file."""

from __future__ import annotations

import pathlib
from dataclasses import asdict

import click

from edge_agent.cli import verbosity
from edge_agent.cli.app import EXIT_CODES, main, with_settings
from edge_agent.cli.outputs import check_outputs
from edge_agent.cli.show import echo, print_json
from edge_agent.core.config import settings
from edge_agent.core.config.checks import AUTO, NONE
from edge_agent.core.terminal import plain


@main.command(epilog=EXIT_CODES)
@click.argument("model", required=False)
@click.option("--out", required=True, type=click.Path(path_type=pathlib.Path, dir_okay=False), help="The file to write.")
@click.option("--adapter", metavar="GGUF", help="An adapter to use on top of the model.  [default: the configured one]")
@click.option(
    "--calibration",
    metavar="auto|none|FILE",
    default=AUTO,
    show_default=True,
    help="A calibration for exactly this model file; auto takes the one that applies here.",
)
@with_settings("tau", "policy", "cloud_url", "cloud_model")
def bundle(config: settings.Settings, model: str | None, out: pathlib.Path, adapter: str | None, calibration: str, as_json: bool) -> None:
    """Pack a model into one file for a device without a network.

    MODEL is a .gguf file or a name from `edge-agent models`; the default is the configured model with its adapter. The settings below
    that differ from the defaults are included, but no other settings and never the cloud key. On the device, run: edge-agent pull FILE.
    """
    from edge_agent.fetch.bundle import CALIBRATION, pack
    from edge_agent.model import catalog

    path = catalog.resolve(model or config.model, config.models_folder)
    adapter = adapter or (None if model else config.adapter)
    on_top = catalog.resolve_adapter(adapter, config.models_folder) if adapter else None
    if out.exists():  # `pack` makes missing folders, and refuses its own parts
        check_outputs(config, [(out, "the bundle")], {})
    packed = pack(out, path, _chosen(config, path), _calibration(config, calibration, path, on_top), on_top)
    about = {"path": str(out), "bytes": out.stat().st_size, "sha256": catalog.sha256_of(out), "name": packed.name}
    about |= {"adapter": packed.adapter}
    about |= {"files": list(packed.parts), "settings": packed.settings}
    if as_json:
        print_json(about)
        return
    echo(plain(f"{out}  {about['bytes']:,} bytes  sha256 {about['sha256']}"))
    contents = ["the model"]
    contents += [f"the adapter {packed.adapter}"] if packed.adapter else []
    contents += ["its calibration"] if CALIBRATION in packed.parts else []
    if CALIBRATION in packed.parts and "tau" in packed.settings:
        click.echo("The calibration does not count there, because a tau is packed, too; leave the tau out to use it.", err=True)
    words = ", ".join(f"{name} {value}" for name, value in packed.settings.items()) or "only the defaults"
    click.echo(plain(f"It contains {' and '.join(contents)}; settings: {words}. Unpack it with: edge-agent pull {out.name}"), err=True)


def _calibration(config: settings.Settings, given: str, model: pathlib.Path, adapter: pathlib.Path | None) -> pathlib.Path | None:
    """The file of the calibration to pack. With `auto` it is the one that applies here, which is none if a tau is given."""
    from edge_agent.agent.rules_in_force import Calibrations
    from edge_agent.model import catalog
    from edge_agent.model.profile import Profile

    if given == NONE:
        return None
    if given != AUTO:
        return pathlib.Path(given)
    if config.tau is not None:
        return None
    facts = catalog.identified(catalog.ModelFiles(model, adapter, catalog.ways_of(config)))
    applied = Calibrations(config.calibrations_folder, config.calibration).of(facts, Profile.from_json(facts.profile))
    for problem in applied.problems if applied else ():
        verbosity.problem(problem)
    return config.calibrations_folder / f"{applied.calibration.sha256}.json" if applied and applied.calibration else None


def _chosen(config: settings.Settings, model: pathlib.Path) -> dict[str, object]:
    """The settings that differ from the defaults, and how this model is read, if that was decided."""
    from edge_agent.fetch.bundle import WAY
    from edge_agent.model import catalog

    default = settings.Settings(config.data_folder, config.cache_folder, config.config_file)
    values = {name: getattr(config, name) for name in ("tau", "policy", "cloud_url", "cloud_model")}
    chosen = {name: value for name, value in values.items() if value != getattr(default, name)}
    way = asdict(catalog.ways_of(config).way(catalog.sha256_of(model)))
    return chosen | {name: way[name] for name in WAY if way[name]}
