"""Law."""

from models.recipe.bank import facts, skill
from models.recipe.bank.rule import branched, dollars, most, numeric, picked, ranked

_TERMS = ("rent", "deposit", "penalty", "bond", "bail", "fee", "fine", "lease", "pledge", "duty")
_HEIRS = ("the son", "the niece", "the widow", "the cousin", "the aunt", "the nephew", "the brother", "the sister")
_OUTCOMES = ("warning", "fine", "ban", "arrest", "appeal", "waiver", "pardon", "hearing", "refund")

RULES = (
    picked("law", 4, "clauses", _TERMS, "What is the {label}? The contract sets {rows}."),
    ranked("law", 1, "sentences", "Sentences in months: {values}. Which is the {rank}?"),
    most("law", "heirs", _HEIRS, "Who inherits the most: {rows}?", "Who inherits the least: {rows}?"),
    branched("law", 1, "threshold", skill.THRESHOLD, _OUTCOMES, "Below {1}: {o[0]}. From {1}: {o[1]}. The case is {0}. What follows?"),
    numeric("law", 3, "damages", skill.ADD, "The court awards ${0} and ${1}. What is owed?", "Repairs of ${0} and rent of ${1} are due. The claim?"),
    numeric("law", 3, "sentence", skill.SUBTRACT, "Of {0} months {1} are served. What is left?", "A sentence of {0} months is cut by {1}. What remains?"),
    facts.asked("law", 3, facts.LATIN),
    numeric("law", 4, "limitation", skill.YEAR, "A claim of {0} is barred after {1} years. In which year?"),
    branched("law", 2, "brackets", skill.BRACKET, _OUTCOMES, "Under {1}: {o[0]}. From {1}: {o[1]}. From {2}: {o[2]}. The case is {0}. What follows?"),
    numeric("law", 4, "rent", skill.MULTIPLY, "{0} months of rent at ${1}. What is owed?"),
    numeric("law", 4, "suspended", skill.YEAR_MORE, "A claim of {0} is barred after {1} years, suspended for {2}. In which year?"),
    numeric("law", 4, "fine", skill.LINEAR, "{0} days at ${1} and costs of ${2}. What is the fine?", show=dollars),
    numeric("law", 4, "two fines", skill.TWO_PRODUCTS, "{0} days at ${1} and {2} at ${3}. What is the fine?", show=dollars),
)  # fmt: skip
