"""`edge-agent pull`: a published model comes to this device."""

from __future__ import annotations

import click

from edge_agent.cli.app import EXIT_CODES, main, with_settings
from edge_agent.cli.show import echo, print_json
from edge_agent.core import settings
from edge_agent.core.terminal import ProgressLine, plain


@main.command(epilog=EXIT_CODES)
@click.argument("what")
@click.option("--file", metavar="NAME", help="Which file, where there are several: its name, or a quantization such as Q4_K_M.")
@click.option("--upgrade", is_flag=True, help="Look for something newer than what was pulled first, and accept it.")
@with_settings()
def pull(config: settings.Settings, what: str, file: str | None, upgrade: bool, as_json: bool) -> None:
    """Bring a model to this device.

    WHAT is a name of `edge-agent models`, owner/name on the Hugging Face Hub, an address, or a .gguf file or a bundle here
    (`edge-agent bundle` makes one; its settings come along unless there are some, but no cloud from the network). The file is
    checked, opened once in a process of its own, and recorded: the next pull must see the same. What is broken off goes on where
    it stopped. HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are honoured.
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
        click.echo("It was here already.", err=True)
    if installed.settings or installed.settings_written:
        words = ", ".join([f"model {installed.path.stem}", *(f"{name} {value}" for name, value in installed.settings.items())])
        there = f"are now in {config.config_file}" if installed.settings_written else f"were left out, since there is {config.config_file}"
        click.echo(plain(f"Its settings ({words}) {there}."), err=True)
    if installed.left_out:
        words = ", ".join(f"{name} {value}" for name, value in installed.left_out.items())
        click.echo(plain(f"It also names a cloud ({words}); a download sets none up, so set it yourself if you trust it."), err=True)
    click.echo(plain(f"Ask it: edge-agent ask ... --model {installed.alias or installed.path.stem}"), err=True)
