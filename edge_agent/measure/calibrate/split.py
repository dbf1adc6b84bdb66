"""Parts the questions of a data set: one part chooses, one tests, one reports.

Owns who is in which part. Knows no answers. Invariants: the part of a question follows from its fingerprint and the data set alone, so
the same data is always parted in the same way; a question that appears twice counts once, so no question is in two parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

WITH_TEST = (0.20, 0.70, 0.10)
"""Shares of the three parts for a guarantee: what the test keeps and finds decides how much can be promised."""
WITHOUT_TEST = (0.70, 0.0, 0.30)
"""Shares for a goal that is not tested: the first part chooses, the third reports."""


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The places of the questions of each part; `repeated` counts the rows left out because their question came before."""

    choose: npt.NDArray[np.intp]
    test: npt.NDArray[np.intp]
    report: npt.NDArray[np.intp]
    repeated: int

    @property
    def sizes(self) -> tuple[int, int, int]:
        """How many questions are in each part."""
        return len(self.choose), len(self.test), len(self.report)


def split(fingerprints: Sequence[str], salt: str, shares: tuple[float, float, float]) -> Parts:
    """Part questions by the order of a hash of `salt` and fingerprint; the sizes are `shares` of the different questions, rounded."""
    first = {fingerprint: place for place, fingerprint in reversed(list(enumerate(fingerprints)))}
    order = [place for _, place in sorted((_number(salt, fingerprint), place) for fingerprint, place in first.items())]
    a = round(shares[0] * len(order))
    b = a + round(shares[1] * len(order))
    chosen = np.array(order, dtype=np.intp)
    return Parts(np.sort(chosen[:a]), np.sort(chosen[a:b]), np.sort(chosen[b:]), len(fingerprints) - len(order))


def _number(salt: str, fingerprint: str) -> bytes:
    return hashlib.sha256(f"part-1:{salt}:{fingerprint}".encode()).digest()
