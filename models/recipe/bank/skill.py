"""The computation behind a question, in any domain: a `Skill` draws operands and computes the answer.

Owns the operands and the key of the split. Invariant: two questions have the same `content` if and only if they ask for the
same computation with the same operands, in any domain and wording, so held-out contents are held out everywhere. Answers
are exact integers (hundredths for decimals), so they do not depend on float rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

Operands = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Skill:
    """A computation. `draw(rng, n)` draws operands (`n` values if the options come from the question). Wrong numbers are
    about `spread` away, in multiples of `step`. `key` writes the operands so that equal computations have equal keys. `drill`
    is its bare form for practice.
    """

    name: str
    draw: Callable[[Random, int], Operands]
    answer: Callable[..., int | str]
    spread: int = 9
    step: int = 1
    key: Callable[..., Operands] = lambda *operands: operands
    drill: str = ""

    def content(self, operands: Operands) -> str:
        """The name and the operands, in a unique spelling."""
        return f"{self.name}/{','.join(map(str, self.key(*operands)))}"


def _ints(*ranges: tuple[int, int]) -> Callable[[Random, int], Operands]:
    return lambda rng, n: tuple(rng.randint(low, high) for low, high in ranges)


def _ordered(*operands: int) -> Operands:
    return tuple(sorted(operands))


def _subtract(low: int, high: int, least: int, most: int) -> Callable[[Random, int], Operands]:
    """a and b with a result above zero."""

    def draw(rng: Random, n: int) -> Operands:
        a = rng.randint(low, high)
        return a, rng.randint(least, min(most, a - 1))

    return draw


def _three(rng: Random, n: int) -> Operands:
    """a, b, c for a + b - c above zero."""
    a, b = rng.randint(11, 80), rng.randint(11, 80)
    return a, b, rng.randint(5, min(90, a + b - 1))


def _product_and_divisor(rng: Random, n: int) -> Operands:
    divisor = rng.randint(2, 9)
    return divisor * rng.randint(2, 99), divisor


def _line(rng: Random, n: int) -> Operands:
    """a, b and c of a*x + b = c with a whole x."""
    a, b, x = rng.randint(2, 9), rng.randint(1, 30), rng.randint(2, 20)
    return a, b, a * x + b


def _values(low: int, high: int) -> Callable[[Random, int], Operands]:
    """`n` different values and the place of one of them."""
    return lambda rng, n: (*rng.sample(range(low, high + 1), n), rng.randrange(n))


def _bracket(rng: Random, n: int) -> Operands:
    """A value and two limits, with the value below, between and above equally often."""
    low = rng.randint(20, 60)
    high = low + rng.randint(6, 30)
    return rng.choice((rng.randint(5, low - 1), rng.randint(low, high - 1), rng.randint(high, 99))), low, high


def _threshold(rng: Random, n: int) -> Operands:
    """A value and a limit, above and below equally often."""
    limit = rng.randint(15, 80)
    return rng.choice((rng.randint(2, limit - 1), rng.randint(limit, 99))), limit


def _ratio(a: int, b: int) -> int:
    return (200 * a + b) // (2 * b)  # hundredths, rounded to the nearest


ADD = Skill("add", _ints((11, 99), (2, 99)), lambda a, b: a + b, key=_ordered, drill="{0} + {1} =")
SUBTRACT = Skill("subtract", _subtract(12, 99, 2, 98), lambda a, b: a - b, drill="{0} - {1} =")
ADD_LARGE = Skill("add large", _ints((100, 899), (11, 99)), lambda a, b: a + b, drill="{0} + {1} =")
SUBTRACT_LARGE = Skill("subtract large", _subtract(110, 899, 11, 99), lambda a, b: a - b, drill="{0} - {1} =")
ADD_SUBTRACT = Skill("add and subtract", _three, lambda a, b, c: a + b - c, drill="{0} + {1} - {2} =")
MULTIPLY = Skill("multiply", _ints((2, 9), (2, 99)), lambda a, b: a * b, key=_ordered, drill="{0} * {1} =")
DIVIDE = Skill("multiply", _product_and_divisor, lambda p, d: p // d, spread=6, key=lambda p, d: _ordered(p // d, d), drill="{0} / {1} =")
LINEAR = Skill("linear", _ints((2, 9), (2, 30), (2, 60)), lambda a, b, c: a * b + c, drill="{0} * {1} + {2} =")
TWO_PRODUCTS = Skill("two products", _ints((2, 9), (2, 20), (2, 9), (2, 20)), lambda a, b, c, d: a * b + c * d,
                     drill="{0} * {1} + {2} * {3} =")  # fmt: skip
THREE_FACTORS = Skill("three factors", _ints((2, 9), (2, 9), (2, 20)), lambda a, b, c: a * b * c, drill="{0} * {1} * {2} =")
BRACKETS = Skill("brackets", _ints((2, 30), (2, 30), (2, 9)), lambda a, b, c: (a + b) * c, drill="({0} + {1}) * {2} =")
SOLVE = Skill("solve", _line, lambda a, b, c: (c - b) // a, spread=4, drill="{0}x + {1} = {2}, x =")
REMAINDER = Skill("remainder", _ints((20, 199), (3, 9)), lambda a, b: a % b, spread=2, drill="{0} mod {1} =")
FLOOR_MOD = Skill("floor and mod", _ints((20, 199), (3, 9)), lambda a, b: a // b + a % b, spread=4, drill="{0} // {1} + {0} % {1} =")
RATIO = Skill("ratio", lambda rng, n: (10 * rng.randint(5, 90), 10 * rng.randint(10, 80)), _ratio, spread=40, drill="{0} / {1} =")
NEXT = Skill("next", lambda rng, n: (a := rng.randint(2, 60), d := rng.randint(2, 25), a + d, a + 2 * d),
             lambda a, d, second, third: a + 3 * d, key=lambda a, d, second, third: (a, d), drill="{0}, {2}, {3},")  # fmt: skip
YEAR = Skill("year", _ints((1900, 2019), (2, 60)), lambda y, n: y + n, drill="{0} + {1} =")
YEAR_MORE = Skill("year more", _ints((1900, 2010), (2, 30), (2, 30)), lambda y, n, m: y + n + m, drill="{0} + {1} + {2} =")
BINARY = Skill("binary", _ints((4, 255)), lambda n: n, spread=5, drill="{0:b} in binary =")
PICK = Skill("pick", _values(10, 99), lambda *v: v[v[-1]])
RANK = Skill("rank", _values(10, 99), lambda *v: sorted(v[:-1])[v[-1]])
INDEXED = Skill("index", _values(10, 99), lambda *v: v[v[-1]])
BRACKET = Skill("bracket", _bracket, lambda value, low, high: (value >= low) + (value >= high))
THRESHOLD = Skill("threshold", _threshold, lambda value, limit: int(value >= limit))
BEST = Skill("best", _values(10, 99), lambda *v: v[v[-1]])

BASIC = (ADD, ADD, SUBTRACT, SUBTRACT, MULTIPLY, ADD_LARGE, LINEAR)
"""What is practised bare (`drill`) first."""

DRILLED = (*BASIC, MULTIPLY, MULTIPLY, SUBTRACT_LARGE, ADD_SUBTRACT, ADD_SUBTRACT, DIVIDE, YEAR, NEXT, RATIO)
"""All that is practised bare; the rest must be learned from questions, and stays hard."""
