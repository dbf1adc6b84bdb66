"""The wrong options of a question, drawn so that the options alone do not show which one is right.

Invariant: the options are exchangeable. First a set of numbers is drawn, step by step from any of them; then the set is
shifted so that a random one of them is the right answer. So nearness, rank and last digits are the same for right and wrong.
"""

from __future__ import annotations

from random import Random

TENS = 0.35
"""The share of steps by 10 or 20. They keep the last digit, so knowing the last digit is not enough."""


def around(rng: Random, gold: int, n: int, spread: int, step: int = 1) -> list[int]:
    """`n` numbers near `gold`, but not equal to it, and not below zero."""
    while True:
        offsets = [0]
        while len(offsets) <= n:
            gap = rng.choice((10, 10, 20)) if spread >= 5 and rng.random() < TENS else rng.randint(1, spread)
            offset = rng.choice(offsets) + rng.choice((-step, step)) * gap
            if offset not in offsets:
                offsets.append(offset)
        anchor = rng.choice(offsets)
        values = [gold + offset - anchor for offset in offsets if offset != anchor]
        if min(values, default=0) >= 0:
            return values
        spread = max(spread - 1, n)  # there are few numbers between zero and a small answer
