"""`edge-agent backup`, `export` and `purge`: all that is remembered, in a person's hands."""

from __future__ import annotations

import json
import pathlib

import click

from edge_agent.cli.app import EXIT_CODES, main, with_settings
from edge_agent.cli.show import print_json
from edge_agent.core import settings


@main.command(epilog=EXIT_CODES)
@click.argument("path", type=click.Path(path_type=pathlib.Path))
@with_settings()
def backup(config: settings.Settings, path: pathlib.Path, as_json: bool) -> None:
    """Copy the database to PATH, as of one moment, even while others use it.

    The copy is a database of its own: put it in the place of the original to go back. It is readable by its owner alone.
    """
    from edge_agent.store import export as keeping
    from edge_agent.store.store import Store

    with Store(config.database) as store:
        keeping.backup(store, path)
    if as_json:
        print_json({"path": str(path), "bytes": path.stat().st_size})
    else:
        click.echo(f"Copied to {path}.")


@main.command(epilog=EXIT_CODES)
@with_settings()
def export(config: settings.Settings, as_json: bool) -> None:
    """Print every decision with its question and facts, one JSON object a line, oldest first."""
    from edge_agent.store import export as keeping
    from edge_agent.store.store import Store

    with Store(config.database) as store:
        for row in keeping.export(store):
            click.echo(json.dumps(row, ensure_ascii=False))


@main.command(epilog=EXIT_CODES)
@click.option("--older-than", "days", type=click.FloatRange(0), metavar="DAYS", help="Forget questions last asked longer ago than this.")
@click.option("--question", "stem", help="Forget the question with exactly this text (without its options).")
@with_settings()
def purge(config: settings.Settings, days: float | None, stem: str | None, as_json: bool) -> None:
    """Forget questions with their answers and decisions, and really free the space.

    By itself, edge-agent forgets a question 90 days after it was last asked (keep_days in config.toml), a little at a time.

    By age, questions that still wait for the cloud are kept. Copies of the database that lie beside it (from a migration, or
    damaged ones) are removed as well; backups that were made elsewhere are not.
    """
    from dataclasses import asdict

    from edge_agent.store.forget import purge as forget
    from edge_agent.store.store import Store

    if (days is None) == (stem is None):
        raise click.UsageError("Give either --older-than or --question.")
    with Store(config.database) as store:
        purged = forget(store, None if days is None else days * 86_400, stem)
    if as_json:
        print_json(asdict(purged))
    else:
        click.echo(f"Forgot {purged.questions} questions and {purged.decisions} decisions.")
        for name in purged.copies:
            click.echo(f"Removed {name}.")
