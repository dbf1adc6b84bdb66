"""`edge-agent log`: the last decisions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from edge_agent.cli.app import EXIT_CODES, Amount, main, with_settings
from edge_agent.cli.show import NO_DECISIONS, iso, print_json, print_rows
from edge_agent.core import settings
from edge_agent.core.terminal import plain

if TYPE_CHECKING:
    from edge_agent.core.records import Ending


@main.command(epilog=EXIT_CODES)
@click.argument("decision_id", required=False)
@click.option("--wait", "wait_s", type=Amount(), help="With DECISION_ID: wait up to this many seconds for a provisional answer to end.")
@click.option("--follow", is_flag=True, help="Print the ending of each provisional answer as it comes, one a line, until interrupted.")
@click.option(
    "--after",
    type=click.IntRange(0),
    metavar="NUMBER",
    help="With --follow: print the endings after this number; 0 starts with the first.  [default: only new endings]",
)
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many to show.")
@with_settings()
def log(
    config: settings.Settings, decision_id: str | None, wait_s: float | None, follow: bool, after: int | None, limit: int, as_json: bool
) -> None:
    """Show the last decisions, the newest first.

    The order is that in which they were stored, even if the clock was wrong. With DECISION_ID, show the state of that one: a provisional
    answer ends upheld, overturned or abandoned. If it still waits when --wait is over, the exit code is 69.

    With --follow, print every ending as it comes, whichever process drains the queue. To miss none after a stop, pass the
    number at the start of the last line to --after.
    """
    if decision_id is None and wait_s is not None:
        raise click.UsageError("--wait needs a DECISION_ID.")
    if follow and decision_id is not None:
        raise click.UsageError("Give either a DECISION_ID or --follow.")
    if after is not None and not follow:
        raise click.UsageError("--after needs --follow.")
    if follow:
        _follow(config, after, as_json)
    elif decision_id is not None:
        _show_ending(config, decision_id, wait_s, as_json)
    else:
        _list(config, limit, as_json)


def _list(config: settings.Settings, limit: int, as_json: bool) -> None:
    """The last decisions."""
    from edge_agent.store.store import Store

    with Store(config.database) as store:
        rows = store.log(limit)
    for row in rows:
        row["question"] = row.pop("stem")
        for key in ("options", "policy", "circumstances"):
            row[key] = json.loads(row[key])
        for key in ("created_at", "ended_at"):
            row[key] = iso(row[key]) if row[key] else None
        for key in ("deferred", "recalled", "provisional"):
            row[key] = bool(row[key])
    columns = ("created_at", "question", "answer", "score", "route", "reason", "cause", "recalled", "ending")
    print_rows(rows, as_json, columns, _for_people, NO_DECISIONS)


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "answer": row["answer"] + (f" → {row['final_answer']}" if row["ending"] == "overturned" else ""),
        "score": None if row["cause"] == "no_confidence" else row["score"],
        "ending": row["ending"] or ("waiting" if row["provisional"] else ""),
        "recalled": "yes" if row["recalled"] else "",
    }


def _show_ending(config: settings.Settings, decision_id: str, wait_s: float | None, as_json: bool) -> None:
    """The state of one decision, once it ended or the wait is over."""
    from edge_agent.agent.endings import wait
    from edge_agent.store.store import Store

    with Store(config.database) as store:
        found = wait(store, decision_id, wait_s or 0.0)
    if as_json:
        print_json(_fields(found))
    else:
        final = f", and the cloud says {found.final_answer}" if found.final_answer else ""
        click.echo(plain(f"{found.answer}{final}: {'waiting' if found.waits else found.ending or 'final'}"))
    if found.waits and wait_s is not None:
        click.get_current_context().exit(69)


def _follow(config: settings.Settings, after: int | None, as_json: bool) -> None:
    """Each ending as it comes."""
    from edge_agent.agent.endings import endings
    from edge_agent.store.store import Store

    with Store(config.database) as store:
        for found in endings(store, after):
            if as_json:
                print_json(_fields(found), line=True)
            else:
                final = f" → {found.final_answer}" if found.ending == "overturned" else ""
                click.echo(
                    plain(f"{found.number}  {iso(found.ended_at or 0.0)}  {found.decision_id}  {found.answer}{final}: {found.ending}")
                )


def _fields(found: Ending) -> dict[str, Any]:
    from dataclasses import asdict

    times = {name: iso(value) if value else None for name, value in (("created_at", found.created_at), ("ended_at", found.ended_at))}
    return {**asdict(found), **times}
