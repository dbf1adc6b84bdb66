"""Sends what waits in the queue to the cloud, as long as that makes sense.

Owns the order of a pass over the queue, and when to stop and come back. What an outcome means for a question is `delivery`'s,
for the whole cloud `breaker`'s. Invariant: an answer, the end of its row and the ends of the decisions that waited for
it are stored in one transaction.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_agent.cloud.breaker import IN_A_ROW, VALID, Breaker
from edge_agent.cloud.budget import Budget
from edge_agent.cloud.privacy import Rules
from edge_agent.cloud.queue import Outbox, QueueRow, question_to_send
from edge_agent.cloud.reply import PROMPT_VERSION
from edge_agent.cloud.retry import WHOLE_CLOUD
from edge_agent.core.errors import BadQuestion, StorageError
from edge_agent.core.outcome import CloudKind
from edge_agent.core.records import CloudAnswer
from edge_agent.store.store import Store

if TYPE_CHECKING:  # httpx is loaded when a cloud is really called
    from edge_agent.cloud.client import CloudModel
    from edge_agent.core.outcome import CloudOutcome

DEADLINE_S = 120.0  # nobody stands and waits for it
LOOK_EVERY_S = 2.0
PROBE_S = (5.0, 300.0)  # without a connection: the first wait, the longest


@dataclass(frozen=True, slots=True)
class Drained:
    """What one pass over the queue did; `stopped` says why it ended early, if it did."""

    answered: int
    failed: int
    waiting: int
    stopped: str | None


class Drainer:
    """Drains one queue into one cloud; `once` for a person who wants it now, `watch` for a device that runs by itself.

    `deadline_s` bounds one call; `upkeep` is called behind each pass of a watch, where nobody waits.
    `sleep` and `chance` (0 to 1, the random part of a wait) are replaced in tests.
    """

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        cloud: CloudModel,
        breaker: Breaker,
        budget: Budget,
        rules: Rules | None = None,
        deadline_s: float = DEADLINE_S,
        upkeep: Callable[[], None] = lambda: None,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store, self._outbox, self._cloud, self._breaker = store, outbox, cloud, breaker
        self._rules, self._budget = rules or Rules(), budget
        self._reserved: int | None = 0  # the number of the call that is reserved; None when there is no money for one
        self._deadline_s, self._upkeep, self._sleep, self._chance = deadline_s, upkeep, sleep, chance

    def once(self) -> Iterator[QueueRow | Drained]:
        """One pass over everything that waits, due or not, and whether the breaker is open or not: a person knows more than it does.

        Five failures in a row end it. Only a cloud that asked for patience (429) is not called. Yields each row as it was
        claimed, then a `Drained`. Raises `StorageError` if another process drains.
        """
        with self._outbox.drainer():
            yield from self._sweep(by_hand=True)

    def watch(self) -> Iterator[QueueRow | Drained]:
        """Pass over what is due, again and again, until the caller stops; yields as `once` does, and a `Drained` where something happened.

        A cloud that cannot be reached is probed after 5 s, then ever more seldom, up to every 5 minutes.
        """
        failures = 0
        with self._outbox.drainer():
            while True:
                drained = None
                for step in self._sweep(by_hand=False):
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
            return max(self._breaker.wait_s(), min(longest, first * 2.0 ** min(failures - 1, 10)) * (0.5 + 0.5 * self._chance()))
        due_in_s = self._outbox.next_due_in_s()
        return LOOK_EVERY_S if due_in_s is None else min(LOOK_EVERY_S, max(due_in_s, 0.05))

    def _sweep(self, by_hand: bool) -> Iterator[QueueRow | Drained]:
        answered, failed, last, stopped = 0, 0, 0, None
        in_a_row = 0  # without a valid reply
        self._reserved = 0
        strange: list[int] = []  # rows that got a portal's page, since the last answer
        while not stopped and (row := self._outbox.claim(after=last, due_only=not by_hand, reserve=self._reserve)):
            last = row.queue_id
            if refusal := self._refusal(by_hand):
                self._give_back(row, *refusal)
                stopped = refusal[1]
                break
            yield row
            outcome = self._answer(row)
            in_a_row = 0 if outcome.kind in VALID else in_a_row + 1
            if outcome.kind is CloudKind.ANSWERED:
                answered += 1
                failed += sum(self._outbox.suspect(queue_id) for queue_id in strange)
                strange = []
                continue
            failed += 1
            if outcome.kind is CloudKind.PORTAL:
                if answered:
                    self._outbox.suspect(row.queue_id)
                strange.append(row.queue_id)
                stopped = outcome.error if len(strange) > 1 else None
            elif outcome.kind in WHOLE_CLOUD or in_a_row >= IN_A_ROW:
                stopped = outcome.error
        if self._reserved is None:
            stopped = stopped or "nothing may be spent on the cloud for now (budget_... in config.toml)"
        yield Drained(answered, failed, self._outbox.count("ready"), stopped)

    def _reserve(self, row: QueueRow) -> bool:
        """Inside the claiming transaction: count the call before it is made."""
        try:
            send = question_to_send(row) or self._store.question(row.fingerprint)
        except (StorageError, ValueError, BadQuestion):
            self._reserved = 0  # nothing will be sent
            return True
        self._reserved = self._budget.reserve(send)
        return self._reserved is not None

    def _give_back(self, row: QueueRow, kind: CloudKind, error: str, was_sent: bool = False) -> None:
        self._outbox.fail(row, kind, error)
        if self._reserved:
            with self._store.transaction():
                self._budget.close(self._reserved, None, was_sent)

    def _cancel(self, row: QueueRow, error: str) -> None:
        self._outbox.cancel_sending(row, error)
        if self._reserved:
            with self._store.transaction():
                self._budget.close(self._reserved, None, was_sent=False)

    def _refusal(self, by_hand: bool) -> tuple[CloudKind, str] | None:
        if by_hand and self._breaker.health.kind != CloudKind.LIMITED:
            return None
        return self._breaker.refusal(self._deadline_s)

    def _answer(self, row: QueueRow) -> CloudOutcome:
        """Send one claimed row and store what came of it."""
        from edge_agent.core.outcome import CloudOutcome

        try:
            question = self._store.question(row.fingerprint)
            send = question_to_send(row) or self._rules.redacted(question)
        except (StorageError, ValueError, BadQuestion) as error:  # purged or damaged: there is nothing left to ask
            self._cancel(row, str(error))
            return CloudOutcome(CloudKind.UNUSABLE, error=str(error))
        if self._rules.forbids(question):  # the rules may be newer than the row
            self._cancel(row, "never_send")
            return CloudOutcome(CloudKind.UNUSABLE, error="the question must not be sent")
        key = (row.fingerprint, self._cloud.model, self._cloud.endpoint, PROMPT_VERSION)
        if stored := self._store.cloud_answer(*key, after=row.answers_before):  # somebody else asked meanwhile
            self._settle(row, *stored)
            return CloudOutcome(CloudKind.ANSWERED, stored[1])
        outcome = self._cloud.ask(send, deadline_s=self._deadline_s, job_key=row.job_key)
        if outcome.answer:
            self._settle(row, None, outcome.answer)
        else:
            self._give_back(row, outcome.kind, outcome.error or outcome.kind, outcome.was_sent)
            self._breaker.note(outcome.kind, outcome.error, outcome.retry_after_s)
        return outcome

    def _settle(self, row: QueueRow, stored_id: int | None, answer: CloudAnswer) -> None:
        """Answer, queue row and the ends of its decisions in one transaction: a crash leaves the row sending."""
        with self._store.transaction():
            cloud_id = stored_id or self._store.put_cloud_answer(row.fingerprint, self._cloud.endpoint, PROMPT_VERSION, answer)
            self._outbox.settle(row)
            self._store.end_provisional(row.queue_id, answer.answer, cloud_id)
            self._budget.close(self._reserved or 0, answer, was_sent=stored_id is None)
            if stored_id is None:
                self._breaker.note(CloudKind.ANSWERED, None)
