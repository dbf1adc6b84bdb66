"""`edge-agent log`: the last decisions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edge_agent.cli import verbosity
from edge_agent.cli.app import EXIT_CODES, Amount, main, with_settings
from edge_agent.cli.show import ID_SHOWN, INDENT, NO_DECISIONS, echo, fitted, lines_of, outcome, print_json, print_rows, say
from edge_agent.core.config import settings
from edge_agent.core.errors import BadQuestion, StorageBusy
from edge_agent.core.records import option_text
from edge_agent.core.terminal import one_line
from edge_agent.core.times import iso, local

if TYPE_CHECKING:
    from edge_agent.agent.until import Until
    from edge_agent.core.records import Ending

T = TypeVar("T")


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

    The order is that in which they were stored, even if the clock was wrong. With DECISION_ID, show that one: a provisional answer
    ends upheld, overturned or abandoned. DECISION_ID is the start of an id, as the list shows it, or a number of the queue. If the
    decision still waits when --wait is over, the exit code is 69. While another program keeps the database locked, --wait and
    --follow wait for it, too.

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
    from edge_agent.store import live
    from edge_agent.store.export import as_logged, parsed
    from edge_agent.store.store import Store

    with Store(config.database) as store:
        rows = [{**row, "options": parsed(row["options"])} for row in store.log(limit)]
        found = live.newest(store)
    print_rows(rows, as_json, as_logged, _for_people, ("id", "asked", "answer", "sure", "state", "question"), NO_DECISIONS)
    if found and found.fell:
        verbosity.note(f"{found.sentence[:1].upper()}{found.sentence[1:]}.")


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    final = f" → {option_text(row, row['final_answer'])}" if row["ending"] == "overturned" else ""
    return {
        "id": row["decision_id"][:ID_SHOWN],
        "asked": local(row["created_at"]),
        "answer": option_text(row, row["answer"]) + final,
        "sure": "" if row["score"] is None or row["cause"] == "no_confidence" else f"{row['score']:.0%}",
        "state": row["ending"] or ("waiting" if row["provisional"] else "cloud" if row["route"] == "cloud" else "device"),
        "question": row["stem"],
    }


def _show_ending(config: settings.Settings, named: str, wait_s: float | None, as_json: bool) -> None:
    """The state of one decision, once it ended or the wait is over."""
    from edge_agent.agent.endings import wait
    from edge_agent.agent.until import Until
    from edge_agent.store.find import decided, find_decision
    from edge_agent.store.store import Store

    until = Until(timeout_s=wait_s or 0.0)
    once_free = _OnceFree(until)
    with once_free(lambda: Store(config.database)) as store:
        decision_id = once_free(lambda: find_decision(store, named))
        found = once_free(lambda: wait(store, decision_id, until))
        row = once_free(lambda: decided(store, decision_id))
    if as_json:
        print_json(_fields(found, row))
    else:
        _print_one(row)
    if found.waits and wait_s is not None:
        click.get_current_context().exit(69)


class _OnceFree:
    """Makes calls that need the database, and makes one again while another process holds its lock; says once that it waits.

    When the time of `until` is up, a call raises `StorageBusy`.
    """

    def __init__(self, until: Until) -> None:
        self._until, self._said = until, False

    def __call__(self, call: Callable[[], T]) -> T:
        """The result of the call."""
        from edge_agent.agent.endings import POLL_EVERY_S

        while True:
            try:
                return call()
            except StorageBusy:
                if self._until.over:
                    raise
            if not self._said:
                verbosity.note("waiting: another program keeps the database locked")
                self._said = True
            self._until.sleep(POLL_EVERY_S)


def _print_one(row: dict[str, Any]) -> None:
    """One decision, for a person."""
    for line in lines_of(one_line(row["stem"])):
        echo(click.style(line, bold=True))
    from edge_agent.store.export import cloud_confidence

    ended = f" ({at})" if (at := local(row["ended_at"])) else ""
    source = "answered by the cloud" if row["route"] == "cloud" else "answered by this device"
    own = f"{row['score']:.0%}" if row["score"] is not None and row["cause"] != "no_confidence" else ""
    sure = f", {own} sure" if own else ""
    if row["route"] == "cloud" and (confidence := cloud_confidence(row)) is not None:
        sure = f", {confidence:.0%} sure" + (f" (this device {own})" if own else "")
    for name, text in (
        ("state", outcome(row) + ended),
        ("asked", f"{local(row['created_at']) or 'at an unknown time'}, {source}{sure}; reason: {row['reason']}"),
        ("queued", f"as number {row['queue_id']}" if row["queue_id"] is not None else ""),
        ("id", row["decision_id"]),
    ):
        if text:
            say(f"{INDENT}{name:<8}{text}", 11)


def _follow(config: settings.Settings, after: int | None, as_json: bool) -> None:
    """Each ending as it comes."""
    from edge_agent.agent.endings import endings
    from edge_agent.agent.until import Until
    from edge_agent.store.find import decided
    from edge_agent.store.store import Store

    once_free = _OnceFree(Until())
    with once_free(lambda: Store(config.database)) as store:
        for found in once_free(lambda: endings(store, after)):
            try:
                row = once_free(partial(decided, store, found.decision_id))
            except BadQuestion:
                continue  # purged since
            if as_json:
                print_json(_fields(found, row), line=True)
            else:
                echo(fitted(str(found.number), local(found.ended_at), outcome(row), row["stem"]))


def _fields(found: Ending, row: dict[str, Any]) -> dict[str, Any]:
    from dataclasses import asdict

    from edge_agent.store.export import answer_texts, cloud_confidence

    times = {"created_at": iso(found.created_at), "ended_at": iso(found.ended_at)}
    more = {"queue_id": row["queue_id"], "cloud_confidence": cloud_confidence(row)}
    return {**asdict(found), **times, "question": row["stem"], **answer_texts(row), **more}
