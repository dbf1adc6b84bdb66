"""`edge-agent purge`: deletes questions now."""

from __future__ import annotations

import click

from edge_agent.cli.app import EXIT_CODES, Amount, main, with_settings
from edge_agent.cli.show import print_json
from edge_agent.core import settings


@main.command(epilog=EXIT_CODES)
@click.option("--older-than", "days", type=Amount(), metavar="DAYS", help="Delete questions last asked longer ago than this.")
@click.option("--question", "stem", help="Delete the question with exactly this text (without its options).")
@with_settings()
def purge(config: settings.Settings, days: float | None, stem: str | None, as_json: bool) -> None:
    """Delete questions with their answers and decisions, and free the space.

    edge-agent also deletes a question on its own, 90 days after it was last asked (keep_days in config.toml), a little at a time.

    --older-than keeps questions that still wait for the cloud; --question does not. Copies of the database that
    edge-agent made beside it (before a migration or a restore, or of damaged files) are removed too, unless questions wait for the
    cloud only there; backups are not.
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
        click.echo(f"Deleted {purged.questions} questions and {purged.decisions} decisions.")
        for name in purged.copies:
            click.echo(f"Removed {name}.")
        for name in purged.kept:
            click.echo(f"Kept {name}: questions wait for the cloud only there. Restore it, or remove it yourself.")
