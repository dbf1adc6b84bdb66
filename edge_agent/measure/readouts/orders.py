"""Asks a question again with its options in other orders, and averages what the model says.

Small models favour a letter or a place. The mean over orders takes that out, at the price of one reading an order. Owns the
orders, the way back to the question's own letters, and the mean. Grades nothing. Invariant: a letter in an `OrderReading` is
always a letter of the question as it was given.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_agent.core.errors import BadQuestion
from edge_agent.core.question import LETTERS, Question
from edge_agent.core.records import OpenReading, Reading

ORDERS_2, ORDERS_ALL = "orders_2", "orders_all"
"""The names of the two readouts, in `Results.scores` and in every table."""
REVERSED, ALL = 2, len(LETTERS)
"""What `n_orders` may be: the given and the reversed order, or every cyclic shift (as many as the question has options)."""

Order = tuple[int, ...]
"""The places of the question's own options, in the order in which they are shown."""

_LETTER = r"\(?[{letters}]\)?"
_AND = r"(?:\s*(?:,|&|/|\band\b|\bor\b|\bnor\b|\bи\b|\bили\b|\bжәне\b|\bмен\b|\bнемесе\b)\s*)+"
_NAMED = (
    r"(?i:(?:both|neither|either|only)\s+)?(?i:(?:options?|answers?|choices?|statements?)\s+)?"
    r"{letter}(?:{and_}{letter})+(?i:\s+(?:only|above|below))?"
)
_ABOVE = re.compile(
    r"\b(?:all|none|any|both|neither|either|two|more than one)\b(?:\s+\w+){0,3}\s+(?:above|below|these|those|the (?:other|preceding))\b"
    r"|\ball of them\b|\bnone of them\b|\ball (?:answers|options|choices)\b|вышепереч|перечисленн|\bвсе (?:ответы|варианты)|"
    r"жоғарыда|\bбарлық (?:жауап|нұсқа)|\bбарлығы дұрыс",
    re.IGNORECASE,
)


class Reader(Protocol):
    """What is needed of a model: `LocalModel` is one."""

    def read_all(self, questions: Sequence[Question]) -> Sequence[Reading | OpenReading]:
        """One reading for each question."""
        ...


@dataclass(frozen=True, slots=True)
class OrderReading:
    """What the model says on average over `n_passes` orders of the options.

    `letter` has the highest mean probability, and `score` is that probability.
    `agreed` says whether the model chose the same option in every order. `ms` is the time of all readings.
    """

    letter: str
    score: float
    n_passes: int
    ms: float
    agreed: bool
    answer_probs: tuple[float, ...]


def orders(n_options: int, n_orders: int) -> list[Order]:
    """The orders to ask in; the given one is the first. `n_orders` is `REVERSED` or `ALL`."""
    given = tuple(range(n_options))
    if n_orders == REVERSED:
        return [given, given[::-1]]
    if n_orders != ALL:
        raise ValueError(f"{n_orders} orders; give {REVERSED} or {ALL}")
    return [given[shift:] + given[:shift] for shift in given]


def permuted(question: Question, order: Order) -> Question:
    """The question with its options in another order."""
    return Question(question.stem, tuple(question.options[place] for place in order), never_send=question.never_send)


def own_probs(reading: Reading, order: Order) -> tuple[float, ...]:
    """The probabilities of a reading in this order, in the order of the question's own letters."""
    probs = [0.0] * len(order)
    for place, p in zip(order, reading.answer_probs, strict=True):
        probs[place] = p
    return tuple(probs)


def read(model: Reader, question: Question, n_orders: int = REVERSED, given: Reading | None = None) -> OrderReading:
    """Ask in all orders and average. `given` is the reading of the question as it is, if there is one: it is not asked again.

    `given` counts as a pass, and its time counts. Raises `BadQuestion` for a question without options, and what the model raises.
    """
    if not question.options:
        raise BadQuestion("The question has no options, so they have no order; ask a question with options.")
    started = time.perf_counter()
    in_order = orders(len(question.options), n_orders)
    asked = model.read_all([permuted(question, order) for order in (in_order[1:] if given else in_order)])
    readings = [reading for reading in ((given, *asked) if given else asked) if isinstance(reading, Reading)]
    ms = (time.perf_counter() - started) * 1000 + (given.timings.total_ms if given else 0.0)
    return average(question, in_order, readings, ms)


def average(question: Question, in_order: Sequence[Order], readings: Sequence[Reading], ms: float) -> OrderReading:
    """The mean of readings that were made in these orders; of two letters with the same mean, the first one wins."""
    found = [own_probs(reading, order) for reading, order in zip(readings, in_order, strict=True)]
    means = tuple(sum(probs) / len(found) for probs in zip(*found, strict=True))
    best = max(range(len(means)), key=lambda place: means[place])
    chosen = {order[reading.letters.index(reading.letter)] for reading, order in zip(readings, in_order, strict=True)}
    return OrderReading(
        letter=question.letters[best],
        score=min(means[best], 1.0),  # a mean may exceed 1 by a rounding error
        n_passes=len(readings),
        ms=ms,
        agreed=len({question.same_as(question.letters[place]) for place in chosen}) == 1,
        answer_probs=means,
    )


def refers(question: Question) -> bool:
    """Whether an option seems to point at other options ("all of the above", "both A and B"), in English, Russian or Kazakh.

    Such a text does not change with the order, so in another order it may be wrong. These questions are asked all the same, and
    counted.
    """
    return next(_referring(question), None) is not None


def referring_note(questions: Iterable[Question]) -> str:
    """One sentence about how many questions have such an option; "" if none has."""
    flags = [refers(question) for question in questions]
    if not any(flags):
        return ""
    return (
        f'{sum(flags):,} of {len(flags):,} questions have an option that points at others ("all of the above", "both A and B"); '
        "in another order it may be wrong, which makes the averages over orders look worse than they are"
    )


def _referring(question: Question) -> Iterator[str]:
    letter = _LETTER.format(letters=question.letters)
    named = re.compile(_NAMED.format(letter=letter, and_=_AND))
    for option in question.options:
        if _ABOVE.search(option) or named.fullmatch(option.rstrip(". ")):
            yield option
