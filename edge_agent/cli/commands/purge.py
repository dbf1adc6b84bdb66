"""`edge-agent purge`: deletes questions now, after showing which."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from edge_agent.cli import verbosity
from edge_agent.cli.app import EXIT_CODES, Amount, main, with_settings
from edge_agent.cli.show import INDENT, echo, fitted, print_json, say
from edge_agent.core.config import settings
from edge_agent.core.errors import BadQuestion
from edge_agent.core.times import iso, local

if TYPE_CHECKING:
    from edge_agent.store.forget import Preview


@main.command(epilog=EXIT_CODES)
@click.option("--older-than", "days", type=Amount(), metavar="DAYS", help="Delete questions last asked longer ago than this.")
@click.option("--question", "stem", help="Delete the question with exactly this text (without its options).")
@click.option("--id", "named", metavar="ID", help="Delete the question of this decision: a number of the queue, or the start of an id.")
@click.option("--yes", is_flag=True, help="Delete without asking. Needed where there is no terminal to ask on.")
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@with_settings()
def purge(
    config: settings.Settings, days: float | None, stem: str | None, named: str | None, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Delete questions with their answers and decisions, and free the space.

    edge-agent also deletes a question on its own, 90 days after it was last asked (keep_days in config.toml), a little at a time.

    On a terminal, what would be deleted is shown first, and you are asked. --older-than keeps questions that still wait for the
    cloud; --question and --id do not. Copies of the database that edge-agent made beside it (before a migration or a restore, or of
    damaged files) are removed too, unless questions wait for the cloud only there; backups are not.
    """
    from edge_agent.cloud.queue import Outbox
    from edge_agent.store.find import decided, find_decision
    from edge_agent.store.forget import preview
    from edge_agent.store.forget import purge as forget
    from edge_agent.store.store import Store

    if (days is not None) + (stem is not None) + (named is not None) != 1:
        raise click.UsageError("Give one of --older-than, --question and --id.")
    _check(stem)
    with Store(config.database) as store:
        fingerprint = None if named is None else decided(store, find_decision(store, named))["fingerprint"]
        Outbox(store).return_half_sent()  # a row that an interrupted drain has left does not protect its question
        chosen = (None if days is None else days * 86_400, stem, fingerprint)
        if dry_run or not yes:
            found = preview(store, *chosen)
            if as_json and dry_run:
                print_json({**asdict(found), "oldest": iso(found.oldest), "newest": iso(found.newest)})
            elif dry_run or found.questions or found.copies:
                _print(found, err=as_json)
            if dry_run or not _agreed(found):
                return
        purged = forget(store, *chosen)
    if as_json:
        print_json(asdict(purged))
    else:
        echo(f"Deleted {_count(purged.questions, 'question')} and {_count(purged.decisions, 'decision')}.")
        for name in purged.copies:
            say(f"Removed {name}.")
        for name in purged.kept:
            say(f"Kept {name}: questions wait for the cloud only there. Restore it, or remove it yourself.")


def _check(stem: str | None) -> None:
    try:
        (stem or "").encode()
    except UnicodeEncodeError as error:
        raise BadQuestion(f"The text of --question is not UTF-8 (position {error.start}); give the question as `log` shows it.") from error


def _print(found: Preview, err: bool) -> None:
    """What would be deleted."""
    counts = f"{_count(found.questions, 'question')} and {_count(found.decisions, 'decision')} would be deleted"
    say(counts + (":" if found.questions or found.copies else "."), err=err)
    first, last = local(found.oldest), local(found.newest)
    if first and last:  # a damaged clock writes times that no calendar has
        say(f"{INDENT}asked {first}" + (f" to {last}" if last != first else ""), 3, err)
    if found.waiting:
        say(f"{INDENT}{found.waiting} {'waits' if found.waiting == 1 else 'wait'} for the cloud and would not be sent", 3, err)
    for stem in found.first:
        echo(fitted(stem, indent=INDENT), err)
    if found.questions > len(found.first):
        echo(f"{INDENT}and {_count(found.questions - len(found.first), 'more question')}", err)
    for name in found.copies:
        echo(fitted(f"and the copy {name}", indent=INDENT), err)


def _agreed(found: Preview) -> bool:
    """Whether to delete; a person is asked if there is something to delete. Raises a usage error if nobody can be asked."""
    if not found.questions and not found.copies:
        return True  # only the file is packed
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError(
            "There is no terminal to ask on, so nothing was deleted; add --yes to delete this, or --dry-run to only look."
        )
    with verbosity.aloud():
        agreed = click.confirm("Delete this for good?", err=True)
    if not agreed:
        click.echo("Nothing was deleted.", err=True)
    return agreed


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"
