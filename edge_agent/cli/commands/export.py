"""`edge-agent export`: every decision as a line of JSON."""

from __future__ import annotations

import json

import click

from edge_agent.cli.app import EXIT_CODES, main, with_settings
from edge_agent.core import settings


@main.command(epilog=EXIT_CODES)
@with_settings()
def export(config: settings.Settings, as_json: bool) -> None:
    """Print every decision with its question and facts, one JSON object a line, oldest first."""
    from edge_agent.store.export import export as decisions
    from edge_agent.store.store import Store

    with Store(config.database) as store:
        for row in decisions(store):
            click.echo(json.dumps(row, ensure_ascii=False))
