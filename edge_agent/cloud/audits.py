"""Audits: a share of the answers that the device kept, compared with what the cloud says, when the cloud has nothing else to do.

Owns which kept answers are chosen, the states of an audit, its SQL, and when one is sent. Invariants: an audit never answers anybody
and changes no decision; its answer is kept beside it, not among the cloud's answers, so it is never recalled; it is sent only if its
question may leave the device, nothing in the queue is due, the circuit breaker is closed, and the budget has more than half left.

    put ─► ready ─► sending ─┬─► done       the cloud answered: the same, or not
             ▲               ├─► ready      tried again later, at most three times in all
             │               └─► dropped    refused, tried too often, forbidden to be sent, or waited too long
             └── a crash: the next drainer makes it ready, as it does the rows of the queue; its try stays counted

A question's own number chooses it (`routing.draw`), so repeats of a question are not chosen more often, and no question is audited
twice under one calibration.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_agent.cloud.queue_row import payload, sent_question
from edge_agent.cloud.retry import LONGEST_WAIT_S, WHOLE_CLOUD
from edge_agent.core import routing
from edge_agent.core.config.settings import DEFAULT_LIMITS
from edge_agent.core.errors import BadQuestion, StorageError
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question, same
from edge_agent.store.store import Store

if TYPE_CHECKING:  # heavy: httpx is loaded only when a cloud is called
    from edge_agent.cloud.budget import Reservation
    from edge_agent.cloud.gate import Gate
    from edge_agent.cloud.privacy import Rules

SHARE_OF_BUDGET = 0.5  # audits stop when half of a budget is used, by whatever calls: the rest is for questions that need the cloud
MAX_WAITING = 1000  # more are not put: they say nothing new, and the disk is for the queue
MAX_ATTEMPTS = 3
_FORBIDDEN = "never_send"  # why an audit was dropped whose question must not be sent
FIRST_PAUSE_S = 60.0  # of all audits after one that failed; it doubles up to 15 minutes


@dataclass(frozen=True, slots=True)
class Audit:
    """One audit as it was claimed: `answer` is the device's, `send` the question as it may leave the device."""

    number: int
    decision_id: str
    answer: str
    asked: Question
    send: Question

    @property
    def job_key(self) -> str:
        """A key for tracing, the same for each try. It cannot be led back to the decision."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"audit:{self.decision_id}"))


class Audits:
    """The audits in `store`; a `share` of the kept answers is chosen, and waits at most `ttl_s` (device time).

    `chance` returns a question's own number, 0 to 1, from its fingerprint and the calibration; tests replace it.
    """

    def __init__(
        self,
        store: Store,
        share: float = 0.0,
        ttl_s: float = DEFAULT_LIMITS.queue.ttl_s,
        chance: Callable[[str, str], float] = lambda fingerprint, calibration: routing.draw(fingerprint, f"audit:{calibration}"),
    ) -> None:
        self.store, self.share, self._ttl_s, self._chance = store, share, ttl_s, chance
        self._database, self._clock = store.database, store.clock

    def chooses(self, fingerprint: str, calibration: str) -> bool:
        """Whether the answer to this question is to be audited, if it is kept."""
        if not self.share or self._chance(fingerprint, calibration) >= self.share:
            return False
        known = self._database.rows("SELECT 1 FROM audits WHERE fingerprint = ? AND calibration = ? LIMIT 1", (fingerprint, calibration))
        return not known and self.n_waiting() < MAX_WAITING

    def put(self, decision: dict[str, Any], calibration: str, cloud_model: str, send: Question) -> None:
        """Keep an audit of a stored decision, to be sent later, in the caller's transaction."""
        self._clock.keep()
        now_s = self._clock.now_s()
        self._database.write(
            "INSERT INTO audits (created_at, put_s, due_s, decision_id, fingerprint, calibration, cloud_model, answer, payload, state) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'ready')",
            (time.time(), now_s, now_s, decision["decision_id"], decision["fingerprint"], calibration, cloud_model, decision["answer"],
             payload(send)),
        )  # fmt: skip

    def n_waiting(self) -> int:
        """How many audits are not finished."""
        return int(self._database.rows("SELECT count(*) AS n FROM audits WHERE state IN ('ready', 'sending')")[0]["n"])

    def claim(self, rules: Rules, cloud_model: str, allowed: Callable[[Question], bool]) -> Audit | None:
        """Mark the audit that is due longest as sending, and count the try; None if none is due or `allowed` forbids it.

        What waited too long, is damaged, or may no longer be sent is dropped first. One transaction, in which `allowed` runs, too; a
        crash after it leaves the audit sending, until the next drainer takes the lock.
        """
        with self.store.transaction():
            self._clock.keep()
            now_s = self._clock.now_s()
            for row in self._database.rows("SELECT id FROM audits WHERE state = 'ready' AND put_s < ?", (now_s - self._ttl_s,)):
                self._drop(row["id"], "it waited too long")
            while found := self._database.rows(
                "SELECT id, decision_id, fingerprint, answer, payload, attempts FROM audits WHERE state = 'ready' "
                "AND (due_s <= ? OR due_s > ?) ORDER BY due_s, id LIMIT 1", (now_s, now_s + LONGEST_WAIT_S),
            ):  # fmt: skip
                row = found[0]
                audit, why_not = self._to_send(row, rules)
                if audit is None:
                    self._drop(row["id"], why_not)
                    continue
                if not allowed(audit.send):
                    return None
                self._database.write(
                    "UPDATE audits SET state = 'sending', attempts = attempts + 1, cloud_model = ? WHERE id = ?", (cloud_model, row["id"])
                )
                return audit
        return None

    def finish(self, audit: Audit, outcome: CloudOutcome, also: Callable[[], None] = lambda: None) -> str:
        """Store what came of a claimed audit, and return its new state; "" if its question was forgotten meanwhile.

        One transaction, which includes `also`; a crash leaves the audit sending.
        """
        with self.store.transaction():
            state = self._finished(audit, outcome)
            also()
        return state

    def release(self, audit: Audit, error: str, wait_s: float = 0.0) -> None:
        """Make a claimed audit ready again at no cost. One transaction."""
        with self.store.transaction():
            self._again(audit, error, wait_s, cost=0)

    # Everything below runs inside a transaction.

    def cancel(self, fingerprint: str) -> None:
        """Drop the audits of a question that must no longer be sent; what comes of one under way is not stored."""
        for row in self._database.rows("SELECT id FROM audits WHERE fingerprint = ? AND state IN ('ready', 'sending')", (fingerprint,)):
            self._drop(row["id"], _FORBIDDEN)

    def _to_send(self, row: dict[str, Any], rules: Rules) -> tuple[Audit | None, str]:
        """An audit that may be sent, or why not: the rules may be newer than the audit."""
        if row["attempts"] >= MAX_ATTEMPTS:
            return None, "it was interrupted too often"
        try:
            asked = self.store.question(row["fingerprint"])
            send = rules.redacted(sent_question(row["payload"]))
        except (StorageError, ValueError, BadQuestion) as error:
            return None, str(error)
        return (None, _FORBIDDEN) if rules.forbids(asked) else (Audit(row["id"], row["decision_id"], row["answer"], asked, send), "")

    def _finished(self, audit: Audit, outcome: CloudOutcome) -> str:
        if outcome.answer:
            return self._answered(audit, outcome.answer.answer)
        error = outcome.error or outcome.kind.value
        if outcome.kind in WHOLE_CLOUD or outcome.kind is CloudKind.PROVISIONAL:
            return self._again(audit, error, LONGEST_WAIT_S, cost=0)
        tried = self._database.rows("SELECT attempts FROM audits WHERE id = ?", (audit.number,))
        if outcome.kind is CloudKind.REJECTED or not tried or tried[0]["attempts"] >= MAX_ATTEMPTS:
            return self._drop(audit.number, error)
        return self._again(audit, error, LONGEST_WAIT_S, cost=1)

    def _answered(self, audit: Audit, cloud_answer: str) -> str:
        agrees = int(same(audit.answer, cloud_answer))
        ended = self._database.write(
            "UPDATE audits SET state = 'done', cloud_answer = ?, agrees = ?, payload = NULL, last_error = NULL, ended_at = ? "
            "WHERE id = ? AND state = 'sending' RETURNING calibration, cloud_model",
            (cloud_answer, agrees, time.time(), audit.number),
        ).fetchall()
        for row in ended:
            self._database.write(
                "INSERT INTO agreements (calibration, cloud_model, agrees) VALUES (?, ?, ?)",
                (row["calibration"], row["cloud_model"], agrees),
            )
        return "done" if ended else ""

    def _again(self, audit: Audit, error: str, wait_s: float, cost: int) -> str:
        found = self._database.write(
            "UPDATE audits SET state = 'ready', last_error = ?, due_s = ?, attempts = attempts - 1 + ? WHERE id = ? AND state = 'sending' "
            "RETURNING id",
            (error, self._clock.now_s() + wait_s, cost, audit.number),
        ).fetchall()
        return "ready" if found else ""

    def _drop(self, number: int, error: str) -> str:
        found = self._database.write(
            "UPDATE audits SET state = 'dropped', payload = NULL, last_error = ?, ended_at = ? "
            "WHERE id = ? AND state IN ('ready', 'sending') RETURNING id",
            (error, time.time(), number),
        ).fetchall()
        return "dropped" if found else ""


