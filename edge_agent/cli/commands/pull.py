"""`edge-agent pull`: gets a model onto this device."""

from __future__ import annotations

import click

from edge_agent.cli.app import EXIT_CODES, main, with_settings
from edge_agent.cli.show import echo, print_json
from edge_agent.core import settings
from edge_agent.core.terminal import ProgressLine, plain


@main.command(epilog=EXIT_CODES)
@click.argument("what")
@click.option("--file", metavar="NAME", help="The file to take, if there are several: its name, or a quantization such as Q4_K_M.")
@click.option("--upgrade", is_flag=True, help="Look for a newer version than the one pulled first, and accept it.")
@with_settings()
def pull(config: settings.Settings, what: str, file: str | None, upgrade: bool, as_json: bool) -> None:
    """Get a model onto this device.

    WHAT is a name from `edge-agent models`, owner/name on the Hugging Face Hub, a URL, or a .gguf file or bundle on this device
    (`edge-agent bundle` makes one). A bundle's settings are used if there is no config.toml yet, but never a cloud that came over
    the network. The file is checked, opened once in a separate process, and recorded: the next pull must get the same file. An
    interrupted download resumes where it stopped. HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are honoured.
    """
    from dataclasses import asdict

    from edge_agent.fetch.hub import Hub
    from edge_agent.fetch.pull import MustBeMade, Puller

    with Hub() as hub, ProgressLine() as line:
        try:
            installed = Puller(config.models_folder, hub, upgrade, line.transfer, config_file=config.config_file).pull(what, file)
        except MustBeMade as error:
            if as_json:
                print_json({"error": str(error), "commands": error.commands})
            else:
                for command in error.commands:
                    echo(command)
            raise
    if as_json:
        print_json(asdict(installed) | {"path": str(installed.path)})
        return
    echo(plain(f"{installed.path}  {installed.bytes:,} bytes  sha256 {installed.sha256}"))
    if not installed.is_new:
        click.echo("It was already here.", err=True)
    if installed.settings or installed.settings_written:
        words = ", ".join([f"model {installed.path.stem}", *(f"{name} {value}" for name, value in installed.settings.items())])
        there = f"are now in {config.config_file}" if installed.settings_written else f"were not used, because {config.config_file} exists"
        click.echo(plain(f"Its settings ({words}) {there}."), err=True)
    if installed.left_out:
        words = ", ".join(f"{name} {value}" for name, value in installed.left_out.items())
        click.echo(
            plain(f"It also names a cloud ({words}); a download never sets up a cloud, so set it yourself if you trust it."), err=True
        )
    click.echo(plain(f"Ask it: edge-agent ask ... --model {installed.alias or installed.path.stem}"), err=True)
