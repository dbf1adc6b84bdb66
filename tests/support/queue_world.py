"""A queue with clocks that a test controls, and mutants of the queue that each break one rule."""

import pathlib
from dataclasses import replace

from edge_agent.cloud.queue import Outbox
from edge_agent.cloud.queue_row import QueueRow
from edge_agent.core.config.limits import DAY_S, QueueLimits
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer, CloudKey
from edge_agent.store.device_time import Moment
from edge_agent.store.store import Store

LIMITS = QueueLimits(max_rows=5, max_bytes=10_000, ttl_s=7 * DAY_S, dead_kept_s=30 * DAY_S)


KEY = CloudKey("", "big", "https://cloud", 1)


def fail(outbox: Outbox, row: QueueRow, kind: CloudKind, error: str = "an error") -> str:
    """Record a failed call for a claimed row; returns the row's new state."""
    return outbox.finish(row, CloudOutcome(kind, error=error), KEY._replace(fingerprint=row.fingerprint))


def answer(outbox: Outbox, row: QueueRow, letter: str = "A") -> str:
    """Record an answer for a claimed row; returns the row's new state."""
    outcome = CloudOutcome(CloudKind.ANSWERED, CloudAnswer(letter, letter, "big", 1.0))
    return outbox.finish(row, outcome, KEY._replace(fingerprint=row.fingerprint))


class World:
    """A store, and clocks that the test controls."""

    def __init__(self, path: pathlib.Path) -> None:
        self.moment = Moment("boot", 100.0, 1_800_000_000.0, True)
        self.store = Store(path, moment=lambda: self.moment)

    def restart(self) -> None:
        """Open the file again, as a new process does."""
        self.store.close()
        self.store = Store(self.store.path, moment=lambda: self.moment)

    def outbox(self, kind: type[Outbox] = Outbox, limits: QueueLimits = LIMITS, chance: float = 1.0) -> Outbox:
        return kind(self.store, limits, lambda: chance)

    def wait(self, seconds: float) -> None:
        self.moment = replace(self.moment, uptime_s=self.moment.uptime_s + seconds, wall=self.moment.wall + seconds)

    def put(self, outbox: Outbox, stem: str) -> int | None:
        """Queue a question with a provisional decision that waits for it."""
        question = Question(stem, ("a", "b"))
        with self.store.transaction():
            self.store.put_question(question)
            queue_id = outbox.put(question)
            if queue_id is not None:
                count = len(self.store.database.rows("SELECT 1 FROM decisions"))
                self.store.put_decision(
                    {"decision_id": f"{stem}{count}", "created_at": 1.0, "fingerprint": question.fingerprint, "rule_version": 2,
                     "policy": "{}", "circumstances": "{}", "answer": "A", "route": "local", "reason": "offline", "deferred": 1,
                     "recalled": 0, "provisional": 1, "queue_id": queue_id}
                )  # fmt: skip
        return queue_id

    def endings(self) -> list[str | None]:
        return [row["ending"] for row in self.store.database.rows("SELECT ending FROM decisions ORDER BY rowid")]


class PaysTwice(Outbox):
    """Mutant: a question that is asked twice gets two rows."""

    def _dedupe_key(self, question: Question) -> str:
        return f"{super()._dedupe_key(question)}{len(self.list())}"


class Grows(Outbox):
    """Mutant: no size limit."""

    def _has_room(self, size_bytes: int) -> bool:
        return True


class DropsOldest(Outbox):
    """Mutant: silently drops the oldest row when the queue is full."""

    def _has_room(self, size_bytes: int) -> bool:
        if not super()._has_room(size_bytes):
            self._database.write("UPDATE outbox SET state = 'cancelled' WHERE id = (SELECT min(id) FROM outbox WHERE state = 'ready')")
        return True


class NeverExpires(Outbox):
    """Mutant: nothing expires."""

    def _expire(self) -> None:
        pass


class ForgetsDecisions(Outbox):
    """Mutant: forgets the decisions that wait for an expired row."""

    def _expire(self) -> None:
        self._database.write("UPDATE outbox SET state = 'expired' WHERE put_s < ?", (self._clock.now_s() - self.limits.ttl_s,))


class IgnoresBackoff(Outbox):
    """Mutant: a failed row is due at once."""

    def claim(self, queue_id: int | None = None, due_only: bool = False, **more: object) -> QueueRow | None:
        return super().claim(queue_id, due_only=False, **more)


class FreeAttempts(Outbox):
    """Mutant: does not count attempts."""

    def _end_sending(self, row: QueueRow, state: str, error: object = None, costs_attempt: bool = False, due_s: object = None) -> None:
        super()._end_sending(row, state, error, False, due_s)


class ClaimsTwice(Outbox):
    """Mutant: returns a row without marking it as sending."""

    def claim(self, queue_id: int | None = None, due_only: bool = False, **more: object) -> QueueRow | None:
        return next((row for row in self.list("ready", "sending") if queue_id in (None, row.queue_id)), None)
