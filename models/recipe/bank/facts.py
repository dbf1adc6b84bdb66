"""Facts that must be known and cannot be worked out: relations between words, each taught as plain text.

Owns the tables. A held-out pair of a fact and a relation is stated in plain text (`sentences`), but never asked in
training. There are few facts, so their held-out questions are measured separately.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from models.recipe.bank.rule import Made, Rule
from models.recipe.bank.skill import Operands, Skill
from models.recipe.bank.split import held_out


@dataclass(frozen=True, slots=True)
class Relation:
    """Pairs of a key and a value, with the forms in which they are asked and stated."""

    name: str
    pairs: dict[str, str]
    asked: tuple[str, ...]
    stated: tuple[str, ...]

    def sentence(self, rng: Random) -> str:
        key = rng.choice(list(self.pairs))
        return rng.choice(self.stated).format(key, self.pairs[key])


_ELEMENTS = (
    "hydrogen H helium He lithium Li beryllium Be boron B carbon C nitrogen N oxygen O fluorine F neon Ne sodium Na "
    "magnesium Mg aluminium Al silicon Si phosphorus P sulfur S chlorine Cl argon Ar potassium K calcium Ca "
    "scandium Sc titanium Ti vanadium V chromium Cr manganese Mn iron Fe cobalt Co nickel Ni copper Cu zinc Zn "
    "gallium Ga germanium Ge arsenic As selenium Se bromine Br krypton Kr"
)
_CURRENCIES = (
    "Kazakhstan tenge Japan yen India rupee China yuan Britain pound America dollar Switzerland franc Russia ruble "
    "Turkey lira Poland zloty Brazil real Mexico peso Sweden krona Denmark krone Hungary forint Czechia koruna "
    "Israel shekel Thailand baht Vietnam dong Korea won Indonesia rupiah Malaysia ringgit Ukraine hryvnia Georgia "
    "lari Armenia dram Uzbekistan som Mongolia tugrik Nigeria naira Kenya shilling Ghana cedi Ethiopia birr Albania "
    "lek Bangladesh taka Peru sol Qatar riyal Iraq dinar Germany euro Romania leu Zambia kwacha"
)
_LATIN = (
    "mens rea|guilty mind|actus reus|guilty act|pro bono|free of charge|habeas corpus|have the body|bona fide|"
    "in good faith|de facto|in fact|de jure|by law|ex parte|from one side|in camera|in private|ultra vires|"
    "beyond powers|stare decisis|stand by decisions|caveat emptor|buyer beware|ad hoc|for this purpose|prima facie|"
    "at first sight|quid pro quo|something in return|sine die|without a date|sub judice|before the judge|inter alia|"
    "among others|res judicata|matter decided|locus standi|right to be heard|pacta sunt servanda|"
    "agreements are kept|alibi|elsewhere|affidavit|sworn statement|subpoena|under penalty"
)
_TERMS = (
    "bradycardia|slow heartbeat|tachycardia|fast heartbeat|hypertension|high blood pressure|hypotension|"
    "low blood pressure|anemia|too few red cells|hepatitis|inflamed liver|nephritis|inflamed kidney|gastritis|"
    "inflamed stomach|arthritis|inflamed joint|dermatitis|inflamed skin|otitis|inflamed ear|meningitis|"
    "inflamed brain cover|dyspnea|hard breathing|pyrexia|fever|myalgia|muscle pain|neuralgia|nerve pain|cephalgia|"
    "headache|hypoglycemia|low blood sugar|hyperglycemia|high blood sugar|edema|swelling|pruritus|itching|insomnia|"
    "lack of sleep|amnesia|loss of memory|thrombosis|blood clot|fracture|broken bone|myopia|short sight|scurvy|"
    "lack of vitamin C|rickets|lack of vitamin D|beriberi|lack of vitamin B1|goiter|lack of iodine"
)
_STATUS = (
    "200|OK|201|Created|202|Accepted|204|No Content|206|Partial Content|301|Moved Permanently|302|Found|304|"
    "Not Modified|400|Bad Request|401|Unauthorized|402|Payment Required|403|Forbidden|404|Not Found|405|"
    "Method Not Allowed|406|Not Acceptable|408|Request Timeout|409|Conflict|410|Gone|411|Length Required|413|"
    "Content Too Large|415|Unsupported Media Type|418|I'm a teapot|429|Too Many Requests|500|Internal Server Error|"
    "501|Not Implemented|502|Bad Gateway|503|Service Unavailable|504|Gateway Timeout"
)
_KAZAKH = (
    "алма apple нан bread су water сүт milk ет meat тұз salt май butter балық fish ат horse сиыр cow қой sheep ит "
    "dog мысық cat құс bird үй house есік door терезе window үстел table кітап book қалам pen мектеп school қала "
    "city ауыл village жол road тау mountain өзен river көл lake теңіз sea күн sun ай moon жұлдыз star аспан sky "
    "жер earth жел wind жаңбыр rain қар snow от fire ағаш tree гүл flower тас stone бас head көз eye құлақ ear қол "
    "hand аяқ foot жүрек heart әке father ана mother бала child дос friend ұстаз teacher дәрігер doctor ақ white "
    "қара black қызыл red көк blue жасыл green сары yellow үлкен big кіші small жаңа new ескі old жақсы good жаман "
    "bad ыстық hot суық cold бүгін today ертең tomorrow кеше yesterday қыс winter жаз summer көктем spring күз "
    "autumn"
)


def _words(text: str) -> list[str]:
    return text.split("|" if "|" in text else None)


def _pairs(text: str) -> dict[str, str]:
    words = _words(text)
    return dict(zip(words[::2], words[1::2], strict=True))


SYMBOLS = Relation("symbol", _pairs(_ELEMENTS), ("What is the chemical symbol of {0}?",),
                   ("The chemical symbol of {0} is {1}.", "{1} stands for {0}.", "The symbol for {0} is {1}."))  # fmt: skip
ATOMIC_NUMBERS = Relation("atomic number", {name: str(i) for i, name in enumerate(_words(_ELEMENTS)[::2], 1)},
                          ("What is the atomic number of {0}?",),
                          ("The atomic number of {0} is {1}.", "An atom of {0} has {1} protons."))  # fmt: skip
CURRENCIES = Relation("currency", _pairs(_CURRENCIES), ("What is the currency of {0}?",),
                      ("The currency of {0} is the {1}.", "In {0} one pays with the {1}."))  # fmt: skip
LATIN = Relation("latin", _pairs(_LATIN), ("What does {0} mean?",),
                 ("The legal term {0} means {1}.", "{0} means {1}."))  # fmt: skip
TERMS = Relation("term", _pairs(_TERMS), ("What is {0}?",), ("{0} is {1}.", "The medical term {0} means {1}."))
STATUS_CODES = Relation("status", _pairs(_STATUS), ("What does HTTP status {0} mean?",),
                        ("HTTP status {0} means {1}.", "Status {0} is {1}."))  # fmt: skip
TO_ENGLISH = Relation("to english", _pairs(_KAZAKH), ("«{0}» сөзі ағылшынша қалай болады?",),
                      ("«{0}» — {1}.", "The Kazakh word «{0}» means {1}."))  # fmt: skip
TO_KAZAKH = Relation("to kazakh", {e: k for k, e in _pairs(_KAZAKH).items()},
                     ("«{0}» қазақша қалай болады?",),
                     ("{0} қазақша «{1}».", "In Kazakh {0} is «{1}»."))  # fmt: skip

RELATIONS = (SYMBOLS, ATOMIC_NUMBERS, CURRENCIES, LATIN, TERMS, STATUS_CODES, TO_ENGLISH, TO_KAZAKH)


def asked(domain: str, difficulty: int, relation: Relation) -> Rule:
    """The rule that asks for the value of a key, among other values of the same relation."""
    skill = Skill(f"fact {relation.name}", lambda rng, n: (rng.choice(list(relation.pairs)),), relation.pairs.__getitem__)

    def make(rng: Random, operands: Operands, n: int, widen: float) -> Made:
        gold = relation.pairs[str(operands[0])]
        others = alike(relation, str(operands[0]))
        wrong = rng.sample(others, min(n - 1, len(others)))
        return rng.choice(relation.asked).format(*operands), gold, wrong

    return Rule(domain, difficulty, relation.name, skill, make, tuple((key,) for key in relation.pairs))


def alike(relation: Relation, key: str) -> list[str]:
    """Values for wrong options: of the same split as the key's own. A value that training only ever showed as a wrong
    option would be known to be wrong.
    """
    kept, gold = held_out(f"fact {relation.name}/{key}"), relation.pairs[key]
    return [v for k, v in relation.pairs.items() if v != gold and held_out(f"fact {relation.name}/{k}") is kept]


def sentences(rng: Random, n: int) -> str:
    """`n` facts as plain text, held-out ones too: this is where they are learned."""
    return " ".join(rng.choice(RELATIONS).sentence(rng) for _ in range(n))
