"""A queue with clocks that a test moves, and queues that break one rule each."""

import pathlib
from dataclasses import replace

from edge_agent.cloud.queue import DAY_S, Limits, Outbox, QueueRow
from edge_agent.core.outcome import CloudKind
from edge_agent.core.question import Question
from edge_agent.store.device_time import Clock, Moment
from edge_agent.store.store import Store

LIMITS = Limits(max_rows=5, max_bytes=10_000, ttl_s=7 * DAY_S, dead_kept_s=30 * DAY_S)


class World:
    """A store and clocks that the test moves."""

    def __init__(self, path: pathlib.Path) -> None:
        self.store = Store(path)
        self.moment = Moment("boot", 100.0, 1_800_000_000.0, True)

    def outbox(self, kind: type[Outbox] = Outbox, limits: Limits = LIMITS, chance: float = 1.0) -> Outbox:
        return kind(self.store, Clock(self.store, lambda: self.moment), limits, lambda: chance)

    def wait(self, seconds: float) -> None:
        self.moment = replace(self.moment, uptime_s=self.moment.uptime_s + seconds, wall=self.moment.wall + seconds)

    def put(self, outbox: Outbox, stem: str) -> int | None:
        """Queue a question with a provisional decision that waits for it."""
        question = Question(stem, ("a", "b"))
        with self.store.transaction():
            self.store.put_question(question)
            queue_id = outbox.put(question, "choice")
            if queue_id is not None:
                count = len(self.store.rows("SELECT 1 FROM decisions"))
                self.store.put_decision(
                    {"decision_id": f"{stem}{count}", "created_at": 1.0, "fingerprint": question.fingerprint, "rule_version": 2,
                     "policy": "{}", "circumstances": "{}", "answer": "A", "route": "local", "reason": "offline", "deferred": 1,
                     "recalled": 0, "provisional": 1, "queue_id": queue_id}
                )  # fmt: skip
        return queue_id

    def endings(self) -> list[str | None]:
        return [row["ending"] for row in self.store.rows("SELECT ending FROM decisions ORDER BY rowid")]


class PaysTwice(Outbox):
    """Mutant: a second asker gets a row of his own."""

    def put(self, question: Question, answer_depends_on: str, error: str | None = None, send: Question | None = None) -> int | None:
        return super().put(question, f"{answer_depends_on}{len(self.list())}", error, send)


class Grows(Outbox):
    """Mutant: no cap."""

    def _has_room(self, size_bytes: int) -> bool:
        return True


class DropsOldest(Outbox):
    """Mutant: makes room by dropping silently."""

    def _has_room(self, size_bytes: int) -> bool:
        if not super()._has_room(size_bytes):
            self._store.write("UPDATE outbox SET state = 'cancelled' WHERE id = (SELECT min(id) FROM outbox WHERE state = 'ready')")
        return True


class NeverExpires(Outbox):
    """Mutant: nothing expires."""

    def _expire(self) -> None:
        pass


class ExpiresAlone(Outbox):
    """Mutant: forgets the decisions that wait for an expired row."""

    def _expire(self) -> None:
        self._store.write("UPDATE outbox SET state = 'expired' WHERE put_s < ?", (self.clock.now_s() - self.limits.ttl_s,))


class IgnoresBackoff(Outbox):
    """Mutant: a failed row is due at once."""

    def claim(self, after: int = 0, due_only: bool = False, reserve: object = None) -> QueueRow | None:
        return super().claim(after, due_only=False)


class FreeAttempts(Outbox):
    """Mutant: counts no attempt."""

    def fail(self, row: QueueRow, kind: CloudKind, error: str) -> str:
        return super().fail(row, CloudKind.OFFLINE, error)


class ClaimsTwice(Outbox):
    """Mutant: gives a row out without marking it."""

    def claim(self, after: int = 0, due_only: bool = False, reserve: object = None) -> QueueRow | None:
        return next((row for row in self.list("ready", "sending") if row.queue_id > after), None)
