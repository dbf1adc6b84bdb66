"""The fingerprint of the bank: a hash of what it draws, so that a run cannot continue with another bank.

Invariant: any change to an operand, an answer, a wording, an option or the split that shows in 350 draws of each split
changes the fingerprint.
"""

from __future__ import annotations

import hashlib
from random import Random

from models.recipe.bank import drills, facts
from models.recipe.bank.draw import DOMAINS, draw_facts, draw_many
from models.recipe.bank.unknown import unknown

_PER_DOMAIN = 50


def fingerprint() -> str:
    """sha256 over questions of both splits, practised sums, stated facts and unanswerable questions."""
    digest = hashlib.sha256()
    for split in ("train", "test"):
        for domain in DOMAINS:
            for item in draw_many("frozen", _PER_DOMAIN, split, domain):
                digest.update(repr(item).encode())
        digest.update(repr(list(draw_facts("frozen", 1, split))).encode())
    rng = Random("frozen")
    digest.update(repr(drills.sums(rng, 100)).encode())
    digest.update(repr([facts.sentences(rng, 5) for _ in range(100)]).encode())
    digest.update(repr([unknown(rng) for _ in range(100)]).encode())
    return digest.hexdigest()
