"""`edge-agent export`: every decision as a line of JSON."""

from __future__ import annotations

from edge_agent.cli.app import EXIT_CODES, main, with_settings
from edge_agent.cli.show import print_json
from edge_agent.core.config import settings


@main.command(epilog=EXIT_CODES)
@with_settings()
def export(config: settings.Settings, as_json: bool) -> None:
    """Print every decision with its question and facts, one JSON object a line, oldest first.

    Times are local, with the offset of their zone.
    """
    from edge_agent.store.export import export as decisions
    from edge_agent.store.store import Store

    with Store(config.database) as store:
        for row in decisions(store):
            print_json(row, line=True)
