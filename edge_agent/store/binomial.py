"""What a count of cases says about their rate: exact limits, in plain Python.

Owns these formulas. Reads nothing. Invariant: an upper limit is too low, or a lower one too high, with at most the probability given.
"""

from __future__ import annotations

import math

_MOST_STEPS = 500
_TINY = 1e-300


def upper(cases: int, n: int, alpha: float) -> float:
    """The one-sided upper limit of a rate of which `cases` of `n` were seen (Clopper and Pearson 1934).

    It is below the true rate with probability `alpha` at most. 1 if nothing was seen.
    """
    if cases >= n:
        return 1.0
    low, high = cases / n, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        # P(at most `cases` of n) at this rate: it falls as the rate rises
        low, high = (middle, high) if 1 - beta_share(cases + 1, n - cases, middle) > alpha else (low, middle)
    return high


def lower(cases: int, n: int, alpha: float) -> float:
    """The one-sided lower limit of a rate (see `upper`); 0 if nothing was seen."""
    return 1.0 - upper(n - cases, n, alpha) if n else 0.0


def interval(cases: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval that contains the rate with at least this probability."""
    alpha = (1 - level) / 2
    return lower(cases, n, alpha), upper(cases, n, alpha)


def beta_share(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), which is P(at least `a` of a + b - 1 cases) at the rate x.

    By its continued fraction (DLMF 8.17.22), evaluated with Lentz's method.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # on this side the fraction converges slowly
        return 1 - beta_share(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    c, d = 1.0, 1 / _apart(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, _MOST_STEPS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            c, d = _apart(1 + term / c), 1 / _apart(1 + term * d)
            fraction *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return front * fraction


def _apart(value: float) -> float:
    """The value, or a tiny one in place of 0."""
    return value if abs(value) > _TINY else _TINY
