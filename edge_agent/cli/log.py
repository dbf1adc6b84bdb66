"""`edge-agent log`: the last decisions."""

from __future__ import annotations

import json
from typing import Any

import click

from edge_agent import settings
from edge_agent.cli.group import EXIT_CODES, main, with_settings
from edge_agent.cli.show import NO_DECISIONS, iso, plain, print_json, print_rows


@main.command(epilog=EXIT_CODES)
@click.argument("decision_id", required=False)
@click.option(
    "--wait", "wait_s", type=click.FloatRange(0), help="With DECISION_ID: wait so many seconds for the end of a provisional answer."
)
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@with_settings()
def log(config: settings.Settings, decision_id: str | None, wait_s: float | None, limit: int, as_json: bool) -> None:
    """Show the last decisions, newest first.

    With DECISION_ID, show how that one stands: a provisional answer ends upheld, overturned or abandoned. One that still waits
    when the seconds of --wait are over ends the command with 69.
    """
    from edge_agent.store import Store

    if decision_id is None and wait_s is not None:
        raise click.UsageError("--wait needs a DECISION_ID.")
    if decision_id is not None:
        _show_ending(config, decision_id, wait_s, as_json)
        return
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
    """One decision, perhaps after a while."""
    import time
    from dataclasses import asdict

    from edge_agent.store import Store

    ends = time.monotonic() + (wait_s or 0.0)
    with Store(config.database) as store:
        while (found := store.ending(decision_id)).waits and time.monotonic() < ends:
            time.sleep(0.2)
    if as_json:
        times = {name: iso(value) if value else None for name, value in (("created_at", found.created_at), ("ended_at", found.ended_at))}
        print_json({**asdict(found), **times})
    else:
        final = f", and the cloud says {found.final_answer}" if found.final_answer else ""
        click.echo(plain(f"{found.answer}{final}: {'waiting' if found.waits else found.ending or 'final'}"))
    if found.waits and wait_s is not None:
        click.get_current_context().exit(69)
