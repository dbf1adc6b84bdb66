"""What a calibration is asked for.

Owns the goals, their units and their checks. Chooses nothing. Invariant: a `Goal` that exists can be worked on: its numbers are in range,
and a budget has the questions that it is for.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from edge_agent.core.errors import BadData
from edge_agent.model.calibration import GOALS

CLOUD_RATE, ACCURACY, BUDGET, MAX_LOCAL_ERROR = GOALS
DELTA = 0.05
_DAYS = {"day": 1.0, "week": 7.0, "month": 31.0}  # a month as the budget of the cloud counts it
_BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(day|week|month)")


@dataclass(frozen=True, slots=True)
class Price:
    """What a question costs at the cloud; prices are per million tokens, `tokens` the (prompt, completion) tokens of a question.

    None is what the results say.
    """

    prompt: float | None = None
    completion: float | None = None
    tokens: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Goal:
    """One of `GOALS` with its value, a fraction 0 to 1; a budget is money for each day.

    `delta` is the probability with which the guarantee of a local error may fail. A budget needs `questions_per_day` and, where the
    results have no prices and tokens of their own, a `price`. Raises `BadData` for a value that cannot be worked on.
    """

    kind: str
    value: float
    delta: float | None = None
    questions_per_day: float | None = None
    price: Price | None = None

    def __post_init__(self) -> None:
        if self.kind not in GOALS:
            raise BadData(f"There is no goal {self.kind!r}; use one of {', '.join(GOALS)}.")
        top = math.inf if self.kind == BUDGET else 1.0
        if not 0 <= self.value <= top or self.value == math.inf:
            raise BadData(f"The goal {self.kind} is {self.value:g}; give a number from 0 to {'any amount' if top > 1 else '1'}.")
        if self.kind == MAX_LOCAL_ERROR:
            if not 0 < self.value < 1:
                raise BadData(f"A largest local error of {self.value:g} cannot be tested; give a number between 0 and 1, such as 0.15.")
            if self.delta is None or not 0 < self.delta < 1:
                raise BadData(f"A guarantee that fails with probability {self.delta} is none; give a delta between 0 and 1, such as 0.05.")
        if self.kind == BUDGET and not (self.questions_per_day and 0 < self.questions_per_day < math.inf):
            raise BadData("A budget needs the number of questions that come in a day; give --questions-per-day.")


def money_per_day(text: str) -> float:
    """The money for a day in '3.00/day', '20/week' or '60/month'. Raises `BadData`."""
    found = _BUDGET.fullmatch(text.strip().lower())
    if not found:
        raise BadData(f"The budget {text!r:.40} is not an amount for a time; write it as 3.00/day, 20/week or 60/month.")
    return float(found[1]) / _DAYS[found[2]]
