"""Sends the questions in the queue to the cloud, as long as that makes sense.

Owns the order of a pass over the queue, when it stops, and when the next one starts. `retry` decides what an outcome means for
a question, `breaker` what it means for the whole cloud. Invariant: an answer, the end of its row, the endings of the decisions
that waited for it, and the cost of the call are stored in one transaction.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from edge_agent.cloud.breaker import IN_A_ROW, VALID
from edge_agent.cloud.budget import Reservation
from edge_agent.cloud.gate import Gate
from edge_agent.cloud.privacy import Rules
from edge_agent.cloud.queue import Outbox, QueueRow
from edge_agent.cloud.retry import WHOLE_CLOUD
from edge_agent.core.errors import BadQuestion, StorageBusy, StorageError
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question

_log = logging.getLogger("edge_agent")
DEADLINE_S = 120.0  # no person waits for these calls
LOOK_EVERY_S = 2.0
PROBE_S = (5.0, 300.0)  # first and longest wait after a pass that stopped
OVER_BUDGET = "the budget for the cloud is used up for now (budget_... in config.toml)"


@dataclass(frozen=True, slots=True)
class Drained:
    """The result of one pass over the queue; `stopped` is the reason if it ended early."""

    answered: int
    failed: int
    waiting: int
    stopped: str | None


@dataclass(slots=True)
class _Pass:
    """One pass so far; `in_a_row` counts calls without a valid reply, `portal_rows` got a portal's page since the last answer."""

    answered: int = 0
    failed: int = 0
    in_a_row: int = 0
    portal_rows: list[int] = field(default_factory=list)
    stopped: str | None = None


