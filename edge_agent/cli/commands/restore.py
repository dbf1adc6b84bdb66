"""`edge-agent restore`: puts a backup in the place of the database."""

from __future__ import annotations

import pathlib

import click

from edge_agent.cli.app import EXIT_CODES, main, with_settings
from edge_agent.cli.show import print_json, say
from edge_agent.core.config import settings


@main.command(epilog=EXIT_CODES)
@click.argument("backup", type=click.Path(path_type=pathlib.Path))
@with_settings()
def restore(config: settings.Settings, backup: pathlib.Path, as_json: bool) -> None:
    """Put BACKUP in the place of the database.

    The backup is checked first and stays as it is. Stop everything that uses the database before. The replaced database is kept beside
    the new one, under a name with the date. Questions that were answered since the backup wait again, and the budget for the cloud is
    counted from the backup on.
    """
    from dataclasses import asdict

    from edge_agent.store.file.restore import restore as put_back

    restored = put_back(config.database, backup)
    if as_json:
        print_json(asdict(restored))
        return
    say(f"Restored {restored.questions} questions and {restored.decisions} decisions; {restored.waiting} wait for the cloud.")
    if restored.kept:
        say(f"The replaced database is kept as {restored.kept}.")
