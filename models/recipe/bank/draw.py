"""Drawing questions: which rule, which operands, which wrong options, which order.

Owns the split and the options. Invariant: a content (a rule with its operands) belongs to `train` or to `test` by
a hash of itself alone, whatever the wording, the options or the seed; and the gold answer's rank among numeric
options is uniform, so that the options alone do not give it away.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

from models.recipe.bank.rule import Rule
from models.recipe.bank.rules import RULES

DOMAINS = ("finance", "science", "coding", "law", "math", "kazakh", "medical")
OPTION_COUNTS = (2, 3, 4, 4, 4, 4, 5)
HELD_OUT_IN_100 = 20


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its gold option (`gold` is an index into `options`); `difficulty` is 1 (easy) to 4."""

    domain: str
    difficulty: int
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
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:4]) % 100 < HELD_OUT_IN_100


def draw(
    rng: random.Random,
    split: str = "train",
    domain: str | None = None,
    difficulty: int | None = None,
    n_options: int = 0,
    widen: float = 1.0,
) -> Item:
    """One question of `split` ("train" or "test"); any domain, difficulty and option count unless given.

    `widen` above 1 sets wrong numbers further from the gold, so that half-learned arithmetic already pays.
    """
    rules = [r for r in RULES if domain in (None, r.domain) and difficulty in (None, r.difficulty)]
    while True:
        rule = rng.choice(rules)
        operands = rule.operands(rng)
        content = f"{rule.domain}/{rule.name}/{','.join(map(str, operands))}"
        if held_out(content) == (split == "test"):
            break
    gold = rule.answer(*operands)
    wrong = _wrong_answers(rng, rule, gold, (n_options or rng.choice(OPTION_COUNTS)) - 1, widen)
    options = [rule.show(value) for value in [gold, *wrong]]
    order = list(range(len(options)))
    rng.shuffle(order)
    stem = rng.choice(rule.wordings).format(*operands)
    return Item(rule.domain, rule.difficulty, content, stem, tuple(options[i] for i in order), order.index(0))


def draw_many(seed: int, n: int, split: str, domain: str | None = None) -> Iterator[Item]:
    """`n` questions of different contents, the same for the same seed; fewer where the contents run out."""
    rng = random.Random(f"{seed}/{split}/{domain}")
    seen: set[str] = set()
    misses = 0
    while len(seen) < n and misses < 50 * n:
        item = draw(rng, split, domain)
        if item.content in seen:
            misses += 1
            continue
        seen.add(item.content)
        yield item


def _wrong_answers(rng: random.Random, rule: Rule, gold: int | str, n: int, widen: float) -> list[int | str]:
    if rule.choices:
        others = [choice for choice in rule.choices if choice != gold]
        return list(rng.sample(others, min(n, len(others))))
    assert isinstance(gold, int)
    below = rng.randint(0, n)  # how many of the wrong ones are smaller: uniform, so rank tells nothing
    below = min(below, gold)  # no negative amounts
    spread = round(rule.spread * widen)
    down = _distinct_gaps(rng, below, limit=gold, wide=spread)
    up = _distinct_gaps(rng, n - below, limit=None, wide=spread)
    return [gold - gap for gap in down] + [gold + gap for gap in up]


def _distinct_gaps(rng: random.Random, n: int, limit: int | None, wide: int) -> list[int]:
    pool = [gap for gap in range(1, max(wide, n) + 1) if limit is None or gap <= limit]
    pool += [10] if limit is None or limit >= 10 else []
    return rng.sample(sorted(set(pool)), n)