class Drainer:
    """Sends one queue to one cloud: `once` for a person who wants it now, `watch` for a device that runs by itself.

    `deadline_s` limits one call. `upkeep` is called after each pass of `watch`, when no person waits. Tests replace `sleep` and
    `chance` (0 to 1, the random part of a wait).
    """

    def __init__(
        self,
        outbox: Outbox,
        gate: Gate,
        rules: Rules | None = None,
        deadline_s: float = DEADLINE_S,
        upkeep: Callable[[], None] = lambda: None,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._outbox, self._gate, self._rules = outbox, gate, rules or Rules()
        self._deadline_s, self._upkeep, self._sleep, self._chance = deadline_s, upkeep, sleep, chance

    def once(self) -> Iterator[QueueRow | Drained]:
        """One pass over all waiting rows, due or not, even if the breaker is open: a person may know that the cloud is back.

        Stops after five failures in a row. Only a cloud that asked to wait (429) is not called. Yields each row as it was
        claimed, then a `Drained`. Raises `StorageError` if another process drains the queue.
        """
        with self._outbox.drainer():
            yield from self._pass(by_hand=True)

    def watch(self) -> Iterator[QueueRow | Drained]:
        """Repeat passes over the due rows until the caller stops; yields like `once`, but a `Drained` only if something happened.

        If the cloud cannot be reached, tries again after 5 s, then less and less often, down to every 5 minutes.
        A database that fails for a while, or that another process locks, is waited for, and half-sent rows are sent again. Raises
        `StorageError` if another process drains the queue when it starts, or if the database cannot be used at all.
        """
        has_drained = False
        while True:
            try:
                with self._outbox.drainer():
                    for step in self._watch():
                        has_drained = True
                        if step is not None:
                            yield step
            except StorageError as error:
                if not (has_drained or isinstance(error, StorageBusy)):
                    raise
                _log.warning("edge-agent: the queue is not drained now: %s", error)
                self._sleep(LOOK_EVERY_S)
                with contextlib.suppress(StorageError):
                    self._outbox.store.database.renew()

    def _watch(self) -> Iterator[QueueRow | Drained | None]:
        """The passes of `watch`, and None before the first, as the only drainer. Raises `StorageError` if the database fails."""
        failures = 0
        yield None
        while True:
            drained = None
            for step in self._pass(by_hand=False):
                drained = step if isinstance(step, Drained) else None
                if not isinstance(step, Drained) or step.answered or step.failed or step.stopped:
                    yield step
            assert drained is not None
            self._upkeep()
            failures = 0 if drained.answered or not drained.stopped else failures + 1
            self._sleep(self._pause_s(drained, failures))

    def _pause_s(self, drained: Drained, failures: int) -> float:
        if drained.stopped:
            first, longest = PROBE_S
            backoff_s = min(longest, first * 2.0 ** min(failures - 1, 10)) * (0.5 + 0.5 * self._chance())
            return max(self._gate.breaker.wait_s(), backoff_s)
        due_in_s = self._outbox.next_due_in_s()
        return LOOK_EVERY_S if due_in_s is None else min(LOOK_EVERY_S, max(due_in_s, 0.05))

    def _pass(self, by_hand: bool) -> Iterator[QueueRow | Drained]:
        done, last = _Pass(), 0
        while not done.stopped and (claimed := self._claim(last, by_hand)):
            row, reservation = claimed
            last = row.queue_id
            if reservation is None:
                done.stopped = OVER_BUDGET
            elif refusal := self._refusal(by_hand):
                self._finish(row, refusal, reservation, was_made=False)
                done.stopped = refusal.error
            else:
                yield row
                self._count(row, self._send(row, reservation), done)
        yield Drained(done.answered, done.failed, self._outbox.count("ready"), done.stopped)

    def _claim(self, after: int, by_hand: bool) -> tuple[QueueRow, Reservation | None] | None:
        """The next row, with its call reserved. Without a reservation the budget is used up, and the row is still ready."""
        reserved: list[Reservation | None] = []

        def allowed(row: QueueRow) -> bool:
            try:
                _, send = self._to_send(row)
            except (StorageError, ValueError, BadQuestion):
                reserved.append(Reservation())  # damaged: it will not be sent
                return True
            reserved.append(self._gate.budget.reserve(send))
            return reserved[-1] is not None

        row = self._outbox.claim(after=after, due_only=not by_hand, allowed=allowed)
        return (row, reserved[-1]) if row else None

    def _to_send(self, row: QueueRow) -> tuple[Question, Question]:
        """The question as asked, and as it will be sent. Raises `StorageError`, `ValueError` or `BadQuestion` if it is damaged."""
        asked = self._outbox.store.question(row.fingerprint)
        return asked, row.question or self._rules.redacted(asked)

    def _refusal(self, by_hand: bool) -> CloudOutcome | None:
        """Why the cloud must not be called now; None if it may be."""
        if by_hand and self._gate.breaker.health.kind != CloudKind.LIMITED:
            return None
        refusal = self._gate.breaker.refusal(self._deadline_s)
        return CloudOutcome(refusal[0], error=refusal[1]) if refusal else None

    def _send(self, row: QueueRow, reservation: Reservation) -> CloudOutcome:
        """Send one claimed row and store the outcome."""
        try:
            asked, send = self._to_send(row)
        except (StorageError, ValueError, BadQuestion) as error:  # purged or damaged: nothing is left to send
            return self._cancel(row, reservation, str(error))
        if self._rules.forbids(asked):  # the rules may be newer than the row
            return self._cancel(row, reservation, "never_send")
        key = self._gate.key(row.fingerprint)
        if stored := self._outbox.store.cloud_answer(key, after=row.answers_before):  # another process has asked since
            outcome = CloudOutcome(CloudKind.ANSWERED, stored[1])
            self._finish(row, outcome, reservation, was_made=False, stored_id=stored[0])
            return outcome
        outcome = self._gate.cloud.ask(send, deadline_s=self._deadline_s, job_key=row.job_key)
        self._finish(row, outcome, reservation)
        return outcome

    def _cancel(self, row: QueueRow, reservation: Reservation, error: str) -> CloudOutcome:
        self._outbox.cancel_sending(row, error, also=lambda: self._gate.note(reservation, None))
        return CloudOutcome(CloudKind.UNUSABLE, error=error)

    def _finish(
        self, row: QueueRow, outcome: CloudOutcome, reservation: Reservation, was_made: bool = True, stored_id: int | None = None
    ) -> None:
        made = outcome if was_made else None
        try:
            self._outbox.finish(row, outcome, self._gate.key(row.fingerprint), stored_id, also=lambda: self._gate.note(reservation, made))
        except StorageError:
            if made:  # the row stays as it was; the breaker remembers at least what it has seen
                self._gate.breaker.note(made.kind, made.error, made.retry_after_s)
            raise

    def _count(self, row: QueueRow, outcome: CloudOutcome, done: _Pass) -> None:
        """Count an outcome, and stop the pass if it makes no sense to continue."""
        done.in_a_row = 0 if outcome.kind in VALID else done.in_a_row + 1
        if outcome.kind is CloudKind.ANSWERED:
            done.answered += 1
            done.failed += sum(self._outbox.suspect(queue_id) for queue_id in done.portal_rows)
            done.portal_rows = []
            return
        done.failed += 1
        if outcome.kind is CloudKind.PORTAL:
            if done.answered:
                self._outbox.suspect(row.queue_id)
            done.portal_rows.append(row.queue_id)
        if self._ends_pass(outcome.kind, done):
            done.stopped = outcome.error

    def _ends_pass(self, kind: CloudKind, done: _Pass) -> bool:
        """Whether a failure of this kind stops the pass."""
        if kind is CloudKind.PORTAL:
            return len(done.portal_rows) > 1
        return kind in WHOLE_CLOUD or done.in_a_row >= IN_A_ROW
