"""Math."""

from models.recipe.bank import skill
from models.recipe.bank.rule import most, numeric, picked, ranked

_VARIABLES = ("a", "b", "c", "m", "n", "p", "q", "u", "v", "w")

RULES = (
    picked("math", 4, "variables", _VARIABLES, "What is {label}, if {rows}?", row="{0} = {1}"),
    most("math", "largest variable", _VARIABLES, "Which is the largest: {rows}?", "Which is the smallest: {rows}?", row="{1} = {0}"),
    numeric("math", 3, "add", skill.ADD, "What is {0} + {1}?", "Add {0} and {1}."),
    numeric("math", 3, "subtract", skill.SUBTRACT, "What is {0} - {1}?", "Take {1} from {0}."),
    numeric("math", 3, "next term", skill.NEXT, "What comes next: {0}, {2}, {3}?"),
    numeric("math", 4, "add large", skill.ADD_LARGE, "What is {0} + {1}?", "Add {0} and {1}."),
    numeric("math", 4, "multiply", skill.MULTIPLY, "What is {0} * {1}?", "{0} times {1} is"),
    ranked("math", 1, "rank", "Of {values}, which is the {rank}?"),
    numeric("math", 4, "brackets", skill.BRACKETS, "What is ({0} + {1}) * {2}?"),
    numeric("math", 4, "solve", skill.SOLVE, "Solve {0}x + {1} = {2}: x = ?"),
    numeric("math", 4, "remainder", skill.REMAINDER, "What is the remainder of {0} divided by {1}?"),
    numeric("math", 4, "two products", skill.TWO_PRODUCTS, "What is {0} * {1} + {2} * {3}?"),
)  # fmt: skip
