"""The source of a chain's questions: the bank, or the files of real data sets.

Invariant: training and measuring never share a question. The bank splits by content, a file by a hash of the stem.
"""

from __future__ import annotations

import hashlib
import pathlib
from collections import defaultdict
from collections.abc import Sequence
from random import Random
from typing import Protocol

from edge_agent.core.errors import BadData
from edge_agent.core.question import LETTERS
from edge_agent.measure.sets.labelled import NO_DOMAIN
from edge_agent.measure.sets.loading import domain_of, load
from models.recipe.bank import Item, draw_many


class Source(Protocol):
    """Questions by split and domain."""

    def draw(self, seed: str, n: int, split: str, domain: str) -> list[Item]:
        """`n` questions, the same for the same seed."""


class Bank:
    """The procedural bank."""

    def draw(self, seed: str, n: int, split: str, domain: str) -> list[Item]:
        return list(draw_many(seed, n, split, domain))


class Files:
    """Question files in any form that `edge-agent eval` reads; one question in five is held out for measuring.

    A question without a domain gets the name of its file, or of its folder if the file is called after a split (`train.jsonl`).
    """

    def __init__(self, paths: Sequence[pathlib.Path], most_options: int = len(LETTERS)) -> None:
        self._items: dict[tuple[str, str], list[Item]] = defaultdict(list)
        hashes = hashlib.sha256()
        for path in paths:
            data = load(path)
            hashes.update(data.sha256.encode())
            for row in data.rows:
                stem, options = row.question.stem, tuple(row.question.options)
                if row.answer not in LETTERS[: min(len(options), most_options)] or len(options) > most_options:
                    raise BadData(
                        f"the question {row.id} of {path} has {len(options)} options and the answer {row.answer!r:.40}; this recipe needs "
                        f"2 to {most_options} options and a letter"
                    )
                domain = row.domain if row.domain != NO_DOMAIN else domain_of(str(path))
                domain = domain if domain != NO_DOMAIN else path.absolute().parent.name
                split = "test" if hashlib.sha256(stem.encode()).digest()[0] < 51 else "train"
                item = Item(domain, row.difficulty or 0, "file", stem, stem, options, LETTERS.index(row.answer))
                self._items[split, domain].append(item)
        self.sha256 = hashes.hexdigest()

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains of the questions, in order."""
        return tuple(sorted({domain for _, domain in self._items}))

    def draw(self, seed: str, n: int, split: str, domain: str) -> list[Item]:
        items = self._items[split, domain]
        if not items:
            raise BadData(
                f"there is no question of the domain {domain!r} for {split}; give more questions, or other domains in chain.domains"
            )
        return Random(f"{seed}/{split}/{domain}").sample(items, min(n, len(items)))
