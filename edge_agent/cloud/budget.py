"""How much may be spent on a cloud, and what was.

Owns the table `spending`: one row for each call, reserved before it is made. Knows nothing of HTTP. Invariants: a call is
counted before it is sent, at the most that it can cost, so that a crash never spends what was not counted; what was not
sent is given back, what was sent is corrected to what it cost.

Days and months are the last 24 hours and 31 days of device time (`clock.py`): no jump of the wall clock opens a new budget,
and no calendar month sees more than one month's budget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge_agent.cloud.reply import MAX_COMPLETION_TOKENS
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer
from edge_agent.store.device_time import Clock
from edge_agent.store.store import Store

DAY_S, MONTH_S = 86_400.0, 31 * 86_400.0
_FRAME_TOKENS = 64  # the instruction and the roles around a question


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """What may be spent in a day and a month: calls, and money in whatever currency the prices (per million tokens) are in.

    None means without limit.
    """

    calls_per_day: int | None = None
    calls_per_month: int | None = None
    money_per_day: float | None = None
    money_per_month: float | None = None
    prompt_price: float = 0.0
    completion_price: float = 0.0

    @property
    def is_set(self) -> bool:
        """Whether there is any limit."""
        return any(limit is not None for limit in (self.calls_per_day, self.calls_per_month, self.money_per_day, self.money_per_month))


class Budget:
    """The budget of one endpoint, the one that bills. Everything happens inside the caller's transaction."""

    def __init__(self, store: Store, clock: Clock, endpoint: str, limits: BudgetLimits | None = None) -> None:
        self._store, self._clock, self._endpoint, self.limits = store, clock, endpoint, limits or BudgetLimits()

    def reserve(self, question: Question) -> int | None:
        """Count a call before it is made; gives its number, or None if that would be too much. 0 when there is no limit."""
        limits = self.limits
        if not limits.is_set:
            return 0
        now_s = self._clock.now_s()
        n_bytes = len(question.user_message.encode())  # no tokenizer makes more tokens than bytes
        micros = self._micros(n_bytes + _FRAME_TOKENS, MAX_COMPLETION_TOKENS)
        for since_s, calls, money in (
            (DAY_S, limits.calls_per_day, limits.money_per_day),
            (MONTH_S, limits.calls_per_month, limits.money_per_month),
        ):
            spent = self._store.rows(
                "SELECT count(*) AS n, coalesce(sum(micros), 0) AS micros FROM spending WHERE endpoint = ? AND at_s > ?",
                (self._endpoint, now_s - since_s),
            )[0]
            if calls is not None and spent["n"] >= calls:
                return None
            if money is not None and spent["micros"] + micros > money * 1e6:
                return None
        self._store.write("DELETE FROM spending WHERE endpoint = ? AND at_s <= ?", (self._endpoint, now_s - MONTH_S))
        number = self._store.write(
            "INSERT INTO spending (endpoint, at_s, micros) VALUES (?, ?, ?)", (self._endpoint, now_s, micros)
        ).lastrowid
        assert number is not None
        return number

    def close(self, number: int, answer: CloudAnswer | None, was_sent: bool) -> None:
        """Say how a reserved call ended. What was sent without an answer that names its tokens stays counted at the most."""
        if not number:
            return
        if not was_sent:
            self._store.write("DELETE FROM spending WHERE id = ?", (number,))
        elif answer and answer.n_prompt_tokens is not None and answer.n_completion_tokens is not None:
            micros = self._micros(max(0, answer.n_prompt_tokens), max(0, answer.n_completion_tokens))
            self._store.write("UPDATE spending SET micros = ? WHERE id = ?", (micros, number))

    def _micros(self, n_prompt: int, n_completion: int) -> int:
        """Millionths of the currency, rounded up: tokens times a price per million tokens."""
        return math.ceil(n_prompt * self.limits.prompt_price + n_completion * self.limits.completion_price)
