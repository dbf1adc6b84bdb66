"""What is forgotten by itself: questions that nobody has asked for long, and the cloud's least used answers when there are too many.

Owns when and how much at a time; what a person wants forgotten is `keeping`'s. Invariants: what waits for the cloud is never
forgotten; a step is one short transaction and a few pages given back to the disk, never a look through a large file, and
waits for nobody; ages are device time (`clock.py`), so that no jump of the wall clock forgets anything.

An answer that is removed to make room leaves its row behind, without the answer: the decisions that rest on it still name it, and
replay knows that it is gone.

What is deleted is overwritten where it stands (PRAGMA secure_delete). But when SQLite moves rows between pages, it leaves their
old bytes in the unused part of a page, and only writing the file anew removes those: that is done for a small file, where it is
quick, when all has been forgotten that was to be. A larger one keeps such scraps until a person says `edge-agent purge`.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

from edge_agent.core.errors import StorageError
from edge_agent.store.device_time import Clock
from edge_agent.store.store import Store

DAY_S = 86_400.0
EVERY_S = 3600.0
AT_ONCE = 200  # decisions, questions and answers a step
PAGES_AT_ONCE = 256
PACK_BYTES = 8 << 20  # a file of at most so many is written anew
COPIES = (".before-schema-*", ".damaged-*")  # what lies beside a database, with what visitors typed in it
_SWEPT, _SCRAPS = "swept", "scraps"
_COPY = "copy "
WAITS = "EXISTS (SELECT 1 FROM outbox o WHERE o.fingerprint = q.fingerprint AND o.state IN ('ready', 'sending'))"


@dataclass(frozen=True, slots=True)
class Retention:
    """How long a question is kept after it was last asked, None for ever; and how many of the cloud's answers, of what size in all."""

    keep_s: float | None = 90 * DAY_S
    answers_max_rows: int = 100_000
    answers_max_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True)
class Swept:
    """What one step has forgotten, and whether nothing is left to be forgotten for now."""

    questions: int
    decisions: int
    answers: int
    copies: tuple[str, ...]
    finished: bool


def sweep(store: Store, clock: Clock, retention: Retention, at_once: int = AT_ONCE, pack_bytes: int = PACK_BYTES) -> Swept | None:
    """One step, if the last complete sweep was an hour ago; None if it was not.

    One transaction that takes at most `at_once` rows of each kind: a crash leaves the steps before it. To be called where nobody
    waits. Raises `StorageError`, also at once when another process writes: the next call goes on.
    """
    now_s = clock.now_s()
    marks = {row["name"]: row["value"] for row in store.rows("SELECT name, CAST(value AS REAL) AS value FROM marks")}
    if 0 <= now_s - marks.get(_SWEPT, -EVERY_S) < EVERY_S:
        return None
    with store.forgetting(patient=False):
        now_s = clock.now_s()
        n_questions, n_decisions = _forget_old(store, now_s - retention.keep_s, at_once) if retention.keep_s else (0, 0)
        n_answers = _make_room(store, retention, at_once)
        copies = tuple(_old_copies(store, marks, now_s, retention.keep_s)) if retention.keep_s else ()
        finished = max(n_questions, n_decisions, n_answers) < at_once and store.free_pages() <= PAGES_AT_ONCE
        scraps = n_questions + n_decisions + n_answers > 0 or _SCRAPS in marks
        if finished:
            _mark(store, _SWEPT, now_s)
        if scraps:
            _mark(store, _SCRAPS, now_s)
    for name in copies:
        remove_copy(store.path.with_name(name))
    if finished and scraps and store.path.stat().st_size <= pack_bytes:
        store.pack(patient=False)
        with store.forgetting(patient=False):
            store.write("DELETE FROM marks WHERE name = ?", (_SCRAPS,))
    else:
        store.shrink(PAGES_AT_ONCE)
    return Swept(n_questions, n_decisions, n_answers, copies, finished)


def forget(store: Store, fingerprint: str) -> int:
    """Inside a `forgetting()` transaction: delete a question with all that rests on it; gives how many decisions that were."""
    n_decisions = store.write("DELETE FROM decisions WHERE fingerprint = ?", (fingerprint,)).rowcount
    for table in ("outbox", "readings", "cloud_answers", "questions"):
        store.write(f"DELETE FROM {table} WHERE fingerprint = ?", (fingerprint,))
    return n_decisions


def copies_beside(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """The copies of a database that lie beside it: from a change of the schema, or damaged ones."""
    for pattern in COPIES:
        yield from path.parent.glob(path.name + pattern)


def remove_copy(copy: pathlib.Path) -> None:
    """Remove a copy. Raises `StorageError`."""
    try:
        copy.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"The copy '{copy}' cannot be removed ({error.strerror}); remove it by hand.") from error


def _forget_old(store: Store, before_s: float, at_once: int) -> tuple[int, int]:
    """The questions last asked before, the oldest first; of one with very many decisions, as many decisions as a step may take."""
    old = store.rows(f"SELECT fingerprint FROM questions q WHERE asked_s < ? AND NOT {WAITS} ORDER BY asked_s LIMIT ?", (before_s, at_once))
    n_questions = n_decisions = 0
    for row in old:
        n_decisions += store.write(
            "DELETE FROM decisions WHERE rowid IN (SELECT rowid FROM decisions WHERE fingerprint = ? ORDER BY rowid LIMIT ?)",
            (row["fingerprint"], at_once - n_decisions),
        ).rowcount
        if n_decisions >= at_once:
            break
        forget(store, row["fingerprint"])
        n_questions += 1
    return n_questions, n_decisions


def _make_room(store: Store, retention: Retention, at_once: int) -> int:
    """Remove the answers that were not used for longest, while there are too many or they are too large."""
    kept = store.rows("SELECT count(*) AS n, coalesce(sum(size_bytes), 0) AS bytes FROM cloud_answers WHERE size_bytes > 0")[0]
    rows, size_bytes, removed = kept["n"], kept["bytes"], 0
    for row in store.rows(
        "SELECT id, CAST(size_bytes AS INTEGER) AS size_bytes FROM cloud_answers WHERE size_bytes > 0 ORDER BY used_s LIMIT ?", (at_once,)
    ):
        if rows <= retention.answers_max_rows and size_bytes <= retention.answers_max_bytes:
            break
        store.write("UPDATE cloud_answers SET answer = '', size_bytes = 0 WHERE id = ?", (row["id"],))
        rows, size_bytes, removed = rows - 1, size_bytes - row["size_bytes"], removed + 1
    return removed


def _old_copies(store: Store, marks: dict[str, float], now_s: float, keep_s: float) -> Iterator[str]:
    """The names of copies that were first seen so long ago. Which device time a file is from, only looking at it can tell."""
    there = {copy.name for copy in copies_beside(store.path)}
    for name in there:
        if _COPY + name not in marks:
            _mark(store, _COPY + name, now_s)
        elif marks[_COPY + name] < now_s - keep_s:
            yield name
    for gone in marks.keys() - {_COPY + name for name in there}:
        if gone.startswith(_COPY):
            store.write("DELETE FROM marks WHERE name = ?", (gone,))


def _mark(store: Store, name: str, value: float) -> None:
    store.write("INSERT OR REPLACE INTO marks (name, value) VALUES (?, ?)", (name, value))
