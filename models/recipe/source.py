"""The source of a chain's questions: the bank, or a JSONL file of a real data set.

Invariant: training and measuring never share a question. The bank splits by content, a file by a hash of the stem.
"""

from __future__ import annotations

import hashlib
import pathlib
from collections import defaultdict
from random import Random
from typing import Protocol

from edge_agent.core.errors import BadData
from edge_agent.measure.sets.loading import load
from models.recipe.bank import DOMAINS, Item, draw_many


class Source(Protocol):
    """Questions by split and domain."""

    def draw(self, seed: str, n: int, split: str, domain: str) -> list[Item]:
        """`n` questions, the same for the same seed."""


class Bank:
    """The procedural bank."""

    def draw(self, seed: str, n: int, split: str, domain: str) -> list[Item]:
        return list(draw_many(seed, n, split, domain))


class Files:
    """A JSONL file with `question`, `options`, `answer` and `domain`; one question in five is held out for measuring."""

    def __init__(self, path: pathlib.Path) -> None:
        self._items: dict[tuple[str, str], list[Item]] = defaultdict(list)
        for row in load(path).rows:
            stem, options = row.question.stem, tuple(row.question.options)
            split = "test" if hashlib.sha256(stem.encode()).digest()[0] < 51 else "train"
            item = Item(row.domain, row.difficulty or 0, "file", stem, stem, options, "ABCDE".index(row.answer))
            self._items[split, row.domain].append(item)

    def draw(self, seed: str, n: int, split: str, domain: str) -> list[Item]:
        items = self._items[split, domain]
        if not items:
            raise BadData(f"there is no question of the domain {domain!r} for {split}; the file needs all of {', '.join(DOMAINS)}")
        return Random(f"{seed}/{split}/{domain}").sample(items, min(n, len(items)))
