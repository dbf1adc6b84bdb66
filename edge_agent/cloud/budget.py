"""How much may be spent on a cloud, and how much was spent.

Owns the rule: one stored row per request, reserved before the request is sent; a call that sends its question again has a row for
each time. Knows nothing of HTTP. Invariants: a request is counted before it is sent, at the highest cost it can have, so a crash
never spends uncounted money; the row of a request that was not sent is removed, the row of one that was sent is corrected to its
real cost.

A day is the last 24 hours and a month the last 31 days of device time: a jump of the wall clock opens no new budget, and
no calendar month gets more than one month's budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from edge_agent.cloud.wire.request import Shape
from edge_agent.core.config.limits import DAY_S, BudgetLimits
from edge_agent.core.outcome import CloudOutcome
from edge_agent.core.question import Question
from edge_agent.store.store import Store

MONTH_S = 31 * DAY_S
_MOST_TIMES = 2  # of what was reserved is what one reply can cost, whatever it claims
_FRAME_TOKENS = 64  # the instruction and the roles that are sent with a question


@dataclass(slots=True)
class Reservation:
    """Permission to send a request of this `shape`, which may cost `micros` (millionths of the currency).

    `number` is its stored row; None if there is no limit and so nothing was counted. When a call sends its question again, it becomes
    the row of the last request; the rows before it belong to requests that were sent, and stay as they are. A call of less
    importance may use only a `share` of each limit.
    """

    number: int | None = None
    shape: Shape | None = None
    micros: int = 0
    share: float = 1.0


class Budget:
    """The budget of one endpoint. All methods run inside the caller's transaction.

    `shape` returns the form of its requests. If only its limit of tokens is too dear, a request is sent with `least_tokens` instead.
    """

    def __init__(
        self, store: Store, endpoint: str, limits: BudgetLimits, shape: Callable[[], Shape] = Shape, least_tokens: int | None = None
    ) -> None:
        self._store, self._endpoint, self.limits, self._shape, self._least_tokens = store, endpoint, limits, shape, least_tokens

    def reserve(self, question: Question, shape: Shape | None = None, share: float = 1.0) -> Reservation | None:
        """Count a request before it is sent; returns None if it would exceed the budget, or this `share` of it.

        The `shape` of the request decides what it may cost.
        """
        if not self.limits.is_set:
            return Reservation(shape=shape, share=share)
        if shape is not None:
            return self._reserve(question, shape, share)
        learned = self._shape()
        cheaper = replace(learned, max_tokens=min(learned.max_tokens, self._least_tokens or learned.max_tokens))
        return self._reserve(question, learned, share) or (self._reserve(question, cheaper, share) if cheaper != learned else None)

    def can_ever_pay(self, question: Question, shape: Shape) -> bool:
        """Whether such a request is within the budget at all, on a day and in a month when nothing else is sent."""
        money = (limit for limit in (self.limits.money_per_day, self.limits.money_per_month) if limit is not None)
        return self._highest_micros(question, shape) <= min(money, default=math.inf) * 1e6

    def _reserve(self, question: Question, shape: Shape, share: float) -> Reservation | None:
        self._store.clock.keep()  # what is counted must not lie in the future after a restart
        now_s = self._store.clock.now_s()
        micros = self._highest_micros(question, shape)
        if not self.allows(now_s, micros, share):
            return None
        self._store.drop_spending_before(self._endpoint, now_s - MONTH_S)
        return Reservation(self._store.put_spending(self._endpoint, now_s, micros), shape, micros, share)

    def _highest_micros(self, question: Question, shape: Shape) -> int:
        n_bytes = len(question.user_message.encode())  # a text never has more tokens than bytes
        return self._micros(n_bytes + shape.n_extra_bytes + _FRAME_TOKENS, shape.limit)

    def allows(self, now_s: float, micros: int, share: float = 1.0) -> bool:
        """Whether one more call that costs `micros` (millionths of the currency) stays within this share of all limits."""
        limits = self.limits
        for since_s, calls, money in (
            (DAY_S, limits.calls_per_day, limits.money_per_day),
            (MONTH_S, limits.calls_per_month, limits.money_per_month),
        ):
            n_calls, spent = self._store.spent(self._endpoint, now_s - since_s)
            if calls is not None and n_calls + 1 > calls * share:
                return False
            if money is not None and spent + micros > money * 1e6 * share:
                return False
        return True

    def close(self, reservation: Reservation, outcome: CloudOutcome | None) -> None:
        """Record how a reserved call ended (None: it was never made).

        A call that was sent stays counted at its highest possible cost, unless the reply says how many tokens it used. Some servers
        let a model think beyond the limit, and bill it; a reply that claims far more than was allowed uses up no more than that.
        """
        if reservation.number is None:
            return
        answer = outcome.answer if outcome else None
        if outcome is None or not outcome.was_sent:
            self._store.drop_spending(reservation.number)
        elif answer and answer.n_prompt_tokens is not None and answer.n_completion_tokens is not None:
            micros = self._micros(max(0, answer.n_prompt_tokens), max(0, answer.n_completion_tokens))
            self._store.correct_spending(reservation.number, min(micros, _MOST_TIMES * reservation.micros))

    def _micros(self, n_prompt: int, n_completion: int) -> int:
        """Millionths of the currency, rounded up: tokens times a price per million tokens."""
        return math.ceil(n_prompt * self.limits.prompt_price + n_completion * self.limits.completion_price)
