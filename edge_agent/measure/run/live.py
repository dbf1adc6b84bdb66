"""Asks a real cloud the questions of a run, within the budget and the rules of this device.

Owns the order of the calls, how many are under way, what is tried again now and what is left for the next run. `cloud.gate` makes and
counts the calls, `cloud.retry` says what an outcome means for a question. Invariants: a question that must not be sent is not sent, what
is sent is redacted, and a call is counted before it is made.

A failure of one question is tried again a few times, then kept with its reason and its time. A failure of the whole cloud ends the
asking: what was not asked has no reply at all. Both are asked at the next run of the same file, and those that failed come last, so that
no question keeps another from its turn. Where one question or the whole cloud may be to blame, a test question of our own decides.
"""

from __future__ import annotations

import heapq
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from edge_agent.cloud.breaker import IN_A_ROW
from edge_agent.cloud.budget import Reservation
from edge_agent.cloud.drain import DEADLINE_S, OVER_BUDGET, PROBE_DEADLINE_S
from edge_agent.cloud.gate import Gate
from edge_agent.cloud.privacy import Rules
from edge_agent.cloud.retry import WHOLE_CLOUD, treat
from edge_agent.cloud.wire.call import CloudCall
from edge_agent.cloud.wire.client import AT_ONCE
from edge_agent.core import routing
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.records import CloudAnswer
from edge_agent.measure.results import LIVE, CloudSource
from edge_agent.measure.run.answered import AnsweredRow, CloudReply
from edge_agent.measure.run.clouds import Answers, estimated, graded
from edge_agent.measure.sets.labelled import Labelled
from edge_agent.store.store import Store

MOST_TRIES = 4  # of a question in one run
LONGEST_WAIT_S = 120.0  # a person waits for this: for a question's next try, and for a cloud that asks for a pause
MOST_IN_A_ROW = 50  # calls without an answer, while the cloud answers the test question: each may be billed
NEVER_SENT = "never_send: the question must not leave this device"
_LOOK_S = 0.005
_MAY_BE_OWN = (CloudKind.MISCONFIGURED, CloudKind.PORTAL)


@dataclass(slots=True)
class _Flying:
    """A call under way."""

    call: CloudCall
    reservation: Reservation
    tries: int


@dataclass(slots=True)
class _Calls:
    """The state of the asking: numbers of questions to ask now with the tries so far, those to ask later (with the
    error that they had, if it may be their own fault), and the calls under way.

    `in_a_row` counts calls without an answer; at `test_at` of them, the test question is due.
    """

    ready: deque[tuple[int, int]]
    later: list[tuple[float, int, int, str | None]] = field(default_factory=list)
    flying: dict[int, _Flying] = field(default_factory=dict)
    in_a_row: int = 0
    test_at: int = IN_A_ROW

    def count(self, outcome: CloudOutcome) -> None:
        """Count a call that ended."""
        self.in_a_row = 0 if outcome.has_answered else self.in_a_row + 1
        self.test_at = IN_A_ROW if outcome.has_answered else self.test_at


