"""Typed decisions: a choice, yes or no, or a score over one state, as multiple-choice questions that a FogGen model can answer.

Owns how a typed question is worded, the rounds of one with more than 26 options, and the figures that typed APIs define. Knows no
HTTP and no model; pure. Invariants: all questions over one state begin with the same text, so a model evaluates it once; the
probabilities of all options sum to 1, and the winner of the last round has the largest.

FogGen models were trained for the choice. Yes or no is a choice between "Yes" and "No", and a score a choice between its levels:
both are mappings of ours, whose probabilities nobody has calibrated.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from edge_agent.core.errors import BadData, BadQuestion
from edge_agent.core.plain_text import EMPTY, on_one_line, written
from edge_agent.core.question import LETTERS, Question

MAX_OPTIONS = 255  # of a choice
MAX_LEVELS = 10  # of a score


class TypedKind(StrEnum):
    """What is asked for."""

    CHOICE = "choice"
    YES_NO = "yes_no"
    SCORE = "score"


_INSTRUCTIONS = {  # where none are given
    TypedKind.CHOICE: "Which option fits best?",
    TypedKind.YES_NO: "Yes or no?",
    TypedKind.SCORE: "Which level fits best?",
}


@dataclass(frozen=True, slots=True)
class TypedQuestion:
    """One typed question in words: the `stem` is the state and then the instructions, each of the `options` has one line.

    Make one with `choice`, `yes_no` or `score`. The state, the instructions and the descriptions are texts or structured (JSON).
    All raise `BadQuestion`. An option is its name, followed by its description if there is one; two that would be the same text
    also get their numbers ("red (option 2)"), because an answer could not tell them apart.
    """

    kind: TypedKind
    stem: str
    options: tuple[str, ...]
    never_send: bool = False

    @classmethod
    def choice(cls, state: object, instructions: object, options: Iterable[tuple[str, object]], *, never_send: bool = False) -> Self:
        """A choice between 2 to 255 named options; each is a name and a description, which may be None."""
        texts = [_option(name, description, number) for number, (name, description) in enumerate(options, 1)]
        return cls._of(TypedKind.CHOICE, state, instructions, texts, MAX_OPTIONS, "options", never_send)

    @classmethod
    def yes_no(
        cls, state: object, instructions: object, if_true: object = None, if_false: object = None, *, never_send: bool = False
    ) -> Self:
        """Yes (the first option) or no; `if_true` and `if_false` say when, and may be None."""
        texts = [_option("Yes", if_true, 1), _option("No", if_false, 2)]
        return cls._of(TypedKind.YES_NO, state, instructions, texts, 2, "options", never_send)

    @classmethod
    def score(cls, state: object, instructions: object, levels: Iterable[object], *, never_send: bool = False) -> Self:
        """A score: 2 to 10 levels from the lowest to the highest, each with its description."""
        texts = [on_one_line(level, f"level {number}") or EMPTY for number, level in enumerate(levels)]
        return cls._of(TypedKind.SCORE, state, instructions, texts, MAX_LEVELS, "levels", never_send)

    @classmethod
    def _of(cls, kind: TypedKind, state: object, instructions: object, texts: list[str], most: int, what: str, never_send: bool) -> Self:
        if not 2 <= len(texts) <= most:
            counted = f"one {what[:-1]}" if len(texts) == 1 else f"{len(texts)} {what}"
            raise BadQuestion(f"The {kind} has {counted}, but it needs 2 to {most}.")
        parts = [written(state, "state"), written(instructions, "instructions") or _INSTRUCTIONS[kind]]
        made = cls(kind, "\n\n".join(part for part in parts if part), tuple(_all_different(texts)), never_send)
        for question in Rounds(made).questions:
            question.check_options_differ()
        return made


def _option(name: str, description: object, number: int) -> str:
    if not isinstance(name, str):
        raise BadQuestion(f"The name of option {number} is {name!r:.80}; give a text.")
    said = on_one_line(description, f"description of option {number}")
    return f"{_folded(name)}: {said}" if said else _folded(name)


def _folded(name: str) -> str:
    return " ".join(name.split()) or EMPTY


def _all_different(texts: list[str]) -> list[str]:
    """The texts; those that occur more than once, however they are encoded, with their number."""
    found = list(texts)
    taken = Counter(unicodedata.normalize("NFC", text) for text in texts)
    for i, text in enumerate(texts):
        if taken[unicodedata.normalize("NFC", text)] > 1:
            numbered = f"{text} (option {i + 1})"
            while unicodedata.normalize("NFC", numbered) in taken:  # an option has this very name
                numbered += f" (option {i + 1})"
            found[i] = numbered
    return found


class Rounds:
    """The rounds in which a typed question is asked: one for up to 26 options.

    With more, groups of about the same size (at most 26) are asked first, each as a question of its own, and the winners meet in the
    next round. Ask `questions`, pass the probabilities to `answered`, and go on until `is_over`. Only the last round may go to the
    cloud: the answers of an earlier one are nobody's result.
    """

    def __init__(self, asked: TypedQuestion) -> None:
        self.asked = asked
        self._groups = _split(range(len(asked.options)))
        self._played: list[tuple[list[tuple[int, ...]], list[tuple[float, ...]]]] = []

    @property
    def is_over(self) -> bool:
        """Whether the last round was answered."""
        return bool(self._played) and len(self._played[-1][0]) == 1

    @property
    def is_last(self) -> bool:
        """Whether the current round is the last one."""
        return len(self._groups) == 1

    @property
    def questions(self) -> list[Question]:
        """The questions of the current round."""
        asked = self.asked
        return [Question(asked.stem, tuple(asked.options[i] for i in group), never_send=asked.never_send) for group in self._groups]

    def answered(self, probs: Sequence[Sequence[float]]) -> None:
        """Take the probabilities of each question of the current round, in the order of its letters. Raises `BadData`.

        The winner of a question is its most probable option, the first of equals.
        """
        taken = [tuple(map(float, row)) for row in probs]
        if self.is_over or list(map(len, taken)) != list(map(len, self._groups)):
            raise BadData(f"The probabilities of {len(taken)} questions do not belong to this round; give one for each option.")
        for row in taken:
            if not all(0 <= p <= 1 for p in row) or abs(math.fsum(row) - 1) > 0.01:
                raise BadData(f"The probabilities {row!r:.80} are not between 0 and 1 with the sum 1.")
        self._played.append((self._groups, taken))
        if not self.is_last:
            self._groups = _split([group[_largest(row)] for group, row in zip(self._groups, taken, strict=True)])

    @property
    def winner(self) -> int:
        """The index of the winner of the last round, which has the largest of `probabilities`."""
        (group,), (row,) = self._last()
        return group[_largest(row)]

    @property
    def probabilities(self) -> tuple[float, ...]:
        """The probability of every option, in their order; the sum is 1.

        By Luce's choice axiom (1959) the odds of two options do not depend on which others are there. So an option that lost to the
        winner of its group has the winner's probability in the next round, times their odds in the group.
        """
        (last,), (row,) = self._last()
        found = dict(zip(last, row, strict=True))
        for groups, rows in reversed(self._played[:-1]):
            for group, probs in zip(groups, rows, strict=True):
                best = _largest(probs)
                share = found[group[best]]
                found |= {option: share * (p / probs[best]) for option, p in zip(group, probs, strict=True)}
        total = math.fsum(found.values())
        return tuple(found[option] / total for option in range(len(self.asked.options)))

    def _last(self) -> tuple[list[tuple[int, ...]], list[tuple[float, ...]]]:
        if not self.is_over:
            raise BadData("The last round of this question was not answered yet; ask its questions first.")
        return self._played[-1]


_LEAST_POWER = 1e-3  # keeps the order of the probabilities


def tempered(probabilities: Sequence[float], most: float) -> list[float]:
    """The probabilities raised to a common power, so that the largest is `most`; their order stays, and so do equal ones.

    Where that would take a power near 0 (`most` is an even share, or less), all are nearly alike.
    """
    logs = [math.log(max(p, 1e-300)) for p in probabilities]
    top = max(logs)

    def powered(power: float) -> list[float]:
        weights = [math.exp(power * (log - top)) for log in logs]
        return [weight / math.fsum(weights) for weight in weights]

    low, high = _LEAST_POWER, 1.0
    while max(powered(high)) < most and high < 1 << 20:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if max(powered(middle)) < most else (low, middle)
    return powered(high)


def confidence(probs: Sequence[float]) -> float:
    """How far the largest of n probabilities is above chance: (n p - 1) / (n - 1), from 0 to 1."""
    n = len(probs)
    return 1.0 if n < 2 else min(1.0, max(0.0, (n * max(probs) - 1) / (n - 1)))


def score_confidence(probs: Sequence[float]) -> float:
    """How close to its most probable level a score is, from 0 to 1.

    It is 1 - D / U. D is the expected distance from the most probable level (the first of equals), counted in levels. U is the mean
    distance of all levels from their middle.
    """
    n, best = len(probs), _largest(probs)
    if n < 2:
        return 1.0
    distance = math.fsum(p * abs(level - best) for level, p in enumerate(probs))
    uniform = math.fsum(abs(level - (n - 1) / 2) for level in range(n)) / n
    return min(1.0, max(0.0, 1 - distance / uniform))


def expected_score(probs: Sequence[float]) -> float:
    """The mean level, from 0 to n - 1."""
    return math.fsum(level * p for level, p in enumerate(probs))


def _largest(probs: Sequence[float]) -> int:
    return max(range(len(probs)), key=probs.__getitem__)


def _split(options: Sequence[int]) -> list[tuple[int, ...]]:
    """The options in as few groups as possible, in order; the sizes differ by one at most."""
    n = len(options)
    k = -(-n // len(LETTERS))
    return [tuple(options[n * i // k : n * (i + 1) // k]) for i in range(k)]
