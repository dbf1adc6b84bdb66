"""`edge-agent backup`: a copy of the database."""

from __future__ import annotations

import pathlib

import click

from edge_agent.cli.app import EXIT_CODES, main, with_settings
from edge_agent.cli.show import print_json, say
from edge_agent.core.config import settings


@main.command(epilog=EXIT_CODES)
@click.argument("path", type=click.Path(path_type=pathlib.Path))
@with_settings()
def backup(config: settings.Settings, path: pathlib.Path, as_json: bool) -> None:
    """Copy the database to PATH, even while other processes use it.

    The copy is a complete database as of one moment; `edge-agent restore` goes back to it. Only its owner can read it.
    Files beside the database are not in it: copy the folder calibrations and the file ways.json, too, if they
    are there.
    """
    from edge_agent.model.ways import FILE
    from edge_agent.store.export import backup as copy_database
    from edge_agent.store.store import Store

    with Store(config.database) as store:
        copy_database(store, path)
    if as_json:
        print_json({"path": str(path), "bytes": path.stat().st_size})
    else:
        say(f"Copied to {path}.")
        if any(config.calibrations_folder.glob("*.json")):
            say(f"Calibrations apply from their files, which are not in it; copy the folder {config.calibrations_folder}, too.")
        if (config.data_folder / FILE).is_file():
            say(f"How plain models are read is remembered in a file of its own; copy {config.data_folder / FILE}, too.")
