"""Drawing questions: which rule, which operands, which split, which order of the options.

Invariant: a content always belongs to the same split (`split.py`), whatever the domain, the wording, the options or the
seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from models.recipe.bank import coding, finance, kazakh, law, mathematics, medical, science
from models.recipe.bank.skill import Skill
from models.recipe.bank.split import held_out

DOMAINS = ("finance", "science", "coding", "law", "math", "kazakh", "medical")
"""The domains of FogGen, in the order of its rotation."""

RULES = finance.RULES + science.RULES + coding.RULES + law.RULES + mathematics.RULES + kazakh.RULES + medical.RULES
OPTION_COUNTS = (2, 3, 4, 4, 4, 4, 5)


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


def draw(
    rng: Random,
    split: str = "train",
    domain: str | None = None,
    difficulty: int | None = None,
    skill: Skill | None = None,
    n_options: int = 0,
    widen: float = 1.0,
    facts: bool = False,
) -> Item:
    """One question of `split` ("train" or "test"). By default all domains, difficulties and option counts are equally likely.

    With `facts`, the few hundred facts may be asked too. With `skill`, only rules for that skill are used, in any domain and
    difficulty. A `widen` above 1 moves wrong numbers away from the right one, so that half-learned arithmetic already helps.
    """
    if skill:
        rule = rng.choice([rule for rule in RULES if rule.skill is skill])
    else:
        rule = rng.choice(_CELLS[facts][domain or rng.choice(DOMAINS), difficulty or rng.randint(1, 4)])
    n = n_options or rng.choice(OPTION_COUNTS)
    while True:
        operands = rule.skill.draw(rng, n)
        content = rule.skill.content(operands)
        if held_out(content) == (split == "test"):
            break
    stem, gold, wrong = rule.make(rng, operands, n, widen)
    return item(rng, rule.domain, rule.difficulty, rule.name, content, stem, gold, wrong)


def item(rng: Random, domain: str, difficulty: int, rule: str, content: str, stem: str, gold: str, wrong: list[str]) -> Item:
    """The question with its options in a random order."""
    options = [gold, *wrong]
    order = list(range(len(options)))
    rng.shuffle(order)
    return Item(domain, difficulty, rule, content, stem, tuple(options[i] for i in order), order.index(0))


def draw_many(seed: int | str, n: int, split: str, domain: str | None = None) -> Iterator[Item]:
    """`n` questions with different contents, the same for the same seed."""
    rng = Random(f"{seed}/{split}/{domain}")
    seen: set[str] = set()
    while len(seen) < n:
        drawn = draw(rng, split, domain)
        if drawn.content not in seen:
            seen.add(drawn.content)
            yield drawn


def draw_facts(seed: int | str, times: int, split: str = "test") -> Iterator[Item]:
    """Every fact of the split, asked `times` times with different options. There are few, so they are measured separately."""
    rng = Random(f"{seed}/{split}/facts")
    for rule in RULES:
        for operands in rule.every:
            content = rule.skill.content(operands)
            for _ in range(times if held_out(content) == (split == "test") else 0):
                stem, gold, wrong = rule.make(rng, operands, 4, 1.0)
                yield item(rng, rule.domain, rule.difficulty, rule.name, content, stem, gold, wrong)


_CELLS = {
    facts: {
        (d, k): [r for r in RULES if (r.domain, r.difficulty) == (d, k) and (facts or not r.every)] for d in DOMAINS for k in (1, 2, 3, 4)
    }
    for facts in (False, True)
}
