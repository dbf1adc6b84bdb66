"""What the questions are about: seven domains, four difficulties each.

Invariant: `answer` is exact (integers; hundredths for decimals), so a gold answer never depends on rounding of floats.
"""

from __future__ import annotations

import random

from models.recipe.bank import kazakh, words
from models.recipe.bank.rule import Rule, dollars, hundredths, ints, stepped


def _line(rng: random.Random) -> tuple[int | str, ...]:
    """a, b and c of a*x + b = c with a whole x."""
    a, b, x = rng.randint(2, 9), rng.randint(1, 30), rng.randint(1, 12)
    return (a, b, a * x + b)


MATH = (
    Rule("math", 1, "add", ints((2, 40), (2, 20)), lambda a, b: a + b, ("What is {0} + {1}?", "Add {0} and {1}.", "{0} + {1} = ?")),
    Rule("math", 1, "subtract", ints((20, 60), (2, 19)), lambda a, b: a - b, ("What is {0} - {1}?", "Take {1} from {0}.")),
    Rule(
        "math",
        2,
        "multiply",
        ints((2, 12), (2, 20)),
        lambda a, b: a * b,
        ("What is {0} * {1}?", "Multiply {0} by {1}.", "{0} times {1} is"),
    ),
    Rule("math", 3, "solve", _line, lambda a, b, c: (c - b) // a, ("Solve {0}x + {1} = {2}: x = ?", "{0}x + {1} = {2}. What is x?")),
    Rule("math", 3, "brackets", ints((2, 9), (2, 9), (2, 9)), lambda a, b, c: (a + b) * c, ("What is ({0} + {1}) * {2}?",)),
    Rule(
        "math",
        4,
        "remainder",
        ints((40, 199), (3, 9)),
        lambda a, b: a % b,
        ("What is the remainder of {0} divided by {1}?", "{0} mod {1} = ?"),
    ),
    Rule(
        "math",
        4,
        "two products",
        ints((3, 15), (3, 9), (3, 15), (3, 9)),
        lambda a, b, c, d: a * b + c * d,
        ("What is {0} * {1} + {2} * {3}?",),
    ),
)

FINANCE = (
    Rule(
        "finance",
        1,
        "profit",
        ints((20, 70), (2, 19)),
        lambda a, b: a - b,
        ("Revenue is ${0}M, costs are ${1}M. What is the profit?", "A firm earns ${0}M and spends ${1}M. Its profit is"),
        show=dollars,
    ),
    Rule(
        "finance",
        1,
        "equity",
        ints((20, 70), (2, 19)),
        lambda a, b: a - b,
        ("Assets are ${0}M, liabilities are ${1}M. What is the equity?",),
        show=dollars,
    ),
    Rule(
        "finance",
        2,
        "interest",
        stepped((100, 900, 100), (1, 12, 1)),
        lambda a, b: a * b // 100,
        ("What is one year of simple interest on ${0} at {1}%?", "${0} at {1}% simple interest for one year brings"),
        show="${}".format,
    ),
    Rule(
        "finance",
        3,
        "debt ratio",
        stepped((50, 900, 50), (100, 900, 100)),
        lambda a, b: a * 100 // b,
        (
            "A firm has liabilities of ${0}M and equity of ${1}M. What is the debt-to-equity ratio?",
            "Liabilities: ${0}M. Equity: ${1}M. Debt-to-equity ratio?",
        ),
        show=hundredths,
        spread=40,
    ),
    Rule(
        "finance",
        3,
        "years of interest",
        stepped((100, 900, 100), (2, 9, 1), (2, 5, 1)),
        lambda a, b, c: a * b * c // 100,
        ("What is the simple interest on ${0} at {1}% over {2} years?",),
        show="${}".format,
    ),
    Rule(
        "finance",
        4,
        "compound",
        stepped((100, 900, 100), (5, 50, 5)),
        lambda a, b: a * (100 + b) ** 2 // 100,
        ("${0} grows by {1}% a year, compounded. What is it after 2 years?",),
        show=hundredths,
        spread=90,
    ),
)

SCIENCE = (
    Rule(
        "science",
        1,
        "atomic number",
        words.element,
        lambda e: words.ELEMENTS[e],
        ("What is the atomic number of {0}?", "How many protons has an atom of {0}?"),
    ),
    Rule(
        "science",
        1,
        "celsius",
        ints(
            (1, 90),
        ),
        lambda c: c + 273,
        ("What is {0} degrees Celsius in kelvin (add 273)?", "{0} C in kelvin, with K = C + 273?"),
    ),
    Rule(
        "science",
        2,
        "distance",
        ints((2, 12), (2, 25)),
        lambda t, v: t * v,
        ("A body moves at {1} m/s for {0} s. How far does it go?", "Speed {1} m/s, time {0} s. Distance?"),
        show="{} m".format,
    ),
    Rule(
        "science",
        2,
        "force",
        ints((2, 12), (2, 20)),
        lambda m, a: m * a,
        ("A mass of {0} kg accelerates at {1} m/s2. What is the force?",),
        show="{} N".format,
    ),
    Rule(
        "science",
        3,
        "current",
        lambda rng: ((r := rng.randint(2, 12)) * rng.randint(2, 15), r),
        lambda u, r: u // r,
        ("A voltage of {0} V is across {1} ohm. What is the current?", "Voltage {0} V, resistance {1} ohm. Current?"),
        show="{} A".format,
    ),
    Rule(
        "science",
        4,
        "kinetic energy",
        lambda rng: (2 * rng.randint(1, 10), rng.randint(2, 12)),
        lambda m, v: m * v * v // 2,
        ("What is the kinetic energy of {0} kg at {1} m/s?",),
        show="{} J".format,
        spread=9,
    ),
    Rule(
        "science",
        4,
        "work",
        ints((2, 9), (2, 9), (2, 9)),
        lambda m, a, s: m * a * s,
        ("A mass of {0} kg accelerates at {1} m/s2 over {2} m. What is the work?",),
        show="{} J".format,
        spread=9,
    ),
)

CODING = (
    Rule(
        "coding", 1, "length", words.identifier, len, ("What does len('{0}') give?", "How many characters has the string '{0}'?"), spread=3
    ),
    Rule(
        "coding",
        1,
        "update",
        ints((2, 40), (2, 20)),
        lambda a, b: a + b,
        ("x = {0}; x += {1}. What is x?", "After x = {0} and x = x + {1}, x is"),
    ),
    Rule(
        "coding",
        2,
        "index",
        lambda rng: (*rng.sample(range(10, 99), 4), rng.randint(0, 3)),
        lambda *v: v[v[4]],
        ("a = [{0}, {1}, {2}, {3}]. What is a[{4}]?",),
        spread=9,
    ),
    Rule(
        "coding",
        2,
        "maximum",
        lambda rng: tuple(rng.sample(range(10, 99), 4)),
        lambda *v: max(v),
        ("What is max({0}, {1}, {2}, {3})?",),
        spread=9,
    ),
    Rule(
        "coding",
        3,
        "calls",
        ints((2, 9), (2, 20), (2, 9)),
        lambda a, b, c: a * b + c,
        ("def f(n): return {0} * n + {2}. What is f({1})?",),
    ),
    Rule(
        "coding",
        3,
        "binary",
        ints(
            (4, 63),
        ),
        lambda n: n,
        ("Which number is 0b{0:b} in decimal?", "int('{0:b}', 2) is"),
    ),
    Rule(
        "coding",
        4,
        "loop",
        ints((3, 12), (1, 9)),
        lambda n, k: k * n * (n - 1) // 2,
        ("s = 0; for i in range({0}): s += {1} * i. What is s?",),
        spread=9,
    ),
    Rule("coding", 4, "floor and mod", ints((30, 150), (3, 9)), lambda a, b: a // b + a % b, ("What is {0} // {1} + {0} % {1}?",)),
)

LAW = (
    Rule(
        "law",
        1,
        "majority",
        ints((3, 90), (15, 21)),
        lambda age, limit: "valid" if age >= limit else "void",
        (
            "Contracts need age {1}. A person aged {0} signs. The contract is",
            "Age of majority: {1}. A person of {0} signs a contract. It is",
        ),
        choices=("valid", "void", "criminal", "secret", "foreign"),
    ),
    Rule(
        "law",
        1,
        "notice",
        ints((1, 28), (2, 30)),
        lambda a, b: a + b,
        ("Notice is given on day {0} and runs {1} days. On which day does it end?",),
        show="day {}".format,
    ),
    Rule(
        "law",
        2,
        "limitation",
        ints((1950, 2015), (2, 30)),
        lambda y, n: y + n,
        ("A claim of {0} is barred after {1} years. In which year?", "Limitation is {1} years. The claim arose in {0}. It is barred in"),
    ),
    Rule(
        "law",
        3,
        "suspended",
        ints((1950, 2010), (2, 12), (1, 8)),
        lambda y, n, s: y + n + s,
        ("A claim of {0} is barred after {1} years, but the period was suspended for {2} years. In which year?",),
    ),
    Rule(
        "law",
        3,
        "shares",
        stepped((20, 960, 20), (2, 5, 1)),
        lambda a, n: a // n,
        ("An estate of ${0}K goes to {1} heirs in equal shares (rounded down). Each gets",),
        show="${}K".format,
        spread=9,
    ),
    Rule(
        "law",
        4,
        "fine",
        ints((2, 12), (10, 60), (2, 9)),
        lambda n, f, e: n * f + e * 10,
        ("The fine is ${1} for each of {0} days and $10 for each of {2} letters. What is owed?",),
        show="${}".format,
        spread=9,
    ),
)

MEDICAL = (
    Rule(
        "medical",
        1,
        "tablets",
        ints((2, 4), (3, 30)),
        lambda a, b: a * b,
        ("{0} tablets a day for {1} days. How many tablets?", "A patient takes {0} tablets a day for {1} days. In all?"),
    ),
    Rule("medical", 1, "rise", ints((50, 99), (2, 20)), lambda a, b: a + b, ("A pulse of {0} rises by {1}. What is it now?",)),
    Rule(
        "medical",
        2,
        "dose",
        ints((2, 12), (5, 25)),
        lambda a, b: a * b,
        ("The dose is {0} mg/kg and the patient weighs {1} kg. How much is given?", "Dose {0} mg/kg, weight {1} kg. Total?"),
        show="{} mg".format,
    ),
    Rule(
        "medical",
        3,
        "volume",
        lambda rng: ((c := rng.randint(2, 15)) * rng.randint(2, 12), c),
        lambda d, c: d // c,
        ("A dose of {0} mg is drawn from a solution of {1} mg/ml. How many ml?",),
        show="{} ml".format,
    ),
    Rule(
        "medical",
        3,
        "rate",
        lambda rng: ((h := rng.randint(2, 9)) * rng.randint(10, 60), h),
        lambda v, h: v // h,
        ("{0} ml run over {1} hours. What is the rate?",),
        show="{} ml/h".format,
    ),
    Rule(
        "medical",
        4,
        "split dose",
        lambda rng: ((n := rng.randint(2, 5)) * rng.randint(2, 6), rng.randint(5, 25), n),
        lambda a, b, n: a * b // n,
        ("{0} mg/kg a day for {1} kg, in {2} equal doses. How much is one dose?",),
        show="{} mg".format,
    ),
    Rule(
        "medical",
        4,
        "drops",
        lambda rng: (10 * rng.randint(3, 30), 20, 10 * rng.choice((1, 2, 3, 4, 5, 6))),
        lambda v, d, m: v * d // m,
        ("{0} ml at {1} drops/ml over {2} minutes. How many drops a minute (rounded down)?",),
        spread=9,
    ),
)

KAZAKH = (
    Rule(
        "kazakh",
        1,
        "read number",
        ints(
            (1, 99),
        ),
        lambda n: n,
        ("«{0}» деген сан қайсы?",),
        show=kazakh.numeral,
    ),
    Rule(
        "kazakh",
        2,
        "write number",
        lambda rng: (kazakh.numeral(rng.randint(1, 99)),),
        kazakh.value,
        ("«{0}» саны қалай жазылады?", "«{0}» is which number?"),
    ),
    Rule(
        "kazakh",
        3,
        "add",
        lambda rng: (kazakh.numeral(rng.randint(1, 40)), kazakh.numeral(rng.randint(1, 40))),
        lambda a, b: kazakh.value(a) + kazakh.value(b),
        ("{0} қосу {1} неге тең?",),
    ),
    Rule(
        "kazakh",
        3,
        "month after",
        lambda rng: (rng.choice(kazakh.MONTHS), rng.randint(1, 11)),
        lambda m, n: kazakh.MONTHS[(kazakh.MONTHS.index(m) + n) % 12],
        ("{0} айынан кейін {1} ай өткенде қай ай келеді?",),
        choices=kazakh.MONTHS,
    ),
    Rule(
        "kazakh",
        2,
        "day after",
        lambda rng: (rng.choice(kazakh.DAYS), rng.randint(1, 6)),
        lambda d, n: kazakh.DAYS[(kazakh.DAYS.index(d) + n) % 7],
        ("Бүгін {0}. {1} күннен кейін қай күн?",),
        choices=kazakh.DAYS,
    ),
    Rule(
        "kazakh",
        4,
        "multiply",
        lambda rng: (kazakh.numeral(rng.randint(2, 9)), kazakh.numeral(rng.randint(2, 12))),
        lambda a, b: kazakh.value(a) * kazakh.value(b),
        ("{0} көбейту {1} неге тең?",),
    ),
    Rule(
        "kazakh",
        4,
        "subtract",
        lambda rng: (kazakh.numeral(rng.randint(30, 99)), kazakh.numeral(rng.randint(2, 29))),
        lambda a, b: kazakh.value(a) - kazakh.value(b),
        ("{0} алу {1} неге тең?",),
    ),
)

RULES = MATH + FINANCE + SCIENCE + CODING + LAW + MEDICAL + KAZAKH
