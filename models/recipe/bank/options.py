"""The wrong options of a question, drawn so that the options alone say nothing about which is right.

Invariant: the options are exchangeable. A set of numbers is drawn first, by steps from any one to the next, and then
any one of them is put where the right answer is; so nearness, rank and last digits are the same for right and wrong.
"""

from __future__ import annotations

from random import Random

TENS = 0.35
"""Share of steps by 10 or 20: the last digit stays, so knowing it is not enough."""


def around(rng: Random, gold: int, n: int, spread: int, step: int = 1) -> list[int]:
    """`n` numbers above or equal to zero that are not `gold`, near it."""
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
        spread = max(spread - 1, n)  # a small answer has little room below
