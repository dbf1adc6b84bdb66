"""Medical."""

from models.recipe.bank import facts, skill
from models.recipe.bank.rule import branched, most, numeric, picked, ranked

_VALUES = ("sodium", "glucose", "urea", "iron", "calcium", "lactate", "ferritin", "zinc")
_PATIENTS = ("Mr Abel", "Mrs Brun", "Mr Cole", "Ms Dahl", "Mr Eder", "Mrs Falk", "Ms Gray", "Mr Hale")
_CARE = ("rest", "fluids", "surgery", "insulin", "oxygen", "biopsy", "aspirin", "diet", "dialysis")

RULES = (
    picked("medical", 4, "laboratory", _VALUES, "How high is {label}? Blood values: {rows}."),
    ranked("medical", 1, "doses", "Doses in mg: {values}. Which is the {rank}?"),
    most("medical", "pulse", _PATIENTS, "Whose pulse is the fastest: {rows}?", "Whose pulse is the slowest: {rows}?"),
    branched("medical", 1, "threshold", skill.THRESHOLD, _CARE, "Below {1}: {o[0]}. From {1}: {o[1]}. The value is {0}. What is given?"),
    numeric("medical", 3, "rise", skill.ADD, "A pulse of {0} rises by {1}. What is it now?", "{0} mg in the morning, {1} mg at night. Per day?"),
    numeric("medical", 3, "weight loss", skill.SUBTRACT, "{0} kg less {1} kg lost. What is the weight?", "Of {0} tablets {1} are taken. How many are left?"),
    facts.asked("medical", 3, facts.TERMS),
    numeric("medical", 4, "tablets", skill.MULTIPLY, "{0} tablets a day for {1} days. How many tablets?"),
    branched("medical", 2, "stages", skill.BRACKET, _CARE, "Under {1}: {o[0]}. From {1}: {o[1]}. From {2}: {o[2]}. The value is {0}. What is given?"),
    numeric("medical", 4, "fluids", skill.ADD_SUBTRACT, "A patient drinks {0} ml and {1} ml and loses {2} ml. The balance?"),
    numeric("medical", 4, "volume", skill.DIVIDE, "{0} ml run over {1} hours. What is the rate in ml/h?"),
    numeric("medical", 4, "loading dose", skill.LINEAR, "{0} mg/kg at {1} kg, and {2} mg on top. How much?", show="{} mg".format),
    numeric("medical", 4, "two drugs", skill.TWO_PRODUCTS, "{0} tablets of {1} mg and {2} of {3} mg. How many mg?", show="{} mg".format),
)  # fmt: skip
