"""`edge-agent queue`: what waits for the cloud."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from edge_agent.cli.app import EXIT_CODES, main, with_settings
from edge_agent.cli.show import INDENT, duration, echo, fitted, outcome, print_json, print_rows
from edge_agent.core.config import settings
from edge_agent.core.errors import BadQuestion, StorageError
from edge_agent.core.terminal import one_line, plain
from edge_agent.core.times import clock

if TYPE_CHECKING:
    from edge_agent.agent.agent import Agent
    from edge_agent.cloud.drain import Drained
    from edge_agent.cloud.queue_row import QueueRow

_NOT_ANSWERED = {"dead": "given up", "cancelled": "not sent", "expired": "waited too long"}
OPEN, OVER = ("ready", "sending", "dead", "expired"), ("done", "cancelled")
STATES = ("ready", "sending", "done", "dead", "expired", "cancelled")


@main.group()
def queue() -> None:
    """Show and send the questions that wait for the cloud."""


@queue.command("list", epilog=EXIT_CODES)
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Only rows in this state; repeat for more states.")
@click.option("--all", "show_all", is_flag=True, help="Also rows that are done or cancelled.")
@with_settings()
def queue_list(config: settings.Settings, states: tuple[str, ...], show_all: bool, as_json: bool) -> None:
    """List the questions in the queue, oldest first.

    A row is ready, sending, dead (given up; see its last error) or expired (waited too long). Rows that are done (answered) or
    cancelled (dropped) are only listed with --all or --state.
    """
    from edge_agent.cloud.queue import Outbox
    from edge_agent.cloud.queue_row import shown
    from edge_agent.store.store import Store

    if states and show_all:
        raise click.UsageError("Give either --state or --all.")
    with Store(config.database) as store:
        outbox = Outbox(store)
        now_s = store.clock.now_s()
        rows = [shown(row, store, now_s) for row in outbox.list(*(states or (STATES if show_all else OPEN)))]
        n_over = outbox.count(*OVER) if not states and not show_all else 0
    columns = ("number", "state", "tries", "age", "next try", "question", "last error")
    print_rows(rows, as_json, lambda row: row, _for_people, columns, "No row is in this state." if states else _nothing(n_over))
    if rows and n_over and not as_json:
        click.echo(f"\n{n_over} more {'is' if n_over == 1 else 'are'} done or cancelled; --all shows them.", err=True)


def _nothing(n_over: int) -> str:
    return f"Nothing waits. {n_over} done or cancelled; --all shows them." if n_over else "No question was ever queued."


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    due = "" if row["due_in_s"] is None else f"in {duration(row['due_in_s'])}" if row["due_in_s"] else "now"
    return {
        "number": row["queue_id"],
        "state": row["state"],
        "tries": row["attempts"],
        "age": duration(row["age_s"]),
        "next try": due,
        "question": row["question"],
        "last error": row["last_error"],
    }


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
        report = _Report(agent, as_json)
        for step in agent.watch(on_wait=report.waits) if watch else agent.drain():
            if isinstance(step, Drained):
                done = step
                report.passed(step, line=watch)
            else:
                report.sends(step)
    assert done is not None
    if done.stopped or (done.failed and not done.answered):
        click.get_current_context().exit(69)


class _Report:
    """Says what a drain does: each question and what came of it on stderr, the result of a pass on stdout.

    With --json, stderr gets numbers and no text: a service's journal keeps what it gets, and no purge reaches it there.
    """

    def __init__(self, agent: Agent, as_json: bool) -> None:
        self._agent, self._as_json = agent, as_json
        self._sent: int | None = None
        self._in_doubt: list[int] = []  # came back, and whose fault it was is not known yet
        self._waits_for = ""
        self._n_ended = {"upheld": 0, "overturned": 0}

    def sends(self, row: QueueRow) -> None:
        """A question is sent."""
        self._came_back()
        self._sent = row.queue_id
        try:
            stem = "sending" if self._as_json else self._agent.store.question(row.fingerprint).stem
        except StorageError:
            stem = "(the question is damaged)"
        self._say(f"{row.queue_id}: {one_line(stem)}")

    def passed(self, done: Drained, line: bool) -> None:
        """A pass is over."""
        self._came_back()
        if self._as_json:
            print_json({**asdict(done), **self._n_ended}, line)
        else:
            ended = ", ".join(f"{n} {name}" for name, n in self._n_ended.items() if n)
            echo(f"{done.answered} answered{f' ({ended})' if ended else ''}, {done.failed} failed, {done.waiting} still waiting.")
            if done.audited:
                echo(f"{done.audited} kept answer{'s' * (done.audited != 1)} compared with the cloud's (audit_share).")
            if done.stopped:
                echo(plain(f"Stopped early: {done.stopped}." + ("" if line else " Put that right, or drain again later.")))
        self._n_ended = dict.fromkeys(self._n_ended, 0)
        self._waits_for = ""

    def waits(self, pause_s: float, stopped: str | None) -> None:
        """With --watch: nothing can be sent for now. Says why and until when, once for each reason."""
        due_in_s = self._agent.outbox.next_due_in_s()
        if stopped:
            why, until_s = f"waiting for the cloud ({stopped})", pause_s
        elif due_in_s is None:
            why, until_s = "waiting for new questions", 0.0
        else:
            n = self._agent.outbox.count("ready")
            why, until_s = f"waiting for the next try of {n} question{'s' * (n != 1)}", due_in_s
        until = f"; next try at {clock(time.time() + until_s)}" if until_s else ""
        if why + until != self._waits_for:
            self._say(f"{why}{until}")
        self._waits_for = why + until

    def _came_back(self) -> None:
        """Say what came of the question that was sent last, and of those whose doubt has ended."""
        if self._sent is None and not self._in_doubt:
            return
        for queue_id in self._in_doubt.copy():
            self._tell(queue_id, f"{INDENT}{queue_id}: ")
        if self._sent is not None:
            self._in_doubt.append(self._sent)
            self._tell(self._sent, INDENT)
        self._sent = None

    def _tell(self, queue_id: int, before: str) -> None:
        """Say what came of a question, and count how its decisions ended; nothing new of one that is still in doubt."""
        from edge_agent.store.find import decisions_of

        try:
            row = self._agent.outbox.row(queue_id)
            rows = decisions_of(self._agent.store, queue_id)
        except (StorageError, BadQuestion):  # locked by another program, or purged: the drain goes on
            self._in_doubt.remove(queue_id)
            return self._say(f"{before}unknown: the row cannot be read now, or it was purged")
        if row.state == "sending":
            if queue_id == self._sent:
                self._say(f"{before}not known yet: the next calls show whether the question or the cloud is to blame")
            return None
        self._in_doubt.remove(queue_id)
        for decision in rows:
            if row.state == "done" and decision["ending"] in self._n_ended:
                self._n_ended[decision["ending"]] += 1
        if row.state == "done":
            words = outcome(rows[-1]) if rows and not self._as_json else "answered"
        else:
            words = f"{_NOT_ANSWERED.get(row.state, 'no answer yet')}: {row.last_error or 'unknown'}"
        others = f" ({len(rows)} decisions)" if len(rows) > 1 else ""
        return self._say(f"{before}{words}{others}")

    @staticmethod
    def _say(text: str) -> None:
        click.echo(plain(text), err=True)


@queue.command("retry", epilog=EXIT_CODES)
@click.argument("rows", nargs=-1)
@click.option("--dead", is_flag=True, help="All dead and expired rows.")
@with_settings()
def queue_retry(config: settings.Settings, rows: tuple[str, ...], dead: bool, as_json: bool) -> None:
    """Make rows ready to send again, with all their attempts and a new time to live.

    ROWS are the numbers that `queue list` shows, or the starts of ids that `log` shows.
    """
    _change(config, "retry", rows, ("dead", "expired") if dead else (), as_json)


@queue.command("drop", epilog=EXIT_CODES)
@click.argument("rows", nargs=-1)
@click.option("--dead", is_flag=True, help="All dead and expired rows.")
@with_settings()
def queue_drop(config: settings.Settings, rows: tuple[str, ...], dead: bool, as_json: bool) -> None:
    """Drop rows: they are never sent, and the device's own answers stay.

    ROWS are the numbers that `queue list` shows, or the starts of ids that `log` shows.
    """
    _change(config, "drop", rows, ("dead", "expired") if dead else (), as_json)


def _change(config: settings.Settings, verb: str, named: tuple[str, ...], states: tuple[str, ...], as_json: bool) -> None:
    """`retry` or `drop` rows, each in a transaction of its own."""
    from edge_agent.cloud.queue import Outbox
    from edge_agent.cloud.queue_row import shown
    from edge_agent.store.find import find_queue_row
    from edge_agent.store.store import Store

    if not named and not states:
        raise click.UsageError("Give the numbers of rows (`edge-agent queue list` shows them), or --dead.")
    with Store(config.database) as store:
        outbox = Outbox(store)
        wanted = [*(find_queue_row(store, one) for one in named), *(row.queue_id for row in outbox.list(*states) if states)]
        change = outbox.retry if verb == "retry" else outbox.drop
        now_s = store.clock.now_s()
        rows = [shown(change(queue_id), store, now_s) for queue_id in dict.fromkeys(wanted)]
    if as_json:
        print_json(rows)
    else:
        echo(f"{len(rows)} {'ready to be sent again' if verb == 'retry' else 'dropped'}.")
        for row in rows:
            echo(fitted(f"{row['queue_id']}: {row['question']}", indent=INDENT))
