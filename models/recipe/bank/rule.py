"""What a kind of question is: a `Rule`, and the ways to draw its operands and to print its values.

A rule draws operands and computes the gold answer from them; it knows nothing of options or splits.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of question. `wordings` are format strings over the operands; `choices` are the possible answers of a
    question that is not about numbers; `show` prints a value; `spread` is how far wrong numbers lie from the gold.
    """

    domain: str
    difficulty: int
    name: str
    operands: Callable[[random.Random], tuple[int | str, ...]]
    answer: Callable[..., int | str]
    wordings: tuple[str, ...]
    choices: tuple[str, ...] = ()
    show: Callable[[int | str], str] = str
    spread: int = 5


def ints(*ranges: tuple[int, int]) -> Callable[[random.Random], tuple[int | str, ...]]:
    return lambda rng: tuple(rng.randint(low, high) for low, high in ranges)


def stepped(*ranges: tuple[int, int, int]) -> Callable[[random.Random], tuple[int | str, ...]]:
    return lambda rng: tuple(rng.randrange(low, high + 1, step) for low, high, step in ranges)


def hundredths(value: int | str) -> str:
    return f"{int(value) // 100}.{int(value) % 100:02d}"


def dollars(value: int | str) -> str:
    return f"${value}M"
