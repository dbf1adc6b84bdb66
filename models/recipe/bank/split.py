"""Which contents are held out for testing: one in five, by a hash of the content.

Invariant: the result depends only on the text of the content, so it is the same in every domain, wording and run.
"""

from __future__ import annotations

import hashlib

HELD_OUT_IN_100 = 20
ALWAYS_HELD_OUT = ("ratio/400,600",)
"""The published worked example: liabilities of $400M over equity of $600M."""


def held_out(content: str) -> bool:
    """Whether this content (a computation with its operands, or a fact with its relation) is held out for testing."""
    return content in ALWAYS_HELD_OUT or int.from_bytes(hashlib.sha256(content.encode()).digest()[:4]) % 100 < HELD_OUT_IN_100
