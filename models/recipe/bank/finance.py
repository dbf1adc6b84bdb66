"""Finance."""

from models.recipe.bank import facts, skill
from models.recipe.bank.rule import dollars, hundredths, most, numeric, picked, ranked

_POSTS = ("cash", "stock", "debt", "equity", "land", "plant", "reserves", "bonds", "tax", "rent")
_FIRMS = ("Alto", "Borex", "Cirrus", "Deltan", "Everly", "Fornix", "Gaunt", "Helix")

RULES = (
    picked("finance", 4, "balance sheet", _POSTS, "What is the {label}? In $M: {rows}.", "How much is the {label} of {rows}?"),
    ranked("finance", 1, "profits", "Profits in $M: {values}. Which is the {rank}?"),
    most("finance", "best firm", _FIRMS, "Which firm earned the most: {rows}?", "Which firm earned the least: {rows}?"),
    numeric("finance", 3, "profit", skill.SUBTRACT, "Revenue ${0}M, costs ${1}M. What is the profit?", "A firm earns ${0}M and spends ${1}M. Profit?"),
    numeric("finance", 3, "total assets", skill.ADD, "Land ${0}M, cash ${1}M. What are total assets?", "A firm owns ${0}M and ${1}M. In all?"),
    facts.asked("finance", 3, facts.CURRENCIES),
    numeric("finance", 4, "equity", skill.SUBTRACT_LARGE, "Assets ${0}M, liabilities ${1}M. What is the equity?"),
    numeric("finance", 4, "balance", skill.ADD_SUBTRACT, "An account has ${0}, gains ${1}, pays ${2}. What is left?"),
    numeric("finance", 4, "shares", skill.MULTIPLY, "{0} shares cost ${1} each. What is the price of all?"),
    numeric("finance", 4, "bill", skill.LINEAR, "{0} trades at ${1} each and a fee of ${2}. What is the bill?", show=dollars),
    numeric("finance", 4, "debt ratio", skill.RATIO, "Liabilities ${0}M, equity ${1}M. What is the debt-to-equity ratio?",
            "A company has total liabilities of ${0} million and total equity of ${1} million. What is its debt-to-equity ratio?", show=hundredths),
    numeric("finance", 4, "portfolio", skill.TWO_PRODUCTS, "{0} bonds at ${1} and {2} at ${3}. What are they worth?", show=dollars),
)  # fmt: skip
