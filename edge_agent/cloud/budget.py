"""How much may be spent on a cloud, and what was.

Owns the rule: one stored row per call, reserved before the call is made. Knows nothing of HTTP. Invariants: a call is counted
before it is sent, at the most that it can cost, so that a crash never spends what was not counted; a call that was not sent
is taken back, one that was sent is corrected to what it cost.

Days and months are the last 24 hours and 31 days of device time: no jump of the wall clock opens a new budget, and no
calendar month sees more than one month's budget.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from edge_agent.cloud.reply import MAX_COMPLETION_TOKENS
from edge_agent.core.limits import DAY_S, BudgetLimits
from edge_agent.core.outcome import CloudOutcome
from edge_agent.core.question import Question
from edge_agent.store.store import Store

MONTH_S = 31 * DAY_S
_FRAME_TOKENS = 64  # the instruction and the roles around a question


class Reservation(NamedTuple):
    """A call that may be made; `number` is that of its stored row, None if nothing is limited and so nothing was counted."""

    number: int | None = None


class Budget:
    """The budget of one endpoint, the one that bills. Everything happens inside the caller's transaction."""

    def __init__(self, store: Store, endpoint: str, limits: BudgetLimits) -> None:
        self._store, self._endpoint, self.limits = store, endpoint, limits

    def reserve(self, question: Question) -> Reservation | None:
        """Count a call before it is made; None if it would exceed the budget."""
        limits = self.limits
        if not limits.is_set:
            return Reservation()
        now_s = self._store.clock.now_s()
        n_bytes = len(question.user_message.encode())  # no tokenizer makes more tokens than bytes
        micros = self._micros(n_bytes + _FRAME_TOKENS, MAX_COMPLETION_TOKENS)
        for since_s, calls, money in (
            (DAY_S, limits.calls_per_day, limits.money_per_day),
            (MONTH_S, limits.calls_per_month, limits.money_per_month),
        ):
            n_calls, spent = self._store.spent(self._endpoint, now_s - since_s)
            if calls is not None and n_calls >= calls:
                return None
            if money is not None and spent + micros > money * 1e6:
                return None
        self._store.drop_spending_before(self._endpoint, now_s - MONTH_S)
        return Reservation(self._store.put_spending(self._endpoint, now_s, micros))

    def close(self, reservation: Reservation, outcome: CloudOutcome | None) -> None:
        """Say how a reserved call ended (None: it was never made).

        What was sent stays counted at the most that it can cost, unless the answer names its tokens.
        """
        if reservation.number is None:
            return
        answer = outcome.answer if outcome else None
        if outcome is None or not outcome.was_sent:
            self._store.drop_spending(reservation.number)
        elif answer and answer.n_prompt_tokens is not None and answer.n_completion_tokens is not None:
            micros = self._micros(max(0, answer.n_prompt_tokens), max(0, answer.n_completion_tokens))
            self._store.correct_spending(reservation.number, micros)

    def _micros(self, n_prompt: int, n_completion: int) -> int:
        """Millionths of the currency, rounded up: tokens times a price per million tokens."""
        return math.ceil(n_prompt * self.limits.prompt_price + n_completion * self.limits.completion_price)
