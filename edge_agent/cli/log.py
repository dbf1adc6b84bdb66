"""`edge-agent log`: the last decisions."""

from __future__ import annotations

import json

import click

from edge_agent import settings
from edge_agent.cli.group import EXIT_CODES, main, with_settings
from edge_agent.cli.show import iso, print_json, print_table


@main.command(epilog=EXIT_CODES)
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@with_settings()
def log(config: settings.Settings, limit: int, as_json: bool) -> None:
    """Show the last decisions, newest first."""
    from edge_agent.store import Store

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
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo("No decisions yet; ask something with `edge-agent ask`.")
    else:
        for row in rows:
            if row["ending"] == "overturned":
                row["answer"] += f" → {row['final_answer']}"
            if row["cause"] == "no_confidence":
                row["score"] = None
            row["ending"] = row["ending"] or ("waiting" if row["provisional"] else "")
            row["recalled"] = "yes" if row["recalled"] else ""
        print_table(rows, ("created_at", "question", "answer", "score", "route", "reason", "cause", "recalled", "ending"))
