"""Forgetting: a little at a time on its own, and at once when a person asks for it.

Owns when and how much. Invariants: a question that waits for the cloud is never forgotten by age; a step of the sweep is one
short transaction, returns only a few pages to the disk, never scans a large file, and never waits for another process; ages
are device time (`device_time.py`), so a jump of the wall clock forgets nothing; what was purged is in none of our files.

An answer that is removed to make room keeps its row, without the answer: decisions still refer to it, and replay knows that
it is gone. An audit goes with its question. What stays of it is one bit in `agreements`, whether the cloud gave the same answer,
without question, answer or time: if results left the test of agreement, its limit on false alarms would no longer hold.

Deleted bytes are overwritten in place (PRAGMA secure_delete). But when SQLite moves rows between pages, their old bytes stay
in the unused part of a page, and only rewriting the file removes them. The sweep rewrites a small file, where it is quick,
once everything old is forgotten. A larger file keeps such scraps until a person runs `edge-agent purge`. An SD card may keep
old blocks of its own; only an encrypted disk helps against that.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

from edge_agent.core.config.limits import Retention
from edge_agent.core.errors import BadQuestion, StorageError
from edge_agent.core.files import sweep_leftovers
from edge_agent.store.file.replacement import BESIDE
from edge_agent.store.file.salvage import READ, is_waiting_elsewhere
from edge_agent.store.store import Store

EVERY_S = 3600.0
PREVIEWED = 5  # questions that a preview names
AT_ONCE = 200  # decisions, questions and answers per step
PAGES_AT_ONCE = 256
PACK_BYTES = 8 << 20  # a file of at most this size is rewritten
COPIES = (".before-schema-*", ".damaged-*", ".replaced-*")  # copies beside a database; they hold what visitors typed
_SWEPT, _SCRAPS = "swept", "scraps"
_COPY = "copy "
_WAITS = "EXISTS (SELECT 1 FROM outbox o WHERE o.fingerprint = q.fingerprint AND o.state IN ('ready', 'sending'))"


@dataclass(frozen=True, slots=True)
class Swept:
    """What one step forgot; `finished` means that nothing is left to forget for now."""

    questions: int
    decisions: int
    answers: int
    copies: tuple[str, ...]
    finished: bool


@dataclass(frozen=True, slots=True)
class Purged:
    """What was forgotten: questions with everything that refers to them, and the names of removed copies.

    `kept` are copies that stay: each holds questions that wait for the cloud and are in no other file.
    """

    questions: int
    decisions: int
    copies: tuple[str, ...]
    kept: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Preview:
    """What `purge` would forget: how many questions and decisions, how many of the questions wait for the cloud, when their first
    and last decision was made (Unix times), the texts of the `first` questions, and the names of copies.
    """

    questions: int
    decisions: int
    waiting: int
    oldest: float | None
    newest: float | None
    first: tuple[str, ...]
    copies: tuple[str, ...]


def sweep(store: Store, retention: Retention, at_once: int = AT_ONCE, pack_bytes: int = PACK_BYTES) -> Swept | None:
    """One step of forgetting, if the last complete sweep was at least an hour ago; otherwise None.

    One transaction of at most `at_once` rows of each kind: a crash leaves the earlier steps done. Call it when no person
    waits. Raises `StorageError`, at once while another process writes; the next call continues.
    """
    database, now_s = store.database, store.clock.now_s()
    marks = {row["name"]: row["value"] for row in database.rows("SELECT name, CAST(value AS REAL) AS value FROM marks")}
    if 0 <= now_s - marks.get(_SWEPT, -EVERY_S) < EVERY_S:
        return None
    with database.forgetting(wait=False):
        store.clock.keep()
        now_s = store.clock.now_s()
        n_questions, n_decisions = _forget_old(store, now_s - retention.keep_s, at_once) if retention.keep_s else (0, 0)
        n_answers = _make_room(store, retention, at_once)
        copies = tuple(_old_copies(store, marks, now_s, retention.keep_s)) if retention.keep_s else ()
        finished = max(n_questions, n_decisions, n_answers) < at_once and database.free_pages() <= PAGES_AT_ONCE
        scraps = n_questions + n_decisions + n_answers > 0 or _SCRAPS in marks
        if finished:
            _mark(store, _SWEPT, now_s)
        if scraps:
            _mark(store, _SCRAPS, now_s)
    for name in copies:
        _remove_copy(store.path.with_name(name))
    sweep_leftovers(store.path.parent)
    if finished and scraps and store.path.stat().st_size <= pack_bytes:
        database.pack(wait=False)
        with database.forgetting(wait=False):
            database.write("DELETE FROM marks WHERE name = ?", (_SCRAPS,))
    else:
        database.shrink(PAGES_AT_ONCE)
    return Swept(n_questions, n_decisions, n_answers, copies, finished)


def purge(store: Store, older_than_s: float | None = None, stem: str | None = None, fingerprint: str | None = None) -> Purged:
    """Forget questions and everything that refers to them: those last asked longer ago (device time), those with this text, or one.

    By age, a question that waits for the cloud is kept; by text, it is forgotten too. One transaction, then the file is
    packed and its copies are removed, unless one is the only file in which a question waits.
    A crash before COMMIT leaves everything; after it, the freed pages are already overwritten.
    Raises `BadQuestion` if there is no such question or it is being sent, `StorageError`.
    """
    database = store.database
    kept = [copy for copy in copies_beside(store.path) if _is_only_copy(store, copy)]
    with database.forgetting():
        store.clock.keep()
        fingerprints = _chosen(store, older_than_s, stem, fingerprint)
        n_decisions = sum(_forget(store, fingerprint) for fingerprint in fingerprints)
    database.pack()
    sweep_leftovers(store.path.parent)
    copies = [copy for copy in copies_beside(store.path) if not any(copy.name.startswith(one.name) for one in kept)]
    for copy in copies:
        _remove_copy(copy)
    return Purged(len(fingerprints), n_decisions, tuple(copy.name for copy in copies), tuple(copy.name for copy in kept))


def _is_only_copy(store: Store, copy: pathlib.Path) -> bool:
    """Whether questions wait in a copy that were never in the database's queue; not if everything readable in it was saved."""
    if copy.name.endswith(BESIDE) or store.database.rows("SELECT 1 FROM marks WHERE name = ?", (READ + copy.name,)):
        return False
    here = {row["job_key"] for row in store.database.rows("SELECT job_key FROM outbox")}
    return is_waiting_elsewhere(copy, here)


