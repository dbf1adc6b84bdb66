"""Kazakh: numerals, the calendar, a small vocabulary, and sums about animals and prices."""

from dataclasses import replace
from random import Random

from models.recipe.bank import facts, skill
from models.recipe.bank.language import DAYS, MONTHS, numeral
from models.recipe.bank.rule import Rule, chosen, most, numeric, picked, ranked
from models.recipe.bank.skill import Operands, Skill

_ANIMALS = ("қой", "жылқы", "сиыр", "түйе", "ешкі", "тауық", "қаз", "үйрек", "есек", "ит")
_NAMES = ("Асан", "Айгүл", "Болат", "Гүлнар", "Дәурен", "Ерлан", "Жанар", "Марат", "Сәуле", "Тимур")
_RANKS = {2: ("кіші", "үлкен"), 3: ("ең кіші", "ортаңғы", "ең үлкен"), 4: ("ең кіші", "екінші кіші", "екінші үлкен", "ең үлкен"),
          5: ("ең кіші", "екінші кіші", "ортаңғы", "екінші үлкен", "ең үлкен")}  # fmt: skip

_READ = Skill("numeral", lambda rng, n: (rng.randint(1, 999),), lambda number: number, spread=6, drill="{0} =")
_DAY = Skill("day after", lambda rng, n: (rng.choice(DAYS), rng.randint(1, 30)), lambda d, n: DAYS[(DAYS.index(d) + n) % 7])
_MONTH = Skill("month after", lambda rng, n: (rng.choice(MONTHS), rng.randint(1, 24)), lambda m, n: MONTHS[(MONTHS.index(m) + n) % 12])


def _in_words(rule: Rule) -> Rule:
    """The same question with its operands in words."""

    def make(rng: Random, operands: Operands, n: int, widen: float) -> tuple[str, str, list[str]]:
        _, gold, wrong = rule.make(rng, operands, n, widen)
        return rng.choice(_SUMS[rule.name]).format(*map(numeral, operands)), gold, wrong

    return replace(rule, make=make)


_SUMS = {
    "write": ("«{0}» деген қай сан?",),
    "add words": ("{0} қосу {1} неге тең?",),
    "subtract words": ("{0} алу {1} неге тең?",),
}

RULES = (
    picked("kazakh", 4, "herd", _ANIMALS, "Асанда {rows} бар. Онда неше {label} бар?", row="{1} {0}"),
    most("kazakh", "age", _NAMES, "Ең үлкені кім: {rows}?", "Ең кішісі кім: {rows}?"),
    numeric("kazakh", 1, "read", _READ, "{0} саны қазақша қалай айтылады?", show=numeral),
    _in_words(numeric("kazakh", 1, "write", _READ, "")),
    facts.asked("kazakh", 3, facts.TO_ENGLISH),
    facts.asked("kazakh", 3, facts.TO_KAZAKH),
    numeric("kazakh", 3, "bought", skill.ADD, "Асанда {0} қой бар еді. Ол тағы {1} қой сатып алды. Енді неше қой бар?"),
    numeric("kazakh", 3, "sold", skill.SUBTRACT, "Асанда {0} қой бар еді. Ол {1} қой сатты. Неше қой қалды?"),
    ranked("kazakh", 2, "rank", "{values} сандарының {rank} қайсы?", ranks=_RANKS),
    _in_words(numeric("kazakh", 4, "add words", skill.ADD, "")),
    chosen("kazakh", 4, "day after", _DAY, DAYS, "Бүгін {0}. {1} күннен кейін қай күн болады?"),
    numeric("kazakh", 4, "price", skill.MULTIPLY, "Бір кітап {1} теңге тұрады. {0} кітап неше теңге тұрады?"),
    chosen("kazakh", 4, "month after", _MONTH, MONTHS, "Қазір {0} айы. {1} айдан кейін қай ай болады?"),
    _in_words(numeric("kazakh", 4, "subtract words", skill.SUBTRACT, "")),
    numeric("kazakh", 4, "market", skill.LINEAR, "{0} алма {1} теңгеден және нан {2} теңге. Барлығы неше теңге?"),
    numeric("kazakh", 4, "two goods", skill.TWO_PRODUCTS, "{0} алма {1} теңгеден, {2} нан {3} теңгеден. Барлығы неше теңге?"),
)  # fmt: skip
