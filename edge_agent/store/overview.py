"""The store in a few numbers and pages, for whoever watches it.

Owns these queries. Reads only. Invariants: the numbers cost index lookups, however long the history is; a page goes on where
the one before it ended, whatever is stored or deleted meanwhile.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from edge_agent.core.errors import BadQuestion
from edge_agent.store.store import Store


class Queue(NamedTuple):
    """How many questions wait for the cloud, how long the oldest has waited, and how many were given up."""

    waiting: int
    oldest_s: float
    dead: int


def queue(store: Store) -> Queue:
    """The queue now. Raises `StorageError`."""
    row = store.database.rows(
        "SELECT (SELECT count(*) FROM outbox WHERE state IN ('ready', 'sending')) AS waiting, "
        "(SELECT min(put_s) FROM outbox WHERE state = 'ready') AS put_s, (SELECT count(*) FROM outbox WHERE state = 'dead') AS dead"
    )[0]
    oldest_s = 0.0 if row["put_s"] is None else max(0.0, store.clock.now_s() - row["put_s"])
    return Queue(int(row["waiting"]), round(oldest_s, 3), int(row["dead"]))


def queue_states(store: Store) -> Counter[str]:
    """How many rows of the queue are in each state. Reads the whole queue. Raises `StorageError`."""
    return Counter({row["state"]: int(row["n"]) for row in store.database.rows("SELECT state, count(*) AS n FROM outbox GROUP BY state")})


def forgotten(store: Store, ids: Sequence[str]) -> list[str]:
    """Those of these decisions that are not stored, in order: deleted, or never there. Raises `StorageError`."""
    sql = "SELECT decision_id FROM decisions WHERE decision_id IN (SELECT value FROM json_each(?))"
    known = {row["decision_id"] for row in store.database.rows(sql, (json.dumps(list(ids)),))}
    return [one for one in ids if one not in known]


def decisions_before(store: Store, decision_id: str | None, limit: int) -> list[dict[str, Any]]:
    """A page of decisions with their questions, newest first: the newest, or those before a decision.

    Raises `BadQuestion` if there is no such decision, `StorageError`.
    """
    before = None
    if decision_id is not None:
        found = store.database.rows("SELECT rowid AS number FROM decisions WHERE decision_id = ?", (decision_id,))
        if not found:
            raise BadQuestion(f"There is no decision '{decision_id[:64]}' to go on from; begin with the newest again.")
        before = found[0]["number"]
    return store.database.rows(
        "SELECT d.*, q.stem, q.options, c.answer AS cloud_answer FROM decisions d JOIN questions q USING (fingerprint) "
        "LEFT JOIN cloud_answers c ON c.id = d.cloud_answer_id WHERE d.rowid < coalesce(?, 9e18) ORDER BY d.rowid DESC LIMIT ?",
        (before, limit),
    )
