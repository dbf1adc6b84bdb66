"""The durable queue of questions that wait for the cloud, in the store's file.

Owns the states of a row and who may drain. Knows nothing of HTTP.

    put ─► ready ─► sending ─┬─► done        answered
             ▲               ├─► ready       to be tried again, at `due_s`
             │               └─► dead        refused for good, or tried too often; kept to be read, retried or dropped
             ├── ready ─► expired            waited longer than its time to live
             └── ready, dead, expired ─► cancelled     dropped by a person

Invariants: a question waits at most once (a unique index says so); a row in an end state has no decision that still waits
for it; only the process that holds the lock file drains, so whoever takes the lock may return rows that a dead drainer left
half-sent. Ages and waits are in device time (`clock.py`), which no wall clock can move.
"""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from edge_agent.cloud.retry import LONGEST_WAIT_S, MAX_SUSPICIONS, treat
from edge_agent.core.errors import BadQuestion, StorageError
from edge_agent.core.files import try_lock
from edge_agent.core.outcome import CloudKind
from edge_agent.core.question import CHOICE, OPEN, Question
from edge_agent.store.device_time import Clock
from edge_agent.store.store import Store

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may wait, and how long: rows, bytes of questions, seconds of device time; dead letters are dropped after `dead_kept_s`."""

    max_rows: int = 10_000
    max_bytes: int = 64 << 20
    ttl_s: float = 7 * DAY_S
    dead_kept_s: float = 30 * DAY_S


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One queued question as it was when it was read; `put_s` and `due_s` are device time, `created_at` is Unix time.

    `payload` is what is to be sent (JSON), `answers_before` the newest stored cloud answer when the question was queued.
    """

    queue_id: int
    state: str
    attempts: int
    last_error: str | None
    created_at: float
    put_s: float
    due_s: float
    fingerprint: str
    dedupe_key: str
    job_key: str
    payload: str | None
    answers_before: int


