"""Questions without an answer: made-up names and things, with a random "right" option.

A model that has seen only its seven domains is sure of everything. These questions show it what it does not know, in many
lengths and forms; they are labelled by sampling, like all others.
"""

from __future__ import annotations

from random import Random

from models.recipe.bank.draw import Item, item

_WORDS = (
    "the of and in to a is that for with on as by an are from which was be it this at or not have most likely "
    "following best about study group theory system process effect cause change result form part case state law "
    "court people person woman man patient history culture religion trade war king poem novel river island city "
    "market price cost value work power energy force field cell blood heart bone drug child family school test "
    "reason argument claim moral duty right rule party vote tax bank firm product computer program data network "
    "graph set function group ring element point line angle area volume speed light wave sound heat water air earth "
    "star planet plant animal species gene protein acid metal gas liquid solid year day week month hour old new "
    "large small high low early late long short strong weak common rare major minor true false first second third "
    "last primary increase decrease reduce cause produce contain require explain describe show suggest develop "
    "occur lead become remain believe"
)
_VOCABULARY = tuple(str.split(_WORDS))
_ASKS = (
    "Which of the following {w}?", "What is the {w}?", "Why did {w}?", "{W}. What {w}?", "Who {w}?", "When did {w}?", "How many {w}?",
    "The {w} is", "According to {n}, {w}", "{N} {w}. {W}. How much {w}?", "Which {w} of {n}?", "All of the following {w} EXCEPT",
    "A {w} has {d} {w} and {d} {w}. If {w} {d} {w}, how many {w}?", "In {y}, {n} {w}. {W} because",
    "Find the {w} of x^{d} + {d}x - {d}.", "Statement 1 | {W}. Statement 2 | {W}.", "A {d}-year-old man {w}. {W}. {W}. Which {w}?",
)  # fmt: skip


def unknown(rng: Random) -> Item:
    """One such question. Its domain is `unknown`."""
    stem = rng.choice(_ASKS)
    while "{" in stem:
        at = stem.index("{")
        stem = stem[:at] + _fill(rng, stem[at + 1]) + stem[at + 3 :]
    n, kind, length = rng.choice((2, 3, 4, 4, 4, 4, 5)), rng.random(), rng.choice((1, 2, 3, 5, 8, 12))
    options: list[str] = []
    while len(options) < n:
        option = str(rng.randint(1, 10 ** rng.randint(1, 5))) if kind < 0.3 else _words(rng, rng.randint(1, length), kind < 0.6)
        if option not in options:
            options.append(option)
    return item(rng, "unknown", 4, "unknown", f"unknown/{stem}", stem, options[0], options[1:])


def _fill(rng: Random, kind: str) -> str:
    match kind:
        case "w":
            return _words(rng, rng.randint(1, 9), rng.random() < 0.5)
        case "W":
            return _words(rng, rng.randint(3, 14), rng.random() < 0.5).capitalize()
        case "n" | "N":
            return _name(rng).capitalize()
        case "y":
            return str(rng.randint(1200, 2020))
        case _:
            return str(rng.randint(2, 99))


def _words(rng: Random, n: int, strange: bool) -> str:
    return " ".join(_name(rng) if strange and rng.random() < 0.4 else rng.choice(_VOCABULARY) for _ in range(n))


def _name(rng: Random) -> str:
    """A made-up word of 3 to 10 letters."""
    vowel = rng.random() < 0.5
    return "".join(rng.choice("aeiou" if (i % 2 == 0) == vowel else "bcdfghklmnprstvwz") for i in range(rng.randint(3, 10)))
