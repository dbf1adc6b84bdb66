"""Bare sums for practice: `12 + 5 = 17`, many in one text, with operands of the train split only.

They teach arithmetic cheaply: a sum takes 8 tokens here and 30 in a question.
"""

from __future__ import annotations

from random import Random

from models.recipe.bank.draw import held_out
from models.recipe.bank.language import numeral
from models.recipe.bank.rule import hundredths
from models.recipe.bank.skill import DRILLED, RATIO, Skill


def sums(rng: Random, n: int, skills: tuple[Skill, ...] = DRILLED) -> list[tuple[str, str]]:
    """`n` pairs of a bare sum and its answer."""
    return [_sum(rng, rng.choice(skills)) for _ in range(n)]


def numerals(rng: Random, n: int) -> list[tuple[str, str]]:
    """`n` pairs of a number and its Kazakh name, in either direction."""
    return [_number(rng) for _ in range(n)]


def _sum(rng: Random, skill: Skill) -> tuple[str, str]:
    while True:
        operands = skill.draw(rng, 0)
        if not held_out(skill.content(operands)):
            answer = skill.answer(*operands)
            return skill.drill.format(*operands), hundredths(answer) if skill is RATIO else str(answer)


def _number(rng: Random) -> tuple[str, str]:
    while True:
        number = rng.randint(1, 999)
        if not held_out(f"numeral/{number}"):
            return (f"{number} =", numeral(number)) if rng.random() < 0.5 else (f"{numeral(number)} =", str(number))