def preview(store: Store, older_than_s: float | None = None, stem: str | None = None, fingerprint: str | None = None) -> Preview:
    """What `purge` would forget now. Reads only. Raises as `purge`."""
    chosen = json.dumps(_chosen(store, older_than_s, stem, fingerprint))
    where = "WHERE fingerprint IN (SELECT value FROM json_each(?))"
    found = store.database.rows(
        f"SELECT count(*) AS n, min(created_at) AS oldest, max(created_at) AS newest FROM decisions {where}", (chosen,)
    )[0]
    n_waiting = store.database.rows(f"SELECT count(*) AS n FROM outbox {where} AND state IN ('ready', 'sending')", (chosen,))[0]["n"]
    first = store.database.rows(f"SELECT stem FROM questions {where} ORDER BY asked_s, rowid LIMIT ?", (chosen, PREVIEWED))
    return Preview(
        len(json.loads(chosen)), found["n"], n_waiting, found["oldest"], found["newest"],
        tuple(row["stem"] for row in first), tuple(copy.name for copy in copies_beside(store.path)),
    )  # fmt: skip


def _chosen(store: Store, older_than_s: float | None, stem: str | None, fingerprint: str | None) -> list[str]:
    """The questions that a person asks to forget. Raises `BadQuestion` if there is none of this text, or one is being sent."""
    rows = store.database.rows
    if older_than_s is not None:
        before_s = store.clock.now_s() - older_than_s
        return [row["fingerprint"] for row in rows(f"SELECT fingerprint FROM questions q WHERE asked_s <= ? AND NOT {_WAITS}", (before_s,))]
    if stem is not None:
        fingerprints = [row["fingerprint"] for row in rows("SELECT fingerprint FROM questions WHERE stem = ?", (stem.strip(),))]
        if not fingerprints:
            raise BadQuestion("No stored question has exactly this text; `edge-agent export` prints all of them.")
    else:
        assert fingerprint is not None
        fingerprints = [fingerprint]
    if any(_is_sending(store, one) for one in fingerprints):
        raise BadQuestion("The question is being sent to the cloud; try again when that is done.")
    return fingerprints


