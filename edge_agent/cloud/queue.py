"""The durable queue of questions that wait for the cloud, in the store's file.

Owns the states of a row, its SQL, and which process may drain the queue (and send `audits`). Knows nothing of HTTP.

    put ─► ready ─► sending ─┬─► done        answered
             ▲               ├─► ready       will be tried again, at `due_s`
             │               ├─► dead        rejected, or tried too often; kept to be read, retried or dropped
             │               └─► cancelled   not answered, and meanwhile forbidden to be sent
             ├── ready ─► expired            waited longer than the time to live
             └── ready, dead, expired ─► cancelled     dropped by a person

A row whose failure may be the fault of the whole cloud stays sending until the drainer knows; no verdict is stored before that.

Invariants: a question waits at most once (a unique index ensures it); no decision waits for a row in an end state; only the
process that holds the lock file drains, so a new holder of the lock may return the half-sent rows of a dead drainer to ready.
Ages and waits are device time (`store/device_time.py`), which a change of the wall clock does not affect.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator

from edge_agent.cloud.queue_row import COLUMNS, QueueRow, payload
from edge_agent.cloud.retry import LONGEST_WAIT_S, MAX_SUSPICIONS, PORTAL_PAGE, RELEASED_WAIT_S, treat
from edge_agent.core.config.limits import QueueLimits
from edge_agent.core.config.settings import DEFAULT_LIMITS
from edge_agent.core.errors import BadQuestion, StorageError
from edge_agent.core.files import try_lock, unlock
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question
from edge_agent.core.records import CloudKey
from edge_agent.store.store import Store


class Outbox:
    """The queue in `store`. `put`, `answer_waiting` and `cancel_waiting` run inside the caller's transaction; the others start their own.

    `chance` returns the random part of a backoff, 0 to 1; tests replace it.
    """

    def __init__(self, store: Store, limits: QueueLimits = DEFAULT_LIMITS.queue, chance: Callable[[], float] = random.random) -> None:
        self.store, self.limits, self._chance = store, limits, chance
        self._database, self._clock = store.database, store.clock

    def put(self, question: Question, error: str | None = None, send: Question | None = None) -> int | None:
        """Queue a question, or join the row that already waits for it. Returns the row's id; None if the queue is full.

        `error` is why the cloud has not answered so far; `send` is the question as it will be sent, if it differs from the
        question as asked. Runs inside the caller's `transaction()`: after COMMIT the question survives a crash, before it there
        is no promise.
        """
        self._clock.keep()
        self._expire()
        if waiting := self._database.rows(
            "SELECT id FROM outbox WHERE dedupe_key = ? AND state IN ('ready', 'sending')", (self._dedupe_key(question),)
        ):
            queue_id = int(waiting[0]["id"])
            self._database.write("UPDATE outbox SET last_error = nullif(last_error, ?) WHERE id = ?", (_FORBIDDEN, queue_id))
            return queue_id
        text = payload(send or question)
        size_bytes = len(text.encode())
        if not self._has_room(size_bytes):
            return None
        now, now_s = time.time(), self._clock.now_s()
        inserted = self._database.write(
            "INSERT INTO outbox (created_at, updated_at, put_s, due_s, job_key, dedupe_key, fingerprint, last_error, payload, size_bytes, "
            "answers_before, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, (SELECT coalesce(max(id), 0) FROM cloud_answers), 'ready')",
            (now, now, now_s, now_s, str(uuid.uuid4()), self._dedupe_key(question), question.fingerprint, error, text, size_bytes),
        )
        assert inserted.lastrowid is not None
        return inserted.lastrowid

    def list(self, *states: str, after: int = 0, limit: int = -1) -> list[QueueRow]:
        """All rows, or those in these states, oldest first; at most `limit` of those with an id above `after`."""
        where = f"AND state IN ({', '.join('?' * len(states))})" if states else ""
        sql = f"SELECT {COLUMNS} FROM outbox WHERE id > ? {where} ORDER BY id LIMIT ?"
        return [QueueRow(**row) for row in self._database.rows(sql, (after, *states, limit))]

    def row(self, queue_id: int) -> QueueRow:
        """One row. Raises `BadQuestion` if there is none with this number."""
        return self._row(queue_id)

    def count(self, *states: str) -> int:
        """How many rows are in these states."""
        sql = f"SELECT count(*) AS n FROM outbox WHERE state IN ({', '.join('?' * len(states))})"
        return int(self._database.rows(sql, states)[0]["n"])

    def ready(self, after: int = 0, due_only: bool = False) -> tuple[int, ...]:
        """The ids of the ready rows with an id above `after`, those that are due longest first; `due_only` as for `claim`.

        A row that was tried in vain is due later, so it stands behind the others.
        """
        due, parameters = self._due(due_only)
        sql = f"SELECT id FROM outbox WHERE state = 'ready' AND id > ? {due} ORDER BY due_s, id"
        return tuple(int(row["id"]) for row in self._database.rows(sql, (after, *parameters)))

    def claim(
        self, queue_id: int | None = None, due_only: bool = False, allowed: Callable[[QueueRow], bool] = lambda row: True
    ) -> QueueRow | None:
        """Mark a ready row as sending, this one or the oldest, and return it; None if there is none.

        `allowed` says, inside the same transaction, whether the row may be sent; if not, the row is returned still ready.

        With `due_only`, a row whose backoff is not over is skipped; a row that would wait longer than the longest backoff is due.
        Rows that waited too long expire first and are never sent. One transaction; after a crash the row stays sending until the
        next drainer takes the lock.
        """
        with self.store.transaction() as db:
            self._clock.keep()
            self._expire()
            due, parameters = self._due(due_only)
            found = db.execute(
                f"SELECT {COLUMNS} FROM outbox WHERE state = 'ready' AND id = coalesce(?, id) {due} ORDER BY id LIMIT 1",
                (queue_id, *parameters),
            ).fetchone()
            if found is None:
                return None
            row = QueueRow(**dict(found))
            if not allowed(row):
                return row
            db.execute(
                "UPDATE outbox SET state = 'sending', last_error = nullif(last_error, ?), updated_at = ? WHERE id = ?",
                (_FORBIDDEN, time.time(), row.queue_id),  # from now on this text is a mark
            )
            return QueueRow(**{**dict(found), "state": "sending"})

    def answer_waiting(self, question: Question) -> int | None:
        """Mark the ready row of a question done, because it was answered another way. Returns its id; None if there was no such row.

        Runs inside the caller's `transaction()`. Does not touch a row that is being sent: its drainer will end it.
        """
        found = self._database.write(
            "UPDATE outbox SET state = 'done', last_error = NULL, updated_at = ? WHERE dedupe_key = ? AND state = 'ready' RETURNING id",
            (time.time(), self._dedupe_key(question)),
        ).fetchone()
        return int(found["id"]) if found else None

    def cancel_waiting(self, question: Question) -> None:
        """Cancel the ready row of a question that must no longer be sent, erase its payload, and abandon its decisions.

        A row that is being sent is marked: an answer still ends it, and without one it is cancelled. Runs inside the caller's
        `transaction()`.
        """
        self._database.write(
            "UPDATE outbox SET last_error = ? WHERE dedupe_key = ? AND state = 'sending'", (_FORBIDDEN, self._dedupe_key(question))
        )
        for row in self._database.write(
            "UPDATE outbox SET state = 'cancelled', payload = NULL, last_error = ?, updated_at = ? "
            "WHERE dedupe_key = ? AND state = 'ready' RETURNING id",
            (_FORBIDDEN, time.time(), self._dedupe_key(question)),
        ).fetchall():
            self.store.abandon_provisional(row["id"])

    def finish(
        self, row: QueueRow, outcome: CloudOutcome, key: CloudKey, stored_id: int | None = None, also: Callable[[], None] = lambda: None
    ) -> str:
        """Record the outcome of sending a claimed row, and return the row's new state.

        With an answer the row is done, and every decision that waits for it is upheld or overturned; `stored_id` is the answer's
        id if it is already stored. Without one the row becomes ready or dead, as `retry.treat` says; an early try by hand costs
        no attempt unless it was rejected. One transaction, which includes `also`: a crash leaves the row sending.
        """
        with self.store.transaction():
            if outcome.answer:
                state = "done"
                answer_id = stored_id or self.store.put_cloud_answer(key, outcome.answer)
                self._end_sending(row, state, costs_attempt=True)
                self.store.end_provisional(row.queue_id, outcome.answer.answer, answer_id)
            else:
                state = self._fail(row, outcome.kind, outcome.error or outcome.kind.value)
            also()
        return state

    def release(self, row: QueueRow, error: str | None, also: Callable[[], None] = lambda: None) -> None:
        """Make a claimed row ready again at no cost, behind the others: it was tried, and what came of it is not known.

        One transaction, which includes `also`; a crash leaves the row sending.
        """
        with self.store.transaction():
            if not self._cancel_forbidden(row.queue_id):
                self._end_sending(row, "ready", error, due_s=self._clock.now_s() + RELEASED_WAIT_S)
            also()

    def would_end(self, row: QueueRow, kind: CloudKind) -> bool:
        """Whether a failure of this kind would be the end of a claimed row."""
        return not self._is_early(row, kind) and treat(kind, row.attempts, 0.0, row.suspicions).state == "dead"

    def cancel_sending(self, row: QueueRow, error: str, also: Callable[[], None] = lambda: None) -> None:
        """Cancel a claimed row that must not be sent after all. One transaction, which includes `also`."""
        with self.store.transaction():
            self._cancel(row.queue_id, error, was="sending")
            also()

    def suspect(self, queue_id: int) -> bool:
        """Count that a question got a portal's page while others got answers. Returns True if the row is now dead for that reason.

        One transaction.
        """
        with self.store.transaction() as db:
            db.execute("UPDATE outbox SET suspicions = suspicions + ? WHERE id = ? AND state = 'ready'", (PORTAL_PAGE, queue_id))
            found = db.execute(
                "UPDATE outbox SET state = 'dead', updated_at = ? WHERE id = ? AND state = 'ready' AND suspicions >= ? RETURNING id",
                (time.time(), queue_id, MAX_SUSPICIONS),
            ).fetchone()
            if found:
                self.store.abandon_provisional(queue_id)
        return found is not None

    def retry(self, queue_id: int) -> QueueRow:
        """Make a row ready again, due now, with all its attempts and a new time to live. One transaction.

        Raises `BadQuestion` if there is no such row, it was answered, it is being sent, or another row waits for the same answer.
        """
        self.return_half_sent()
        with self.store.transaction():
            row = self._row(queue_id)
            if row.state in ("done", "sending"):
                raise BadQuestion(f"Queue row {queue_id} {_DONE_OR_SENDING[row.state]}; there is nothing to retry.")
            same = self._database.rows(
                "SELECT id FROM outbox WHERE dedupe_key = ? AND state IN ('ready', 'sending') AND id <> ?", (row.dedupe_key, queue_id)
            )
            if same:
                raise BadQuestion(f"The question of queue row {queue_id} already waits as row {same[0]['id']}; there is nothing to retry.")
            self._clock.keep()
            now_s = self._clock.now_s()
            self._database.write(
                "UPDATE outbox SET state = 'ready', attempts = 0, suspicions = 0, put_s = ?, due_s = ?, updated_at = ? WHERE id = ?",
                (now_s, now_s, time.time(), queue_id),
            )
            self.store.reopen_provisional(queue_id)
            return self._row(queue_id)

    def drop(self, queue_id: int) -> QueueRow:
        """Cancel a row, erase its payload and abandon its decisions. One transaction.

        Raises `BadQuestion` if there is no such row, it was answered, or it is being sent.
        """
        self.return_half_sent()
        with self.store.transaction():
            row = self._row(queue_id)
            if row.state in ("done", "sending"):
                raise BadQuestion(f"Queue row {queue_id} {_DONE_OR_SENDING[row.state]}; it cannot be dropped.")
            self._cancel(queue_id, row.last_error, was=row.state)
            return self._row(queue_id)

    def return_half_sent(self) -> None:
        """Make the rows ready that an interrupted drainer left half-sent; does nothing while one drains, or if it cannot be stored."""
        with contextlib.suppress(StorageError, OSError):
            if self.count("sending"):
                with self.drainer():
                    pass

    def next_due_in_s(self) -> float | None:
        """Seconds until the first ready row is due; 0 if one is due now, None if no row is ready."""
        found = self._database.rows("SELECT min(due_s) AS due_s FROM outbox WHERE state = 'ready'")[0]["due_s"]
        return None if found is None else min(LONGEST_WAIT_S, max(0.0, found - self._clock.now_s()))

    @contextlib.contextmanager
    def drainer(self) -> Iterator[None]:
        """Be the only drainer of this file, or raise `StorageError`; half-sent rows of a dead drainer become ready.

        The lock is on a separate file, and the operating system releases it when the process ends: no leases, no clocks.
        """
        path, process = self.store.path.with_name(self.store.path.name + ".drain-lock"), os.getpid()
        try:
            handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise StorageError(f"The lock file '{path}' cannot be opened ({error.strerror}); check who owns it.") from error
        _held.add(handle)
        try:
            if not try_lock(handle):
                raise StorageError("Another process is draining the queue; wait until it has finished.")
            with self.store.transaction() as db:
                self._cancel_forbidden()
                for table in ("outbox", "audits"):
                    db.execute(f"UPDATE {table} SET state = 'ready', last_error = 'interrupted' WHERE state = 'sending'")
                self._drop_old_dead()
            yield
        finally:
            if os.getpid() == process:  # a forked child has closed its copy, and must not release its parent's lock
                _held.discard(handle)
                unlock(handle)  # closing is not enough while a child that is being forked still has a copy
                os.close(handle)

    def _due(self, due_only: bool) -> tuple[str, tuple[float, ...]]:
        """The condition for rows that may be tried now, and its parameters."""
        now_s = self._clock.now_s()
        return ("AND (due_s <= ? OR due_s > ?)", (now_s, now_s + LONGEST_WAIT_S)) if due_only else ("", ())

    # Everything below runs inside a transaction.

    def _fail(self, row: QueueRow, kind: CloudKind, error: str) -> str:
        """Make a claimed row ready or dead, or cancel it if it must not be sent again; returns its new state."""
        if self._cancel_forbidden(row.queue_id):
            return "cancelled"
        treatment = treat(kind, row.attempts, self._chance(), row.suspicions)
        now_s = self._clock.now_s()
        if self._is_early(row, kind):
            self._end_sending(row, "ready", error)
            return "ready"
        self._end_sending(row, treatment.state, error, treatment.costs_attempt, now_s + treatment.wait_s)
        if kind is CloudKind.UNUSABLE:
            self._database.write("UPDATE outbox SET suspicions = suspicions + 1 WHERE id = ?", (row.queue_id,))
        if treatment.state == "dead":
            self.store.abandon_provisional(row.queue_id)
        return treatment.state

    def _is_early(self, row: QueueRow, kind: CloudKind) -> bool:
        """Whether a row was tried before its time, by hand, and failed in a way that may pass: that costs no attempt."""
        return row.due_s > self._clock.now_s() and kind is not CloudKind.REJECTED

    def _end_sending(
        self, row: QueueRow, state: str, error: str | None = None, costs_attempt: bool = False, due_s: float | None = None
    ) -> None:
        self._database.write(
            "UPDATE outbox SET state = ?, last_error = ?, attempts = attempts + ?, due_s = coalesce(?, due_s), updated_at = ? "
            "WHERE id = ? AND state = 'sending'",
            (state, error, int(costs_attempt), due_s, time.time(), row.queue_id),
        )

    def _cancel(self, queue_id: int, error: str | None, was: str) -> None:
        """Cancel a row, erase its payload and abandon its decisions."""
        self._database.write(
            "UPDATE outbox SET state = 'cancelled', payload = NULL, last_error = ?, updated_at = ? WHERE id = ? AND state = ?",
            (error, time.time(), queue_id, was),
        )
        self.store.abandon_provisional(queue_id)

    def _cancel_forbidden(self, queue_id: int | None = None) -> bool:
        """Cancel the rows being sent, or only this one, that were marked by `cancel_waiting`; returns whether there was one."""
        found = self._database.rows(
            "SELECT id FROM outbox WHERE state = 'sending' AND last_error = ? AND id = coalesce(?, id)", (_FORBIDDEN, queue_id)
        )
        for row in found:
            self._cancel(row["id"], _FORBIDDEN, was="sending")
        return bool(found)

    def _expire(self) -> None:
        """End the rows that waited longer than the time to live."""
        expired = self._database.write(
            "UPDATE outbox SET state = 'expired', updated_at = ? WHERE state = 'ready' AND put_s < ? RETURNING id",
            (time.time(), self._clock.now_s() - self.limits.ttl_s),
        ).fetchall()
        for row in expired:
            self.store.abandon_provisional(row["id"])

    def _drop_old_dead(self) -> None:
        """Cancel dead rows that were kept too long (their age counts from when they were put)."""
        self._database.write(
            "UPDATE outbox SET state = 'cancelled', payload = NULL, updated_at = ? WHERE state = 'dead' AND put_s < ?",
            (time.time(), self._clock.now_s() - self.limits.ttl_s - self.limits.dead_kept_s),
        )

    def _has_room(self, size_bytes: int) -> bool:
        found = self._database.rows(
            "SELECT count(*) AS n, coalesce(sum(size_bytes), 0) AS bytes FROM outbox WHERE state IN ('ready', 'sending')"
        )[0]
        return bool(found["n"] < self.limits.max_rows and found["bytes"] + size_bytes <= self.limits.max_bytes)

    def _row(self, queue_id: int) -> QueueRow:
        found = self._database.rows(f"SELECT {COLUMNS} FROM outbox WHERE id = ?", (queue_id,))
        if not found:
            raise BadQuestion(f"There is no queue row {queue_id}; `edge-agent queue list` shows the rows.")
        return QueueRow(**found[0])

    @staticmethod
    def _dedupe_key(question: Question) -> str:
        """What the answer depends on: the question and its kind."""
        return f"{question.fingerprint}/{question.kind}"


_FORBIDDEN = "never_send"  # the last error of a row whose question must not be sent
_DONE_OR_SENDING = {"done": "was answered", "sending": "is being sent"}

_held: set[int] = set()  # the lock files that this process holds; a forked child closes its copies, or they would stay locked


def _after_fork_in_child() -> None:
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_after_fork_in_child)
