"""Science."""

from models.recipe.bank import facts, skill
from models.recipe.bank.rule import most, numeric, picked, ranked

_PROBES = ("the oven", "the bath", "the jar", "the tank", "the coil", "the rod", "the lamp", "the cell", "the flask", "the dish")
_STONES = ("quartz", "basalt", "granite", "marble", "slate", "chalk", "flint", "pumice")

RULES = (
    picked("science", 4, "readings", _PROBES, "How warm is {label}? Readings: {rows}."),
    ranked("science", 1, "masses", "Samples in g: {values}. Which is the {rank}?"),
    most("science", "heaviest", _STONES, "Which sample is the heaviest: {rows}?", "Which sample is the lightest: {rows}?"),
    numeric("science", 3, "warming", skill.ADD, "A liquid at {0} C is warmed by {1} C. How warm is it?", "{0} ml are added to {1} ml. What is the volume?"),
    numeric("science", 3, "mass left", skill.SUBTRACT, "Of {0} g, {1} g decay. How much is left?", "A flask with {0} ml loses {1} ml. What remains?"),
    facts.asked("science", 3, facts.SYMBOLS),
    facts.asked("science", 3, facts.ATOMIC_NUMBERS),
    numeric("science", 4, "altitude", skill.ADD_LARGE, "A balloon at {0} m rises {1} m. How high is it?"),
    numeric("science", 4, "distance", skill.MULTIPLY, "Speed {1} m/s, time {0} s. What is the distance?"),
    numeric("science", 4, "charge", skill.ADD_SUBTRACT, "A cell of {0} C takes {1} C and gives {2} C. What is its charge?"),
    numeric("science", 4, "current", skill.DIVIDE, "Voltage {0} V, resistance {1} ohm. What is the current?", show="{} A".format),
    numeric("science", 4, "work", skill.THREE_FACTORS, "Mass {0} kg, acceleration {1} m/s2, path {2} m. What is the work?", show="{} J".format),
    numeric("science", 4, "momentum", skill.TWO_PRODUCTS, "{0} kg at {1} m/s and {2} kg at {3} m/s. What is the momentum?"),
)  # fmt: skip
