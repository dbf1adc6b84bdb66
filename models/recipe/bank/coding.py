"""Coding, in Python."""

from models.recipe.bank import facts, skill
from models.recipe.bank.rule import branched, indexed, numeric, picked, ranked

_NAMES = ("x", "y", "z", "n", "k", "size", "total", "left", "top", "rate")
_WORDS = ("red", "blue", "green", "north", "south", "east", "west", "fast", "slow", "warm")

RULES = (
    indexed("coding", "index", "a = [{values}]. What is a[{at}]?"),
    picked("coding", 4, "dictionary", _NAMES, "d = {{{rows}}}. What is d['{label}']?", row="'{0}': {1}"),
    branched("coding", 1, "branch", skill.THRESHOLD, _WORDS, "s = '{o[0]}' if {0} < {1} else '{o[1]}'. What is s?"),
    numeric("coding", 3, "update", skill.ADD, "x = {0}; x += {1}. What is x?"),
    numeric("coding", 3, "difference", skill.SUBTRACT, "x = {0}; x -= {1}. What is x?"),
    facts.asked("coding", 3, facts.STATUS_CODES),
    ranked("coding", 2, "sorted", "What is sorted([{values}])[{at}]?"),
    numeric("coding", 4, "chain", skill.ADD_SUBTRACT, "x = {0}; x += {1}; x -= {2}. What is x?"),
    numeric("coding", 4, "product", skill.MULTIPLY, "x = {1}; x *= {0}. What is x?"),
    numeric("coding", 4, "calls", skill.LINEAR, "def f(n): return {0} * n + {2}. What is f({1})?"),
    numeric("coding", 4, "binary", skill.BINARY, "What is 0b{0:b} in decimal?"),
    numeric("coding", 4, "floor and mod", skill.FLOOR_MOD, "What is {0} // {1} + {0} % {1}?"),
)  # fmt: skip
