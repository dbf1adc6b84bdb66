"""Sends the questions in the queue to the cloud, as long as that makes sense.

Owns the order of a pass over the queue, when it stops, and when the next one starts, and whether a failure is the fault of one
question or of the whole cloud. `retry` decides what an outcome then means for a question, `breaker` what it means for the cloud, and
`audits` what is sent when no row is due.

Invariants: an answer, the end of its row, the endings of the decisions that waited for it, and the cost of the call are stored
in one transaction. No row becomes dead for a failure unless the cloud answered something after it: another question, or a test
question of our own. Until then the row is in doubt: it stays `sending`, and nothing but the cost of its call is stored. If the
cloud answers, the row gets its own verdict; if not, it is ready again at no cost, behind the other rows, the cloud is paused, and
the pass stops. A crash in between leaves it sending, and the next drainer makes it ready.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from edge_agent.cloud.audits import Auditor, Audits
from edge_agent.cloud.breaker import IN_A_ROW, VALID
from edge_agent.cloud.budget import Reservation
from edge_agent.cloud.gate import Gate
from edge_agent.cloud.privacy import Rules
from edge_agent.cloud.queue import Outbox
from edge_agent.cloud.queue_row import QueueRow
from edge_agent.cloud.retry import WHOLE_CLOUD
from edge_agent.cloud.wire.typed.request import CHAT
from edge_agent.core.errors import BadQuestion, StorageBusy, StorageError
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question

_log = logging.getLogger("edge_agent")
DEADLINE_S = 120.0  # no person waits for these calls
PROBE_DEADLINE_S = 15.0  # of a request that finds out what the cloud offers
LOOK_EVERY_S = 2.0
PROBE_S = (5.0, 300.0)  # first and longest wait after a pass that stopped
OVER_BUDGET = "the budget for the cloud is used up for now (budget_... in config.toml)"


@dataclass(frozen=True, slots=True)
class Drained:
    """The result of one pass over the queue; `stopped` is the reason if it ended early. `audited` counts audits."""

    answered: int
    failed: int
    waiting: int
    stopped: str | None
    audited: int = 0


@dataclass(slots=True)
class _Pass:
    """One pass so far; `in_a_row` counts calls without a valid reply.

    Since the last answer, `portal_rows` got a portal's page, and `in_doubt` failed in a way that may be the whole cloud's fault.
    """

    answered: int = 0
    failed: int = 0
    in_a_row: int = 0
    current: tuple[QueueRow, Reservation] | None = None  # claimed; not yet sent, or its reply not yet stored
    portal_rows: list[int] = field(default_factory=list)
    in_doubt: list[tuple[QueueRow, CloudOutcome]] = field(default_factory=list)
    stopped: str | None = None


class Drainer:
    """Sends one queue to one cloud: `once` for a person who wants it now, `watch` for a device that runs by itself.

    `deadline_s` limits one call. Once `stopped()` is true, no row is claimed and `watch` ends. `upkeep` is called after each pass
    of `watch`, when no person waits. `audits` are sent, too. Tests replace `sleep` and `chance` (0 to 1, the random part of a wait).
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
        stopped: Callable[[], bool] = lambda: False,
        audits: Audits | None = None,
    ) -> None:
        self._outbox, self._gate, self._rules = outbox, gate, rules or Rules()
        self._deadline_s, self._upkeep, self._sleep, self._chance = deadline_s, upkeep, sleep, chance
        self._stopped = stopped
        self._auditor = Auditor(audits, gate, self._rules, deadline_s) if audits and audits.share else None

    def once(self) -> Iterator[QueueRow | Drained]:
        """One pass over all waiting rows, due or not, even if the breaker is open: a person may know that the cloud is back.

        Stops after five failures in a row. Only a cloud that asked to wait (429) is not called. Yields each row as it was
        claimed, then a `Drained`. Raises `StorageError` if another process drains the queue.
        """
        with self._outbox.drainer():
            yield from self._pass(by_hand=True)

    def watch(self, on_wait: Callable[[float, str | None], None] = lambda wait_s, stopped: None) -> Iterator[QueueRow | Drained]:
        """Repeat passes over the due rows until the caller stops; yields like `once`, but a `Drained` only if something happened.

        If the cloud cannot be reached, tries again after 5 s, then less and less often, down to every 5 minutes. Before each wait,
        `on_wait` gets its seconds, and why the last pass stopped, if it did.
        A database that fails for a while, or that another process locks, is waited for, and half-sent rows are sent again. Raises
        `StorageError` if another process drains the queue when it starts, or if the database cannot be used at all.
        """
        has_drained = False
        while not self._stopped():
            try:
                with self._outbox.drainer():
                    for step in self._watch(on_wait):
                        has_drained = True
                        if step is not None:
                            yield step
                return
            except StorageError as error:
                if not (has_drained or isinstance(error, StorageBusy)):
                    raise
                _log.warning("edge-agent: the queue is not drained now: %s", error)
                self._sleep(LOOK_EVERY_S)
                with contextlib.suppress(StorageError):
                    self._outbox.store.database.renew()

    def _watch(self, on_wait: Callable[[float, str | None], None]) -> Iterator[QueueRow | Drained | None]:
        """The passes of `watch`, and None before the first, as the only drainer. Raises `StorageError` if the database fails."""
        failures = 0
        yield None
        while not self._stopped():
            drained = None
            for step in self._pass(by_hand=False):
                drained = step if isinstance(step, Drained) else None
                if not isinstance(step, Drained) or step.answered or step.failed or step.stopped:
                    yield step
            assert drained is not None
            self._upkeep()
            failures = 0 if drained.answered or not drained.stopped else failures + 1
            pause_s = self._pause_s(drained, failures)
            on_wait(pause_s, drained.stopped)
            self._sleep(pause_s)

    def _pause_s(self, drained: Drained, failures: int) -> float:
        if drained.stopped:
            first, longest = PROBE_S
            backoff_s = min(longest, first * 2.0 ** min(failures - 1, 10)) * (0.5 + 0.5 * self._chance())
            return max(self._gate.breaker.wait_s(), backoff_s)
        due_in_s = self._outbox.next_due_in_s()
        return LOOK_EVERY_S if due_in_s is None else min(LOOK_EVERY_S, max(due_in_s, 0.05))

    def _pass(self, by_hand: bool) -> Iterator[QueueRow | Drained]:
        done, audited = _Pass(), 0
        try:
            self._try_new_settings(done, by_hand)
            self._find_api(done, by_hand)
            for queue_id in self._ready(by_hand):
                if done.stopped or self._stopped():
                    break
                if (claimed := self._claim(queue_id, by_hand)) is None:
                    continue  # another process has answered it, or it expired
                row, reservation = claimed
                if reservation is None:
                    done.stopped = OVER_BUDGET
                elif refusal := self._refusal(by_hand):
                    self._finish(row, refusal, reservation, was_made=False)
                    done.stopped = refusal.error
                else:
                    done.current = row, reservation
                    yield row
                    self._send(row, reservation, done)
                    done.current = None
            if (done.in_doubt or done.portal_rows) and not done.stopped:
                self._test(done)
            if self._auditor and not done.stopped:
                audited = self._auditor.send(is_needed=lambda: self._stopped() or self._has_due(by_hand=False))
        except (GeneratorExit, KeyboardInterrupt, SystemExit) as error:
            self._interrupt(done, was_sent=not isinstance(error, GeneratorExit))  # it comes at the `yield`
            raise
        finally:
            self._release(done)
        yield Drained(done.answered, done.failed, self._outbox.count("ready"), done.stopped, audited)

    def _interrupt(self, done: _Pass, was_sent: bool) -> None:
        """Make the current row ready again at no cost: no drainer is left that knows of it. A call that was sent stays counted.

        If that cannot be stored, the row stays sending until the next drainer comes.
        """
        if done.current and all(row is not done.current[0] for row, _ in done.in_doubt):
            row, reservation = done.current
            with contextlib.suppress(StorageError):
                self._outbox.release(row, "interrupted", also=lambda: self._gate.note(None if was_sent else reservation, None))

    def _try_new_settings(self, done: _Pass, by_hand: bool) -> None:
        """Before the first row is sent with other settings than those that worked last, see whether the cloud answers at all."""
        if self._has_due(by_hand) and self._gate.has_new_settings:
            if refusal := self._refusal(by_hand):
                done.stopped = refusal.error
            else:
                self._test(done)

    def _find_api(self, done: _Pass, by_hand: bool) -> None:
        """Before the first row is sent, find out once which API the cloud offers. What comes of it says nothing about a row."""
        if done.stopped or self._stopped() or not self._gate.must_find_api:
            return
        if any(self._may_send(queue_id) for queue_id in self._outbox.ready(due_only=not by_hand)):
            self._gate.find_api(min(self._deadline_s, PROBE_DEADLINE_S))

    def _may_send(self, queue_id: int) -> bool:
        """Whether a row's question may leave the device: the rules may be newer than the row."""
        with contextlib.suppress(StorageError, ValueError, BadQuestion):  # purged or damaged
            return not self._rules.forbids(self._to_send(self._outbox.row(queue_id))[0])
        return False

    def _has_due(self, by_hand: bool) -> bool:
        return bool(self._outbox.count("ready")) if by_hand else self._outbox.next_due_in_s() == 0

    def _ready(self, by_hand: bool) -> Iterator[int]:
        """The rows of this pass, each once, and then those that were queued meanwhile."""
        last = 0
        while found := self._outbox.ready(after=last, due_only=not by_hand):
            last = max(found)
            yield from found

    def _claim(self, queue_id: int, by_hand: bool) -> tuple[QueueRow, Reservation | None] | None:
        """A ready row, with its call reserved. Without a reservation the budget is used up, and the row is still ready."""
        reserved: list[Reservation | None] = []

        def allowed(row: QueueRow) -> bool:
            try:
                _, send = self._to_send(row)
            except (StorageError, ValueError, BadQuestion):
                reserved.append(Reservation())  # damaged: it will not be sent
                return True
            reserved.append(self._gate.budget.reserve(send))
            return reserved[-1] is not None

        row = self._outbox.claim(queue_id, due_only=not by_hand, allowed=allowed)
        return (row, reserved[-1]) if row else None

    def _to_send(self, row: QueueRow) -> tuple[Question, Question]:
        """The question as asked, and as it will be sent. Raises `StorageError`, `ValueError` or `BadQuestion` if it is damaged."""
        asked = self._outbox.store.question(row.fingerprint)
        return asked, self._rules.redacted(row.question or asked)  # again, because the rules may be newer than the row

    def _refusal(self, by_hand: bool) -> CloudOutcome | None:
        """Why the cloud must not be called now; None if it may be."""
        if by_hand and self._gate.breaker.health.kind != CloudKind.LIMITED:
            return None
        refusal = self._gate.breaker.refusal(self._deadline_s)
        return CloudOutcome(refusal[0], error=refusal[1]) if refusal else None

    def _send(self, row: QueueRow, reservation: Reservation, done: _Pass) -> None:
        """Send one claimed row, store the outcome, and count it."""
        try:
            asked, send = self._to_send(row)
        except (StorageError, ValueError, BadQuestion) as error:  # purged or damaged: nothing is left to send
            return self._cancel(row, reservation, str(error), done)
        if self._rules.forbids(asked):  # the rules may be newer than the row
            return self._cancel(row, reservation, "never_send", done)
        if stored := self._stored(row):  # another process has asked since
            self._finish(row, stored[1], reservation, was_made=False, stored_id=stored[0])
            done.answered += 1
            return
        outcome = self._gate.start(send, reservation, self._deadline_s, row.job_key).result()
        if self._is_doubtful(row, outcome):
            self._doubt(row, outcome, reservation, done)
        else:
            self._finish(row, outcome, reservation)
            self._count(row, outcome, done)

    def _stored(self, row: QueueRow) -> tuple[int, CloudOutcome] | None:
        """The answer that another process has stored since the row was queued, with its id."""
        try:
            question = self._outbox.store.question(row.fingerprint)
        except StorageError:  # purged meanwhile, or damaged
            return None
        stored = self._gate.stored_answer(question, after=row.answers_before)
        return (stored[0], CloudOutcome(CloudKind.ANSWERED, stored[1])) if stored else None

    def _cancel(self, row: QueueRow, reservation: Reservation, error: str, done: _Pass) -> None:
        self._outbox.cancel_sending(row, error, also=lambda: self._gate.note(reservation, None))
        done.failed += 1

    def _finish(
        self,
        row: QueueRow,
        outcome: CloudOutcome,
        reservation: Reservation | None,
        was_made: bool = True,
        stored_id: int | None = None,
    ) -> None:
        made = outcome if was_made else None
        key = self._gate.key(row.fingerprint, outcome.answer.api if outcome.answer else CHAT)
        try:
            self._outbox.finish(row, outcome, key, stored_id, also=lambda: self._gate.note(reservation, made))
        except StorageError:
            if made:  # the row stays as it was; the breaker remembers at least what it has seen
                self._gate.note(None, made)
            raise

    def _count(self, row: QueueRow, outcome: CloudOutcome, done: _Pass) -> None:
        """Count an outcome, and stop the pass if it makes no sense to continue."""
        done.in_a_row = 0 if outcome.kind in VALID else done.in_a_row + 1
        if outcome.kind is CloudKind.ANSWERED:
            done.answered += 1
            self._note_that_cloud_answers(done)
            return
        done.failed += 1
        if outcome.has_answered:
            self._note_that_cloud_answers(done)
        if outcome.kind is CloudKind.PORTAL:
            done.portal_rows.append(row.queue_id)
        if self._ends_pass(outcome.kind, done):
            done.stopped = outcome.error

    def _ends_pass(self, kind: CloudKind, done: _Pass) -> bool:
        """Whether a failure of this kind stops the pass."""
        if kind is CloudKind.PORTAL:
            return len(done.portal_rows) > 1
        return kind in WHOLE_CLOUD or done.in_a_row >= IN_A_ROW

    # A failure that may be the fault of one question or of the whole cloud.

    def _is_doubtful(self, row: QueueRow, outcome: CloudOutcome) -> bool:
        """Whether one more reply is needed to know whose fault this is."""
        kinds = (CloudKind.REJECTED, CloudKind.UNUSABLE, CloudKind.MISCONFIGURED)
        return outcome.kind in kinds or outcome.doubtful or (not outcome.answer and self._outbox.would_end(row, outcome.kind))

    def _doubt(self, row: QueueRow, outcome: CloudOutcome, reservation: Reservation, done: _Pass) -> None:
        """Store the cost of a call at once, and its verdict when it is known whose fault it is.

        A second doubt in a row, one that is hardly the question's fault, and one about a row that was tried before are reasons to
        test the cloud now: a limit of the calls must not end each try of a row without a verdict.
        """
        try:
            with self._outbox.store.transaction():
                self._gate.note(reservation, outcome)
        except StorageError:
            self._gate.note(None, outcome)
            raise
        done.failed += 1
        done.in_doubt.append((row, outcome))
        if len(done.in_doubt) > 1 or outcome.kind in WHOLE_CLOUD or row.due_s > row.put_s:
            self._test(done)

    def _test(self, done: _Pass) -> None:
        """Ask the test question: an answer decides the doubts against the questions, and anything else stops the pass.

        Once the caller wants to stop, nothing is sent, and the rows in doubt are released.
        """
        if self._stopped():
            return
        outcome = self._gate.test(self._deadline_s)
        if outcome is None:
            done.stopped = OVER_BUDGET
        elif outcome.has_answered:
            self._note_that_cloud_answers(done)
        else:
            done.stopped = outcome.error

    def _note_that_cloud_answers(self, done: _Pass) -> None:
        """The cloud has just answered something, so what failed before was the fault of those questions."""
        done.in_a_row = 0
        while done.in_doubt:
            row, outcome = done.in_doubt[0]
            if stored := self._stored(row):
                self._finish(row, stored[1], None, was_made=False, stored_id=stored[0])
                done.answered, done.failed = done.answered + 1, done.failed - 1
            else:
                self._finish(row, _own_fault(outcome), None, was_made=False)
            done.in_doubt.pop(0)
        done.failed += sum(self._outbox.suspect(queue_id) for queue_id in done.portal_rows)
        done.portal_rows = []

    def _release(self, done: _Pass) -> None:
        """Make the rows in doubt ready again, behind the others and at no cost; say why the pass achieved nothing, if it did not.

        If that cannot be stored, they stay sending until the next drainer comes.
        """
        for row, outcome in done.in_doubt:
            error = outcome.error if done.stopped in (None, OVER_BUDGET) else done.stopped
            with contextlib.suppress(StorageError):
                self._outbox.release(row, error)
        done.in_doubt = []


def _own_fault(outcome: CloudOutcome) -> CloudOutcome:
    """What a failure means for its question, now that the cloud has answered another one.

    One server of several may lack the model for a while, so "no such model" costs an attempt and may pass.
    """
    if outcome.kind is CloudKind.MISCONFIGURED:
        return replace(outcome, kind=CloudKind.FAILED)
    return replace(outcome, kind=CloudKind.REJECTED) if outcome.kind in WHOLE_CLOUD else outcome
