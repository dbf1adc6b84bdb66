"""`edge-agent queue`: what waits for the cloud."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edge_agent.cli.app import EXIT_CODES, main, with_settings
from edge_agent.cli.show import duration, iso, print_json, print_rows
from edge_agent.core import settings
from edge_agent.core.errors import StorageError
from edge_agent.core.terminal import plain

if TYPE_CHECKING:
    from edge_agent.cloud.drain import Drained
    from edge_agent.cloud.queue import QueueRow
    from edge_agent.store.store import Store

STATES = ("ready", "sending", "done", "dead", "expired", "cancelled")


@main.group()
def queue() -> None:
    """Show and send the questions that wait for the cloud."""


@queue.command("list", epilog=EXIT_CODES)
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Only rows in this state; repeat for more states.")
@with_settings()
def queue_list(config: settings.Settings, states: tuple[str, ...], as_json: bool) -> None:
    """List the questions in the queue, oldest first.

    A row is ready, sending, done (answered), dead (given up; see its last error), expired (waited too long) or
    cancelled (dropped).
    """
    from edge_agent.cloud.queue import Outbox
    from edge_agent.store.store import Store

    with Store(config.database) as store:
        outbox = Outbox(store)
        now_s = store.clock.now_s()
        rows = [_shown(row, store, now_s) for row in outbox.list(*states)]
    columns = ("queue_id", "state", "attempts", "age", "next try", "question", "last_error")
    print_rows(rows, as_json, columns, _for_people, "No row is in this state." if states else "No question was ever queued.")


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    due = "" if row["due_in_s"] is None else f"in {duration(row['due_in_s'])}" if row["due_in_s"] else "now"
    return {"age": duration(row["age_s"]), "next try": due}


@queue.command("drain", epilog=EXIT_CODES)
@click.option("--watch", is_flag=True, help="Run until interrupted: send each question as soon as it can be sent.")
@with_settings("model", "cloud_url", "cloud_model")
def queue_drain(config: settings.Settings, watch: bool, as_json: bool) -> None:
    """Send the waiting questions to the cloud, each once.

    Everything that is ready is tried now. With --watch, for a device that runs on its own, a failed question waits for its next
    try, and an unreachable cloud is tried less and less often, down to once every 5 minutes.
    """
    from edge_agent.agent.agent import Agent
    from edge_agent.cloud.drain import Drained

    done = None
    with Agent.open(config) as agent:
        for step in agent.watch() if watch else agent.drain():
            if not isinstance(step, Drained):
                click.echo(f"sending question {step.queue_id} ...", err=True)
                continue
            done = step
            if watch:
                _print_drained(step, as_json, line=True)
    assert done is not None
    _print_drained(done, as_json)
    if done.stopped or (done.failed and not done.answered):
        click.get_current_context().exit(69)


@queue.command("retry", epilog=EXIT_CODES)
@click.argument("queue_ids", type=int, nargs=-1)
@click.option("--dead", is_flag=True, help="All dead and expired rows.")
@with_settings()
def queue_retry(config: settings.Settings, queue_ids: tuple[int, ...], dead: bool, as_json: bool) -> None:
    """Make rows ready to send again, with all their attempts and a new time to live.

    QUEUE_IDS are the numbers that `queue list` shows.
    """
    _change(config, "retry", queue_ids, ("dead", "expired") if dead else (), as_json)


@queue.command("drop", epilog=EXIT_CODES)
@click.argument("queue_ids", type=int, nargs=-1)
@click.option("--dead", is_flag=True, help="All dead and expired rows.")
@with_settings()
def queue_drop(config: settings.Settings, queue_ids: tuple[int, ...], dead: bool, as_json: bool) -> None:
    """Drop rows: they are never sent, and the device's own answers stay.

    QUEUE_IDS are the numbers that `queue list` shows.
    """
    _change(config, "drop", queue_ids, ("dead", "expired") if dead else (), as_json)


def _change(config: settings.Settings, verb: str, queue_ids: tuple[int, ...], states: tuple[str, ...], as_json: bool) -> None:
    """`retry` or `drop` rows, each in a transaction of its own."""
    from edge_agent.cloud.queue import Outbox
    from edge_agent.store.store import Store

    if not queue_ids and not states:
        raise click.UsageError("Give the numbers of rows (`edge-agent queue list` shows them), or --dead.")
    with Store(config.database) as store:
        outbox = Outbox(store)
        wanted = [*queue_ids, *(row.queue_id for row in outbox.list(*states) if states)]
        change = outbox.retry if verb == "retry" else outbox.drop
        now_s = store.clock.now_s()
        rows = [_shown(change(queue_id), store, now_s) for queue_id in dict.fromkeys(wanted)]
    if as_json:
        print_json(rows)
    else:
        click.echo(f"{len(rows)} {'ready to be sent again' if verb == 'retry' else 'dropped'}.")


def _shown(row: QueueRow, store: Store, now_s: float) -> dict[str, Any]:
    """A row as it is printed."""
    try:
        stem = store.question(row.fingerprint).stem
    except StorageError:
        stem = None  # damaged: the other rows must still be shown
    return {
        "queue_id": row.queue_id,
        "state": row.state,
        "attempts": row.attempts,
        "last_error": row.last_error,
        "created_at": iso(row.created_at),
        "age_s": round(max(0.0, now_s - row.put_s), 3),
        "due_in_s": round(max(0.0, row.due_s - now_s), 3) if row.state == "ready" else None,
        "question": stem,
        "fingerprint": row.fingerprint,
        "job_key": row.job_key,
    }


def _print_drained(done: Drained, as_json: bool, line: bool = False) -> None:
    from dataclasses import asdict

    if as_json:
        print_json(asdict(done), line)
    else:
        click.echo(f"{done.answered} answered, {done.failed} failed, {done.waiting} still waiting.")
        if done.stopped:
            click.echo(f"Stopped early: {plain(done.stopped)}." + ("" if line else " Drain again later."))
