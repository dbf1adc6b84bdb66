"""Asks a real cloud the questions of a run, within the budget and the rules of this device.

Owns the order of the calls, how many are under way, what is tried again now and what is left for the next run. `cloud.gate` makes and
counts the calls, `cloud.retry` says what an outcome means for a question. Invariants: a question that must not be sent is not sent, what
is sent is redacted, and a call is counted before it is made.

A failure of one question is tried again a few times, then kept with its reason. A failure of the whole cloud ends the asking: what was
not asked has no reply at all. Both are asked at the next run of the same file.
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
from edge_agent.core.outcome import CloudKind
from edge_agent.core.records import CloudAnswer
from edge_agent.measure.results import LIVE, CloudSource
from edge_agent.measure.run.answered import AnsweredRow, CloudReply
from edge_agent.measure.run.clouds import Answers, estimated, graded
from edge_agent.measure.sets.labelled import Labelled
from edge_agent.store.store import Store

MOST_TRIES = 4  # of a question in one run
LONGEST_WAIT_S = 120.0  # a person waits for this: for a question's next try, and for a cloud that asks for a pause
NEVER_SENT = "never_send: the question must not leave this device"
_LOOK_S = 0.005


@dataclass(slots=True)
class _Flying:
    """A call under way."""

    call: CloudCall
    reservation: Reservation
    tries: int


@dataclass(slots=True)
class _Calls:
    """The state of the asking: numbers of questions to ask now with the tries so far, those to ask later, and the calls under way."""

    ready: deque[tuple[int, int]]
    later: list[tuple[float, int, int]] = field(default_factory=list)
    flying: dict[int, _Flying] = field(default_factory=dict)
    in_a_row: int = 0  # calls without an answer


class Live:
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
        """The replies as they come. Ends early if the cloud as a whole fails, or the budget is used up (`stopped`)."""
        self.stopped = None
        if rows and self._gate.must_find_api and any(not self._rules.forbids(labelled.question) for labelled, _ in rows.values()):
            self._gate.find_api(PROBE_DEADLINE_S)
        calls = _Calls(deque((number, 0) for number in rows))
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
        finally:
            for each in calls.flying.values():
                was_sent = each.call.abandon()
                with self._store.transaction():
                    self._gate.note(None if was_sent else each.reservation, None)

    def _start(self, rows: Answers, calls: _Calls) -> Iterator[tuple[int, CloudReply]]:
        """Start as many calls as may be under way; yields the questions that must not be sent."""
        while calls.later and calls.later[0][0] <= time.monotonic():
            calls.ready.appendleft(heapq.heappop(calls.later)[1:])
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
        calls.in_a_row = 0 if outcome.has_answered else calls.in_a_row + 1
        if outcome.answer:
            return _reply(labelled, row, outcome.answer)
        is_limit = outcome.kind is CloudKind.LIMITED and tries < MOST_TRIES
        if not is_limit and (outcome.kind in WHOLE_CLOUD or calls.in_a_row >= IN_A_ROW):
            self.stopped = outcome.error
        if outcome.kind in WHOLE_CLOUD and not is_limit:
            return None
        planned = treat(outcome.kind, ended.tries, self._chance())
        if planned.state == "ready" and planned.wait_s <= LONGEST_WAIT_S and tries < MOST_TRIES and not self.stopped:
            heapq.heappush(calls.later, (time.monotonic() + planned.wait_s, number, tries))
            return None
        return CloudReply(error=outcome.error)


def _reply(labelled: Labelled, row: AnsweredRow, found: CloudAnswer) -> CloudReply:
    reply = replace(graded(labelled, row, found.answer), ms=found.latency_ms)
    if found.n_prompt_tokens is None or found.n_completion_tokens is None:
        return estimated(labelled, reply)
    return replace(reply, prompt_tokens=float(found.n_prompt_tokens), completion_tokens=float(found.n_completion_tokens))
