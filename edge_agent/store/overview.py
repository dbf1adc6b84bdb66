"""The store in a few numbers and pages, for whoever watches it.

Owns these queries. Reads only. Invariants: the numbers cost index lookups or counts of an index, however long the history is; a page goes
on where the one before it ended, whatever is stored or deleted meanwhile; a search holds the database for `AT_ONCE` decisions at a time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from edge_agent.core.errors import BadQuestion
from edge_agent.store.export import parsed
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


class Page(NamedTuple):
    """Decisions with their questions, newest first; `next` is where the next page goes on, None on the last one."""

    rows: list[dict[str, Any]]
    next: str | None


AT_ONCE, MOST_SEARCHED = 1000, 20_000
_COLUMNS = (
    "d.rowid AS number, d.*, q.stem, q.options, c.answer AS cloud_answer FROM decisions d JOIN questions q USING (fingerprint) "
    "LEFT JOIN cloud_answers c ON c.id = d.cloud_answer_id"
)
KINDS = {
    "kept": "NOT d.deferred",
    "deferred": "d.deferred",
    "cloud": "d.route = 'cloud'",
    "waiting": "d.provisional AND d.ending IS NULL",
    "upheld": "d.ending = 'upheld'",
    "overturned": "d.ending = 'overturned'",
    "abandoned": "d.ending = 'abandoned'",
}
"""What a list of decisions can be narrowed to, by name."""


def decisions_before(
    store: Store, decision_id: str | None, limit: int, kind: str | None = None, text: str = "", most: int = MOST_SEARCHED
) -> Page:
    """A page of decisions: the newest, or those before a decision. Only those of a `kind`, or with `text` in the question or an option.

    A search looks at `most` decisions at most; if there are more, the page may be short or empty and still have a `next`.
    Raises `BadQuestion` if there is no such decision, `StorageError`.
    """
    before = _number_of(store, decision_id) if decision_id is not None else _last_number(store) + 1
    found: list[dict[str, Any]] = []
    searched = before - most if kind or text else 0
    high = before
    while high > max(searched, 1) and len(found) <= limit:
        low = max(high - AT_ONCE, searched, 1) if kind or text else 1
        found += _matching(store, low, high, limit + 1 - len(found), kind, text)
        high = low
    for row in found:
        del row["number"]
    if len(found) > limit:
        return Page(found[:limit], str(found[limit - 1]["decision_id"]))
    rest = store.database.rows("SELECT decision_id FROM decisions WHERE rowid >= ? ORDER BY rowid LIMIT 1", (high,)) if high > 1 else []
    return Page(found, str(rest[0]["decision_id"]) if rest and rest[0]["decision_id"] != decision_id else None)


def _matching(store: Store, low: int, high: int, limit: int, kind: str | None, text: str) -> list[dict[str, Any]]:
    """The newest of the decisions with the numbers from `low` to below `high` that match."""
    where = f"WHERE d.rowid >= ? AND d.rowid < ? AND {KINDS[kind] if kind else 'TRUE'}"
    if not text:
        return store.database.rows(f"SELECT {_COLUMNS} {where} ORDER BY d.rowid DESC LIMIT ?", (low, high, limit))
    sought = text.casefold()  # SQLite's own comparison knows the case of English letters only
    texts = store.database.rows(
        f"SELECT d.rowid AS number, q.stem, q.options FROM decisions d JOIN questions q USING (fingerprint) {where} ORDER BY d.rowid DESC",
        (low, high),
    )
    numbers = [row["number"] for row in texts if sought in f"{row['stem']}\n{_spoken(row['options'])}".casefold()][:limit]
    sql = f"SELECT {_COLUMNS} WHERE d.rowid IN (SELECT value FROM json_each(?)) ORDER BY d.rowid DESC"
    return store.database.rows(sql, (json.dumps(numbers),)) if numbers else []


def _spoken(options: str) -> str:
    """The texts of stored options; as they are if they are damaged."""
    found = parsed(options)
    return "\n".join(map(str, found)) if isinstance(found, list) else str(options)


def _number_of(store: Store, decision_id: str) -> int:
    found = store.database.rows("SELECT rowid AS number FROM decisions WHERE decision_id = ?", (decision_id,))
    if not found:
        raise BadQuestion(f"There is no decision '{decision_id[:64]}' to go on from; begin with the newest again.")
    return int(found[0]["number"])


def _last_number(store: Store) -> int:
    return int(store.database.rows("SELECT coalesce(max(rowid), 0) AS number FROM decisions")[0]["number"])


def number_after(store: Store, n: int) -> int:
    """The number after which the newest `n` decisions come; 0 if there are no more than that. Raises `StorageError`."""
    rows = store.database.rows("SELECT rowid AS number FROM decisions ORDER BY rowid DESC LIMIT 1 OFFSET ?", (n,))
    return int(rows[0]["number"]) if rows else 0


def decision(store: Store, decision_id: str) -> dict[str, Any]:
    """One decision with its question and all that it is based on, as `Store.decisions` returns it. Raises `BadQuestion`, `StorageError`."""
    for row in store.decisions(after=_number_of(store, decision_id) - 1, at_once=1):
        if row["decision_id"] == decision_id:
            return row
        break
    raise BadQuestion(f"The decision '{decision_id[:64]}' was deleted.")


class Storage(NamedTuple):
    """How much is stored: bytes of the file with its log, of which `unused_bytes` are free inside, the rows of each table, and when the
    oldest decision was made (Unix time)."""

    file_bytes: int
    unused_bytes: int
    disk_free_bytes: int
    rows: dict[str, int]
    oldest_at: float | None


def storage(store: Store) -> Storage:
    """What is stored now. Raises `StorageError`."""
    database = store.database
    page_bytes = int(database.rows("PRAGMA page_size")[0]["page_size"])
    unused = int(database.rows("PRAGMA freelist_count")[0]["freelist_count"]) * page_bytes
    sizes = [path.stat().st_size for path in (store.path, store.path.with_name(f"{store.path.name}-wal")) if path.exists()]
    rows = {table: int(database.rows(f"SELECT count(*) AS n FROM {table}")[0]["n"]) for table in TABLES}
    oldest = database.rows("SELECT min(created_at) AS oldest FROM decisions")[0]["oldest"]
    return Storage(sum(sizes), unused, store.free_bytes(), rows, oldest)


TABLES = ("decisions", "questions", "readings", "cloud_answers", "outbox", "audits")
