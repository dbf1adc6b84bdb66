"""Finds what a person names: a number of the queue, or the start of a decision's id.

Reads only. Invariants: what fits several decisions is refused and never guessed; digits are a number of the queue, and name an id
only if they are at least as many as the list of decisions shows, and are no row of the queue.
"""

from __future__ import annotations

from typing import Any

from edge_agent.core.errors import BadQuestion
from edge_agent.store.export import parsed
from edge_agent.store.store import Store

_SHOWN = 5
_LEAST_LETTERS = 4  # the shortest start of an id: fewer characters fit an unrelated decision too easily
_LEAST_DIGITS = 8  # digits alone may be a mistyped number of the queue; the list of decisions shows 8 characters
_LAST = "\U0010ffff"  # sorts after every character of an id
_MOST_DIGITS = 18  # a longer number is no row: SQLite counts in 64 bits


def find_decision(store: Store, named: str) -> str:
    """The id of the decision that a queue number or the start of an id names; the newest decision of a queue row.

    Raises `BadQuestion` if there is none, several ids start like this, or the start is too short.
    """
    _check(named)
    if rows := _of_queue_row(store, named):
        return str(rows[0]["decision_id"])
    _check_start(store, named)
    found = [row["decision_id"] for row in _starting_with(store, named)]
    if not found:
        raise BadQuestion(f"There is no decision '{named[:64]}'; `edge-agent log` shows the ids, and `edge-agent queue list` the numbers.")
    if len(found) > 1 and named not in found:
        more = ", ..." if len(found) > _SHOWN else ""
        raise BadQuestion(f"Several decisions start with '{named}': {', '.join(found[:_SHOWN])}{more}; give more of the id.")
    return str(found[0])


def find_queue_row(store: Store, named: str) -> int:
    """The queue number that a number, or the start of a decision's id, names. Raises `BadQuestion` if it names none."""
    _check(named)
    if _is_number(named) and _is_row(store, named):
        return int(named)
    decision_id = find_decision(store, named)
    queue_id = decided(store, decision_id)["queue_id"]
    if queue_id is None:
        raise BadQuestion(f"The decision '{decision_id}' was never queued; `edge-agent queue list --all` shows the rows.")
    return int(queue_id)


def decided(store: Store, decision_id: str) -> dict[str, Any]:
    """A decision with its question's `stem` and `options` (a list), and its `cloud_answer`. Raises `BadQuestion` if it was deleted."""
    sql = (
        "SELECT d.*, q.stem, q.options, c.answer AS cloud_answer FROM decisions d JOIN questions q USING (fingerprint) "
        "LEFT JOIN cloud_answers c ON c.id = d.cloud_answer_id WHERE decision_id = ?"
    )
    if not (rows := store.database.rows(sql, (decision_id,))):
        raise BadQuestion(f"The decision '{decision_id}' was deleted.")
    return {**rows[0], "options": parsed(rows[0]["options"])}


def decisions_of(store: Store, queue_id: int) -> list[dict[str, Any]]:
    """The provisional decisions that wait or waited for a queue row, oldest first, each like `decided`."""
    sql = "SELECT decision_id FROM decisions WHERE queue_id = ? AND provisional ORDER BY rowid"
    return [decided(store, row["decision_id"]) for row in store.database.rows(sql, (queue_id,))]


def _of_queue_row(store: Store, named: str) -> list[dict[str, Any]]:
    sql = "SELECT decision_id FROM decisions WHERE queue_id = ? ORDER BY rowid DESC LIMIT 1"
    return store.database.rows(sql, (int(named),)) if _is_number(named) else []


def _is_row(store: Store, named: str) -> bool:
    return bool(store.database.rows("SELECT 1 FROM outbox WHERE id = ?", (int(named),)))


def _starting_with(store: Store, named: str) -> list[dict[str, Any]]:
    start = named.lower()
    sql = "SELECT decision_id FROM decisions WHERE decision_id >= ? AND decision_id < ? ORDER BY decision_id LIMIT ?"
    return store.database.rows(sql, (start, start + _LAST, _SHOWN + 1))


def _check_start(store: Store, named: str) -> None:
    """Refuse what is no row of the queue and too short for the start of an id. Raises `BadQuestion`."""
    if named.isascii() and named.isdigit():
        if len(named) < _LEAST_DIGITS or not _starting_with(store, named):
            raise BadQuestion(f"There is no queue row {named[:64]}; `edge-agent queue list --all` shows the rows.")
    elif len(named) < _LEAST_LETTERS and _starting_with(store, named):
        raise BadQuestion(f"'{named}' is too short for the start of an id; give at least {_LEAST_LETTERS} characters of it.")


def _is_number(named: str) -> bool:
    return named.isascii() and named.isdigit() and len(named) <= _MOST_DIGITS


def _check(named: str) -> None:
    try:
        named.encode()
    except UnicodeEncodeError as error:
        raise BadQuestion(f"The id {named!r:.80} is not UTF-8; `edge-agent log` shows the ids.") from error
    if not named.strip():
        raise BadQuestion("The id is empty; `edge-agent log` shows the ids.")
