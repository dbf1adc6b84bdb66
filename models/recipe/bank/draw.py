"""Drawing questions: which rule, which operands, which split, which order of the options.

Owns the split. Invariant: a content (a computation with its operands, or a fact with its relation) belongs to `train`
or to `test` by a hash of itself alone, whatever the domain, the wording, the options or the seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from models.recipe.bank import coding, finance, kazakh, law, mathematics, medical, science

DOMAINS = ("finance", "science", "coding", "law", "math", "kazakh", "medical")
"""FogGen's, in the order of its rotation."""

RULES = finance.RULES + science.RULES + coding.RULES + law.RULES + mathematics.RULES + kazakh.RULES + medical.RULES
OPTION_COUNTS = (2, 3, 4, 4, 4, 4, 5)
HELD_OUT_IN_100 = 20
ALWAYS_HELD_OUT = ("ratio/400,600",)
"""The published worked example: liabilities of $400M over equity of $600M."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its gold option (`gold` is an index into `options`); `difficulty` is 1 (easy) to 4."""

    domain: str
    difficulty: int
    rule: str
    content: str
    stem: str
    options: tuple[str, ...]
    gold: int

    @property
    def answer(self) -> str:
        return self.options[self.gold]

    @property
    def letter(self) -> str:
        return "ABCDE"[self.gold]


def held_out(content: str) -> bool:
    """Whether this content is kept for testing: one in five, by its own hash."""
    return content in ALWAYS_HELD_OUT or int.from_bytes(hashlib.sha256(content.encode()).digest()[:4]) % 100 < HELD_OUT_IN_100


def draw(
    rng: Random, split: str = "train", domain: str | None = None, difficulty: int | None = None, n_options: int = 0, widen: float = 1.0
) -> Item:
    """One question of `split` ("train" or "test"): any domain, difficulty and option count, as likely as any other.

    `widen` above 1 sets wrong numbers further from the gold, so that half-learned arithmetic already pays.
    """
    domain, difficulty = domain or rng.choice(DOMAINS), difficulty or rng.randint(1, 4)
    rule = rng.choice(_RULES[domain, difficulty])
    n = n_options or rng.choice(OPTION_COUNTS)
    while True:
        operands = rule.skill.draw(rng, n)
        content = rule.skill.content(operands)
        if held_out(content) == (split == "test"):
            break
    stem, gold, wrong = rule.make(rng, operands, n, widen)
    return item(rng, domain, difficulty, rule.name, content, stem, gold, wrong)


def item(rng: Random, domain: str, difficulty: int, rule: str, content: str, stem: str, gold: str, wrong: list[str]) -> Item:
    """The question with its options in a random order."""
    options = [gold, *wrong]
    order = list(range(len(options)))
    rng.shuffle(order)
    return Item(domain, difficulty, rule, content, stem, tuple(options[i] for i in order), order.index(0))


def draw_many(seed: int | str, n: int, split: str, domain: str | None = None) -> Iterator[Item]:
    """`n` questions of different contents, the same for the same seed."""
    rng = Random(f"{seed}/{split}/{domain}")
    seen: set[str] = set()
    while len(seen) < n:
        drawn = draw(rng, split, domain)
        if drawn.content not in seen:
            seen.add(drawn.content)
            yield drawn


_RULES = {(d, k): [r for r in RULES if (r.domain, r.difficulty) == (d, k)] for d in DOMAINS for k in (1, 2, 3, 4)}
