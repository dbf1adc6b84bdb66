"""`edge-agent queue`: what waits for the cloud."""

from __future__ import annotations

import click

from edge_agent import settings
from edge_agent.cli.group import EXIT_CODES, main, with_settings
from edge_agent.cli.show import iso, plain, print_json, print_table


@main.group()
def queue() -> None:
    """Questions that wait for the cloud."""


@queue.command("list", epilog=EXIT_CODES)
@with_settings()
def queue_list(config: settings.Settings, as_json: bool) -> None:
    """List them, oldest first."""
    from dataclasses import asdict

    from edge_agent.outbox import Outbox
    from edge_agent.store import Store

    with Store(config.database) as store:
        rows = [
            {**asdict(row), "created_at": iso(row.created_at), "question": store.question(row.fingerprint).stem}
            for row in Outbox(store).list()
        ]
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo("Nothing was ever queued.")
    else:
        print_table(rows, ("queue_id", "state", "attempts", "created_at", "question", "last_error"))


@queue.command("drain", epilog=EXIT_CODES)
@with_settings("model", "cloud_url", "cloud_model")
def queue_drain(config: settings.Settings, as_json: bool) -> None:
    """Send what waits to the cloud, once over the queue."""
    from dataclasses import asdict

    from edge_agent.agent import Agent, Drained

    done = None
    with Agent.open(config) as agent:
        for step in agent.drain():
            if isinstance(step, Drained):
                done = step
            else:
                click.echo(f"sending question {step.queue_id} ...", err=True)
    assert done is not None
    if as_json:
        print_json(asdict(done))
    else:
        click.echo(f"{done.answered} answered, {done.failed} failed, {done.waiting} still waiting.")
        if done.stopped:
            click.echo(f"Stopped early: {plain(done.stopped)}. Drain again later.")
    if done.stopped or (done.failed and not done.answered):
        click.get_current_context().exit(69)
