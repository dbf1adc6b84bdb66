"""A kind of question: a skill in a domain, with its wordings.

`Rule.make` turns operands into a stem, the right answer and wrong answers. Owns wordings and options, not operands or
splits. Invariant: names, labels and phrases vary freely and never decide whether a question is held out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from models.recipe.bank import options
from models.recipe.bank.skill import BEST, INDEXED, PICK, RANK, Operands, Skill

Show = Callable[[int | str], str]
Made = tuple[str, str, list[str]]
"""Stem, right answer, wrong answers."""

WHO = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Dana", "Hugo", "Ines", "Karim", "Lena", "Marat", "Nora", "Omar", "Paula", "Timur")


@dataclass(frozen=True, slots=True)
class Rule:
    """`make(rng, operands, n, widen)` writes a question with up to `n` options; `widen` moves wrong numbers away.

    `every` has all operands if there are few, as for facts, which cannot be worked out.
    """

    domain: str
    difficulty: int
    name: str
    skill: Skill
    make: Callable[[Random, Operands, int, float], Made]
    every: tuple[Operands, ...] = ()


def numeric(domain: str, difficulty: int, name: str, skill: Skill, *wordings: str, show: Show = str) -> Rule:
    """A question whose answer is a number, among numbers near it."""

    def make(rng: Random, operands: Operands, n: int, widen: float) -> Made:
        gold = skill.answer(*operands)
        wrong = options.around(rng, gold, n - 1, round(skill.spread * widen), skill.step)
        stem = rng.choice(wordings).format(*operands, who=rng.choice(WHO))
        return stem, show(gold), [show(value) for value in wrong]

    return Rule(domain, difficulty, name, skill, make)


def chosen(domain: str, difficulty: int, name: str, skill: Skill, choices: Sequence[str], *wordings: str) -> Rule:
    """A question whose answer is one of a fixed vocabulary."""

    def make(rng: Random, operands: Operands, n: int, widen: float) -> Made:
        gold = skill.answer(*operands)
        wrong = rng.sample([c for c in choices if c != gold], min(n, len(choices)) - 1)
        return rng.choice(wordings).format(*operands, who=rng.choice(WHO)), gold, wrong

    return Rule(domain, difficulty, name, skill, make)


def picked(domain: str, difficulty: int, name: str, labels: Sequence[str], *wordings: str, row: str = "{0} {1}", show: Show = str) -> Rule:
    """Several labelled numbers, and the question which one a label has: `{rows}` and `{label}` stand in the wording."""

    def make(rng: Random, operands: Operands, n: int, widen: float) -> Made:
        *values, at = operands
        names = rng.sample(list(labels), len(values))
        rows = ", ".join(row.format(label, show(value)) for label, value in zip(names, values, strict=True))
        stem = rng.choice(wordings).format(rows=rows, label=names[at], who=rng.choice(WHO))
        return stem, show(values[at]), [show(v) for i, v in enumerate(values) if i != at]

    return Rule(domain, difficulty, name, PICK, make)


def most(domain: str, name: str, labels: Sequence[str], high: str, low: str, row: str = "{1} {0}", show: Show = str) -> Rule:
    """Several labelled numbers, and the question whose is the highest (`high`) or lowest (`low`)."""

    def make(rng: Random, operands: Operands, n: int, widen: float) -> Made:
        *values, _ = operands
        names = rng.sample(list(labels), len(values))
        rows = ", ".join(row.format(label, show(value)) for label, value in zip(names, values, strict=True))
        best, wording = (max(values), high) if rng.random() < 0.5 else (min(values), low)
        gold = names[values.index(best)]
        return wording.format(rows=rows), gold, [name for name in names if name != gold]

    return Rule(domain, 2, name, BEST, make)


_RANKS = {2: ("smaller", "larger"), 3: ("smallest", "middle", "largest"), 4: ("smallest", "second smallest", "second largest", "largest"),
          5: ("smallest", "second smallest", "middle", "second largest", "largest")}  # fmt: skip


def ranked(domain: str, difficulty: int, name: str, *wordings: str, ranks: dict[int, tuple[str, ...]] = _RANKS, show: Show = str) -> Rule:
    """Several numbers, and the question which is the largest, the second largest, ...: every rank as often."""

    def make(rng: Random, operands: Operands, n: int, widen: float) -> Made:
        *values, rank = operands
        gold = RANK.answer(*operands)
        stem = rng.choice(wordings).format(values=", ".join(map(show, values)), rank=ranks[len(values)][rank], at=rank)
        return stem, show(gold), [show(v) for v in values if v != gold]

    return Rule(domain, difficulty, name, RANK, make)


def indexed(domain: str, name: str, *wordings: str) -> Rule:
    """A list and an index from zero."""

    def make(rng: Random, operands: Operands, n: int, widen: float) -> Made:
        *values, at = operands
        stem = rng.choice(wordings).format(values=", ".join(map(str, values)), at=at)
        return stem, str(values[at]), [str(v) for v in values if v != values[at]]

    return Rule(domain, 1, name, INDEXED, make)


def branched(domain: str, difficulty: int, name: str, skill: Skill, outcomes: Sequence[str], *wordings: str) -> Rule:
    """A value and a limit (or two), and which of the named outcomes follows: `{o[0]}` below the first limit, and so on."""

    def make(rng: Random, operands: Operands, n: int, widen: float) -> Made:
        names = rng.sample(list(outcomes), max(n, 3))
        at = int(skill.answer(*operands))
        return rng.choice(wordings).format(*operands, o=names), names[at], [name for i, name in enumerate(names) if i != at][: n - 1]

    return Rule(domain, difficulty, name, skill, make)


def dollars(value: int | str) -> str:
    return f"${value}"


def hundredths(value: int | str) -> str:
    return f"{int(value) // 100}.{int(value) % 100:02d}"