class Auditor:
    """Sends audits to one cloud, inside the lock of the only drainer; `deadline_s` limits one call.

    After one that fails, all wait for a minute, then longer and longer, up to 15 minutes.
    """

    def __init__(self, audits: Audits, gate: Gate, rules: Rules, deadline_s: float) -> None:
        self._audits, self._gate, self._rules, self._deadline_s = audits, gate, rules, deadline_s
        self._failures, self._again_s = 0, 0.0

    def send(self, is_needed: Callable[[], bool]) -> int:
        """Send what is due, one at a time, until one fails or `is_needed` says that the cloud is wanted; returns how many were answered.

        Raises `StorageError`.
        """
        answered = 0
        while not is_needed() and self._may_call() and (claimed := self._claim()):
            if self._send_one(*claimed):
                answered += 1
                self._failures = 0
            else:
                self._failures += 1
                pause_s = min(LONGEST_WAIT_S, FIRST_PAUSE_S * 2.0 ** (self._failures - 1))
                self._again_s = time.monotonic() + pause_s
        return answered

    def _may_call(self) -> bool:
        """Whether the cloud is well, as far as is known, and has not just failed an audit."""
        return time.monotonic() >= self._again_s and not self._gate.breaker.health.open_s and not self._gate.has_new_settings

    def _claim(self) -> tuple[Audit, Reservation] | None:
        reserved: list[Reservation] = []

        def allowed(send: Question) -> bool:
            found = self._gate.budget.reserve(send, share=SHARE_OF_BUDGET)
            reserved.extend([found] if found else [])
            return found is not None

        audit = self._audits.claim(self._rules, self._gate.cloud.model, allowed)
        return (audit, reserved[0]) if audit else None

    def _send_one(self, audit: Audit, reservation: Reservation) -> bool:
        """Send one claimed audit and store what came of it; returns whether it was answered."""
        if stored := self._gate.stored_answer(audit.asked):  # the cloud was asked this before: no call is needed
            outcome = CloudOutcome(CloudKind.ANSWERED, stored[1])
            self._audits.finish(audit, outcome, also=lambda: self._gate.note(reservation, None))
            return True
        try:
            outcome = self._gate.start(audit.send, reservation, self._deadline_s, audit.job_key).result()
        except (KeyboardInterrupt, SystemExit):
            with contextlib.suppress(StorageError):  # otherwise the next drainer does it; a call that was sent stays counted
                self._audits.release(audit, "interrupted")
            raise
        try:
            self._audits.finish(audit, outcome, also=lambda: self._gate.note(reservation, outcome))
        except StorageError:
            self._gate.note(None, outcome)  # the breaker remembers at least what it has seen
            raise
        return outcome.answer is not None