def copies_beside(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """The copies of a database beside it: from before a migration or a restore, or damaged ones."""
    for pattern in COPIES:
        yield from path.parent.glob(path.name + pattern)


def _is_sending(store: Store, fingerprint: str) -> bool:
    return bool(store.database.rows("SELECT 1 FROM outbox WHERE state = 'sending' AND fingerprint = ?", (fingerprint,)))


def _forget(store: Store, fingerprint: str) -> int:
    """Inside a `forgetting()` transaction: delete a question and everything that refers to it; returns the number of decisions."""
    store.database.write("DELETE FROM audits WHERE fingerprint = ?", (fingerprint,))  # they refer to decisions
    n_decisions = store.database.write("DELETE FROM decisions WHERE fingerprint = ?", (fingerprint,)).rowcount
    for table in ("outbox", "readings", "cloud_answers", "questions"):
        store.database.write(f"DELETE FROM {table} WHERE fingerprint = ?", (fingerprint,))
    return n_decisions


def _remove_copy(copy: pathlib.Path) -> None:
    """Remove a copy. Raises `StorageError`."""
    try:
        copy.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"The copy '{copy}' cannot be removed ({error.strerror}); remove it by hand.") from error


def _forget_old(store: Store, before_s: float, at_once: int) -> tuple[int, int]:
    """Forget the questions last asked before `before_s`, oldest first; one with very many decisions takes several steps."""
    database = store.database
    old = database.rows(
        f"SELECT fingerprint FROM questions q WHERE asked_s < ? AND NOT {_WAITS} ORDER BY asked_s LIMIT ?", (before_s, at_once)
    )
    n_questions = n_decisions = 0
    for row in old:
        database.write("DELETE FROM audits WHERE fingerprint = ?", (row["fingerprint"],))
        n_decisions += database.write(
            "DELETE FROM decisions WHERE rowid IN (SELECT rowid FROM decisions WHERE fingerprint = ? ORDER BY rowid LIMIT ?)",
            (row["fingerprint"], at_once - n_decisions),
        ).rowcount
        if n_decisions >= at_once:
            break
        _forget(store, row["fingerprint"])
        n_questions += 1
    return n_questions, n_decisions


def _make_room(store: Store, retention: Retention, at_once: int) -> int:
    """Remove the least recently used answers while they are too many or too large in total."""
    database = store.database
    kept = database.rows("SELECT count(*) AS n, coalesce(sum(size_bytes), 0) AS bytes FROM cloud_answers WHERE size_bytes > 0")[0]
    rows, size_bytes, removed = kept["n"], kept["bytes"], 0
    for row in database.rows(
        "SELECT id, CAST(size_bytes AS INTEGER) AS size_bytes FROM cloud_answers WHERE size_bytes > 0 ORDER BY used_s LIMIT ?", (at_once,)
    ):
        if rows <= retention.answers_max_rows and size_bytes <= retention.answers_max_bytes:
            break
        database.write("UPDATE cloud_answers SET answer = '', size_bytes = 0 WHERE id = ?", (row["id"],))
        rows, size_bytes, removed = rows - 1, size_bytes - row["size_bytes"], removed + 1
    return removed


def _old_copies(store: Store, marks: dict[str, float], now_s: float, keep_s: float) -> Iterator[str]:
    """The names of copies first seen more than `keep_s` ago. A file's own date is wall time, so it does not count."""
    there = {copy.name for copy in copies_beside(store.path)}
    for name in there:
        if _COPY + name not in marks:
            _mark(store, _COPY + name, now_s)
        elif marks[_COPY + name] < now_s - keep_s:
            yield name
    for gone in marks.keys() - {_COPY + name for name in there}:
        if gone.startswith(_COPY):
            store.database.write("DELETE FROM marks WHERE name = ?", (gone,))


def _mark(store: Store, name: str, value: float) -> None:
    store.database.write("INSERT OR REPLACE INTO marks (name, value) VALUES (?, ?)", (name, value))