class LiveCloud:
    """The cloud of this device's settings. `stopped` says why the asking ended early, if it did.

    Prices are per million tokens. Tests replace `sleep` and `chance` (0 to 1, the random part of a wait).
    """

    def __init__(
        self,
        store: Store,
        gate: Gate,
        rules: Rules | None = None,
        prompt_price: float = 0.0,
        completion_price: float = 0.0,
        deadline_s: float = DEADLINE_S,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store, self._gate, self._rules = store, gate, rules or Rules()
        self._deadline_s, self._sleep, self._chance = deadline_s, sleep, chance
        self.source = CloudSource(LIVE, gate.cloud.model, None, prompt_price, completion_price)
        self.identity = f"{gate.cloud.endpoint} {gate.cloud.wanted.api if not gate.cloud.is_auto else 'auto'}"
        self.stopped: str | None = None

    def replies(self, rows: Answers) -> Iterator[tuple[int, CloudReply]]:
        """The replies as they come. Ends early if the cloud as a whole fails, or the budget is used up (`stopped`).

        Questions that were never asked come first, in an order that is drawn: those that a cloud declines often stand side by side.
        """
        self.stopped = None
        if rows and self._gate.must_find_api and any(not self._rules.forbids(labelled.question) for labelled, _ in rows.values()):
            self._gate.find_api(PROBE_DEADLINE_S)
        calls = _Calls(deque((number, 0) for number in sorted(rows, key=lambda number: _turn(rows[number][1]))))
        try:
            while calls.flying or (not self.stopped and (calls.ready or calls.later)):
                yield from self._start(rows, calls)
                ended = [number for number, each in calls.flying.items() if each.call.is_over]
                if not ended:
                    self._sleep(_LOOK_S)
                for number in ended:
                    reply = self._finish(*rows[number], number, calls)
                    if reply:
                        yield number, reply
            for _, number, _, error in calls.later:
                if error is not None:
                    yield number, _failed(error)
        finally:
            for each in calls.flying.values():
                was_sent = each.call.abandon()
                with self._store.transaction():
                    self._gate.note(None if was_sent else each.reservation, None)

    def _start(self, rows: Answers, calls: _Calls) -> Iterator[tuple[int, CloudReply]]:
        """Start as many calls as may be under way; yields the questions that must not be sent."""
        while calls.later and calls.later[0][0] <= time.monotonic():
            calls.ready.appendleft(heapq.heappop(calls.later)[1:3])
        while calls.ready and len(calls.flying) < AT_ONCE and not self.stopped and self._may_call(bool(calls.flying)):
            number, tries = calls.ready.popleft()
            question = rows[number][0].question
            if self._rules.forbids(question):
                yield number, CloudReply(error=NEVER_SENT)
            elif reservation := self._gate.reserve(send := self._rules.redacted(question)):
                calls.flying[number] = _Flying(self._gate.start(send, reservation, self._deadline_s), reservation, tries)
            else:
                self.stopped = OVER_BUDGET

    def _may_call(self, has_flying: bool) -> bool:
        """Whether a call may start now; waits for a cloud that asked for a short pause, and stops for a long one."""
        if self._gate.breaker.health.kind != CloudKind.LIMITED or not (wait_s := self._gate.breaker.wait_s()):
            return True
        if has_flying:
            return False
        if wait_s > LONGEST_WAIT_S:
            self.stopped = f"the cloud asked for a pause of {wait_s:.0f} s"
            return False
        self._sleep(wait_s)
        return True

    def _finish(self, labelled: Labelled, row: AnsweredRow, number: int, calls: _Calls) -> CloudReply | None:
        """Count a call that ended. Returns the reply, or None if the question is tried again, now or at the next run."""
        ended = calls.flying.pop(number)
        outcome, tries = ended.call.result(), ended.tries + 1
        with self._store.transaction():
            self._gate.note(ended.reservation, outcome)
        calls.count(outcome)
        if outcome.answer:
            return _reply(labelled, row, outcome.answer)
        if outcome.kind is CloudKind.LIMITED and tries < MOST_TRIES:
            heapq.heappush(calls.later, (time.monotonic(), number, tries, None))
            return None
        is_whole = outcome.kind in WHOLE_CLOUD
        if is_whole and not self._is_own_fault(outcome):
            self.stopped = self.stopped or outcome.error
            return None
        self._look(row, outcome, calls)
        planned = treat(outcome.kind, ended.tries, self._chance())
        may_try = not is_whole and planned.state == "ready" and planned.wait_s <= LONGEST_WAIT_S
        if may_try and tries < MOST_TRIES and not self.stopped:
            heapq.heappush(calls.later, (time.monotonic() + planned.wait_s, number, tries, outcome.error))
            return None
        return _failed(outcome.error)

    def _is_own_fault(self, outcome: CloudOutcome) -> bool:
        """Whether a failure that is usually the whole cloud's belongs to its question: a filter may answer with an error or a page."""
        return (outcome.doubtful or outcome.kind in _MAY_BE_OWN) and self._answers_test()

    def _look(self, row: AnsweredRow, outcome: CloudOutcome, calls: _Calls) -> None:
        """After failures in a row, see whether the cloud answers at all; stop if not, or if going on costs more than it brings."""
        if self.stopped or calls.in_a_row < calls.test_at:
            return
        if row.cloud is not None:  # it failed in an earlier run, too, and the others are done
            self.stopped = f"{calls.in_a_row} calls in a row had no answer again, the last because of: {outcome.error}"
        elif calls.in_a_row >= MOST_IN_A_ROW:
            self.stopped = f"{calls.in_a_row} calls in a row had no answer, the last because of: {outcome.error}"
        elif self._answers_test():
            calls.test_at = min(MOST_IN_A_ROW, 2 * calls.test_at)

    def _answers_test(self) -> bool:
        """Whether the cloud answers our test question; if not, `stopped` says why."""
        if self.stopped:
            return False
        outcome = self._gate.test(self._deadline_s)
        if outcome is None or not outcome.has_answered:
            self.stopped = outcome.error if outcome else OVER_BUDGET
        return not self.stopped


def _turn(row: AnsweredRow) -> tuple[float, float]:
    """Where a question comes: 0 and its draw if it was never asked, otherwise when it failed last."""
    failed_at = (row.cloud.failed_at or 1.0) if row.cloud else 0.0
    return failed_at, routing.draw(row.fingerprint, "turn")


def _failed(error: str | None) -> CloudReply:
    return CloudReply(error=error or "no answer", failed_at=time.time())


def _reply(labelled: Labelled, row: AnsweredRow, found: CloudAnswer) -> CloudReply:
    reply = replace(graded(labelled, row, found.answer), ms=found.latency_ms)
    if found.n_prompt_tokens is None or found.n_completion_tokens is None:
        return estimated(labelled, reply)
    return replace(reply, prompt_tokens=float(found.n_prompt_tokens), completion_tokens=float(found.n_completion_tokens))