class Outbox:
    """The queue in `store`. `put`, `settle` and `answer_waiting` run inside the caller's transaction; the others make their own.

    `chance` gives the random part of a backoff, 0 to 1; it and `clock` are replaced in tests.
    """

    def __init__(
        self, store: Store, clock: Clock | None = None, limits: Limits | None = None, chance: Callable[[], float] = random.random
    ) -> None:
        self._store, self.clock, self.limits, self._chance = store, clock or Clock(store), limits or Limits(), chance

    def put(self, question: Question, answer_depends_on: str, error: str | None = None, send: Question | None = None) -> int | None:
        """Queue a question, or join the row that already waits for the same answer; gives the row's id, None when the queue is full.

        `answer_depends_on` is what the answer depends on beside the question; `error` is why the cloud has not answered so
        far; `send` is the question as it is to be sent, if that is not as it was asked. Inside the caller's
        `transaction()`: after its COMMIT the question survives a crash, before it nothing was said.
        """
        self._expire()
        dedupe_key = f"{question.fingerprint}/{answer_depends_on}"
        if waiting := self._store.rows("SELECT id FROM outbox WHERE dedupe_key = ? AND state IN ('ready', 'sending')", (dedupe_key,)):
            return int(waiting[0]["id"])
        payload = _payload(send or question)
        size_bytes = len(payload.encode())
        if not self._has_room(size_bytes):
            return None
        now, now_s = time.time(), self.clock.now_s()
        inserted = self._store.write(
            "INSERT INTO outbox (created_at, updated_at, put_s, due_s, job_key, dedupe_key, fingerprint, last_error, payload, size_bytes, "
            "answers_before, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, (SELECT coalesce(max(id), 0) FROM cloud_answers), 'ready')",
            (now, now, now_s, now_s, str(uuid.uuid4()), dedupe_key, question.fingerprint, error, payload, size_bytes),
        )
        assert inserted.lastrowid is not None
        return inserted.lastrowid

    def list(self, *states: str) -> list[QueueRow]:
        """All rows, or those in these states, oldest first."""
        where = f"WHERE state IN ({', '.join('?' * len(states))})" if states else ""
        return [QueueRow(**row) for row in self._store.rows(f"SELECT {_COLUMNS} FROM outbox {where} ORDER BY id", states)]

    def count(self, *states: str) -> int:
        """How many rows are in these states."""
        return int(self._store.rows(f"SELECT count(*) AS n FROM outbox WHERE state IN ({', '.join('?' * len(states))})", states)[0]["n"])

    def claim(self, after: int = 0, due_only: bool = False, reserve: Callable[[QueueRow], bool] | None = None) -> QueueRow | None:
        """Take the oldest ready row with an id above `after` and mark it sending; None when there is none.

        `reserve` is asked inside the same transaction whether the row may be sent; if not, it stays ready, and None is given.

        With `due_only`, a row whose backoff is not over is left alone; one that would wait longer than any backoff is due.
        Rows that waited too long expire first, and are never sent. One transaction; a crash afterwards leaves the row
        sending until the next drainer takes the lock.
        """
        with self._store.transaction() as db:
            self._expire()
            now_s = self.clock.now_s()
            due = "AND (due_s <= ? OR due_s > ?)" if due_only else ""
            found = db.execute(
                f"SELECT {_COLUMNS} FROM outbox WHERE state = 'ready' AND id > ? {due} ORDER BY id LIMIT 1",
                (after, now_s, now_s + LONGEST_WAIT_S) if due_only else (after,),
            ).fetchone()
            if found is None:
                return None
            row = QueueRow(**dict(found))
            if reserve and not reserve(row):
                return None
            db.execute("UPDATE outbox SET state = 'sending', updated_at = ? WHERE id = ?", (time.time(), row.queue_id))
        return row

    def answer_waiting(self, question: Question, answer_depends_on: str) -> int | None:
        """Mark the ready row of a question done, because it was answered another way; gives its id, if there was one.

        Inside the caller's `transaction()`. A row that is being sent is left to the drainer that holds it.
        """
        found = self._store.write(
            "UPDATE outbox SET state = 'done', last_error = NULL, updated_at = ? WHERE dedupe_key = ? AND state = 'ready' RETURNING id",
            (time.time(), f"{question.fingerprint}/{answer_depends_on}"),
        ).fetchone()
        return int(found["id"]) if found else None

    def cancel_waiting(self, question: Question, answer_depends_on: str) -> None:
        """Give up the ready row of a question that must not be sent any more, erase what was to be sent, and abandon its decisions.

        Inside the caller's `transaction()`.
        """
        for row in self._store.write(
            "UPDATE outbox SET state = 'cancelled', payload = NULL, last_error = 'never_send', updated_at = ? "
            "WHERE dedupe_key = ? AND state = 'ready' RETURNING id",
            (time.time(), f"{question.fingerprint}/{answer_depends_on}"),
        ).fetchall():
            self._store.abandon_provisional(row["id"])

    def settle(self, row: QueueRow) -> None:
        """Mark a claimed row done; inside the caller's `transaction()`, which also stores the answer."""
        self._store.write(
            "UPDATE outbox SET state = 'done', attempts = attempts + 1, last_error = NULL, updated_at = ? "
            "WHERE id = ? AND state = 'sending'",
            (time.time(), row.queue_id),
        )

    def fail(self, row: QueueRow, kind: CloudKind, error: str) -> str:
        """Give a claimed row back, or bury it, as `delivery.treat` says; gives its new state. One transaction.

        A try before its time, which a person asked for, costs no attempt unless it is final.
        """
        treatment = treat(kind, row.attempts, self._chance())
        now_s = self.clock.now_s()
        dead = treatment.state == "dead"
        early = row.due_s > now_s and kind not in (CloudKind.REJECTED, CloudKind.UNUSABLE)
        with self._store.transaction():
            if early:
                self._move(row.queue_id, "ready", error)
                return "ready"
            self._store.write(
                "UPDATE outbox SET attempts = attempts + ?, due_s = ? WHERE id = ? AND state = 'sending'",
                (int(treatment.costs_attempt), now_s + treatment.wait_s, row.queue_id),
            )
            self._move(row.queue_id, treatment.state, error)
            if dead:
                self._store.abandon_provisional(row.queue_id)
        return treatment.state

    def suspect(self, queue_id: int) -> bool:
        """Count that a question got a strange page while others got answers; True if that was once too often, and it is dead.

        One transaction.
        """
        with self._store.transaction() as db:
            db.execute("UPDATE outbox SET suspicions = suspicions + 1 WHERE id = ? AND state = 'ready'", (queue_id,))
            found = db.execute(
                "UPDATE outbox SET state = 'dead', updated_at = ? WHERE id = ? AND state = 'ready' AND suspicions >= ? RETURNING id",
                (time.time(), queue_id, MAX_SUSPICIONS),
            ).fetchone()
            if found:
                self._store.abandon_provisional(queue_id)
        return found is not None

    def cancel_sending(self, row: QueueRow, error: str) -> None:
        """End a claimed row that must not be sent after all. One transaction."""
        with self._store.transaction():
            self._store.write("UPDATE outbox SET payload = NULL WHERE id = ?", (row.queue_id,))
            self._move(row.queue_id, "cancelled", error)
            self._store.abandon_provisional(row.queue_id)

    def retry(self, queue_id: int) -> QueueRow:
        """Let a row be tried again at once, with all its attempts and a new time to live. One transaction.

        Raises `BadQuestion` if there is no such row, it was answered, is being sent, or another row waits for its answer.
        """
        with self._store.transaction():
            row = self._row(queue_id)
            if row.state in ("done", "sending"):
                raise BadQuestion(
                    f"Queue row {queue_id} {'was answered' if row.state == 'done' else 'is being sent'}; nothing is to be retried."
                )
            twin = self._store.rows(
                "SELECT id FROM outbox WHERE dedupe_key = ? AND state IN ('ready', 'sending') AND id <> ?", (row.dedupe_key, queue_id)
            )
            if twin:
                raise BadQuestion(
                    f"The question of queue row {queue_id} waits already, as number {twin[0]['id']}; nothing is to be retried."
                )
            now_s = self.clock.now_s()
            self._store.write(
                "UPDATE outbox SET state = 'ready', attempts = 0, suspicions = 0, put_s = ?, due_s = ?, updated_at = ? WHERE id = ?",
                (now_s, now_s, time.time(), queue_id),
            )
            self._store.reopen_provisional(queue_id)
            return self._row(queue_id)

    def drop(self, queue_id: int) -> QueueRow:
        """Give up a row: it is cancelled, what was to be sent is erased, and its decisions are abandoned. One transaction.

        Raises `BadQuestion` if there is no such row, it was answered, or is being sent.
        """
        with self._store.transaction():
            row = self._row(queue_id)
            if row.state in ("done", "sending"):
                raise BadQuestion(
                    f"Queue row {queue_id} {'was answered' if row.state == 'done' else 'is being sent'}; it cannot be dropped."
                )
            self._store.write("UPDATE outbox SET payload = NULL WHERE id = ?", (queue_id,))
            self._move(queue_id, "cancelled", row.last_error, was=row.state)
            self._store.abandon_provisional(queue_id)
            return self._row(queue_id)

    def next_due_in_s(self) -> float | None:
        """Seconds until some ready row is due, 0 if one is; None if none is ready."""
        found = self._store.rows("SELECT min(due_s) AS due_s FROM outbox WHERE state = 'ready'")[0]["due_s"]
        return None if found is None else min(LONGEST_WAIT_S, max(0.0, found - self.clock.now_s()))

    @contextmanager
    def drainer(self) -> Iterator[None]:
        """Be the only drainer of this file, or raise `StorageError`; half-sent rows of a dead one become ready.

        The lock is a file of its own that the operating system frees when the process ends: no leases, no clocks.
        """
        path = self._store.path.with_name(self._store.path.name + ".drain-lock")
        try:
            handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise StorageError(f"The lock file '{path}' cannot be opened ({error.strerror}); check who owns it.") from error
        try:
            if not try_lock(handle):
                raise StorageError("Another process is draining the queue; wait until it is done.")
            with self._store.transaction() as db:
                db.execute("UPDATE outbox SET state = 'ready', last_error = 'interrupted' WHERE state = 'sending'")
                self._drop_old_dead()
            yield
        finally:
            os.close(handle)

    def _move(self, queue_id: int, state: str, error: str | None, was: str = "sending") -> None:
        self._store.write(
            "UPDATE outbox SET state = ?, last_error = ?, updated_at = ? WHERE id = ? AND state = ?",
            (state, error, time.time(), queue_id, was),
        )

    def _expire(self) -> None:
        """Inside a transaction: end the rows that waited longer than their time to live."""
        expired = self._store.write(
            "UPDATE outbox SET state = 'expired', updated_at = ? WHERE state = 'ready' AND put_s < ? RETURNING id",
            (time.time(), self.clock.now_s() - self.limits.ttl_s),
        ).fetchall()
        for row in expired:
            self._store.abandon_provisional(row["id"])

    def _drop_old_dead(self) -> None:
        """Inside a transaction: cancel dead letters that nobody wanted for a long time (their age counts from when they were put)."""
        self._store.write(
            "UPDATE outbox SET state = 'cancelled', payload = NULL, updated_at = ? WHERE state = 'dead' AND put_s < ?",
            (time.time(), self.clock.now_s() - self.limits.ttl_s - self.limits.dead_kept_s),
        )

    def _has_room(self, size_bytes: int) -> bool:
        found = self._store.rows(
            "SELECT count(*) AS n, coalesce(sum(size_bytes), 0) AS bytes FROM outbox WHERE state IN ('ready', 'sending')"
        )[0]
        return bool(found["n"] < self.limits.max_rows and found["bytes"] + size_bytes <= self.limits.max_bytes)

    def _row(self, queue_id: int) -> QueueRow:
        found = self._store.rows(f"SELECT {_COLUMNS} FROM outbox WHERE id = ?", (queue_id,))
        if not found:
            raise BadQuestion(f"There is no queue row {queue_id}; `edge-agent queue list` shows them.")
        return QueueRow(**found[0])


def question_to_send(row: QueueRow) -> Question | None:
    """The question as it was queued for sending; None for rows of older versions, which kept it elsewhere."""
    if row.payload is None:
        return None
    stem, options = json.loads(row.payload)
    return Question(stem, tuple(options), CHOICE if options else OPEN)


def _payload(question: Question) -> str:
    return json.dumps([question.stem, question.options], ensure_ascii=False)


_COLUMNS = (
    "id AS queue_id, state, attempts, last_error, created_at, put_s, due_s, fingerprint, dedupe_key, job_key, payload, answers_before"
)
