"""The durable queue of questions that wait for the cloud, in the store's file.

Owns the states of a row (ready -> sending -> done, or back to ready) and who may drain. Knows nothing of HTTP.
Invariants: a question waits at most once (a unique index says so); only the process that holds the lock file drains,
so whoever takes the lock may return rows that a dead drainer left half-sent.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from edge_agent.errors import StorageError
from edge_agent.question import Question
from edge_agent.store import Store


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A question that waits, is being sent, or was answered (`state` ready, sending or done)."""

    queue_id: int
    state: str
    attempts: int
    last_error: str | None
    created_at: float
    fingerprint: str
    job_key: str


class Outbox:
    """The queue in `store`. `put` runs inside the caller's transaction; the others make their own."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, question: Question, answer_depends_on: str, error: str | None = None) -> int:
        """Queue a question, or join the row that already waits for the same answer. Gives the row's id.
        `error` is why the cloud has not answered so far.

        Inside the caller's `transaction()`: after its COMMIT the question survives a crash, before it nothing was said.
        """
        dedupe_key = f"{question.fingerprint}/{answer_depends_on}"
        waiting = self._store.rows("SELECT id FROM outbox WHERE dedupe_key = ? AND state IN ('ready', 'sending')", (dedupe_key,))
        if waiting:
            return int(waiting[0]["id"])
        now = time.time()
        row = (now, now, str(uuid.uuid4()), dedupe_key, question.fingerprint, error)
        inserted = self._store.write(
            "INSERT INTO outbox (created_at, updated_at, job_key, dedupe_key, fingerprint, last_error, state) "
            "VALUES (?, ?, ?, ?, ?, ?, 'ready')",
            row,
        )
        assert inserted.lastrowid is not None
        return inserted.lastrowid

    def list(self) -> list[QueueRow]:
        """All rows, oldest first."""
        return [QueueRow(**row) for row in self._store.rows(f"SELECT {_COLUMNS} FROM outbox ORDER BY id")]

    def claim(self, after: int = 0) -> QueueRow | None:
        """Take the oldest ready row with an id above `after` and mark it sending; None when there is none.

        One transaction; a crash afterwards leaves it sending until the next drainer takes the lock.
        """
        with self._store.transaction() as db:
            found = db.execute(f"SELECT {_COLUMNS} FROM outbox WHERE state = 'ready' AND id > ? ORDER BY id LIMIT 1", (after,)).fetchone()
            if found is None:
                return None
            row = QueueRow(**dict(found))
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

    def settle(self, row: QueueRow) -> None:
        """Mark a claimed row done; inside the caller's `transaction()`, which also stores the answer."""
        self._store.write(
            "UPDATE outbox SET state = 'done', attempts = attempts + 1, last_error = NULL, updated_at = ? "
            "WHERE id = ? AND state = 'sending'",
            (time.time(), row.queue_id),
        )

    def fail(self, row: QueueRow, error: str, costs_attempt: bool) -> None:
        """Give a claimed row back for another try, with the reason. One transaction."""
        with self._store.transaction() as db:
            db.execute(
                "UPDATE outbox SET state = 'ready', attempts = attempts + ?, last_error = ?, updated_at = ? "
                "WHERE id = ? AND state = 'sending'",
                (int(costs_attempt), error, time.time(), row.queue_id),
            )

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
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StorageError("Another process is draining the queue; wait until it is done.") from error
            with self._store.transaction() as db:
                db.execute("UPDATE outbox SET state = 'ready', last_error = 'interrupted' WHERE state = 'sending'")
            yield
        finally:
            os.close(handle)


_COLUMNS = "id AS queue_id, state, attempts, last_error, created_at, fingerprint, job_key"
