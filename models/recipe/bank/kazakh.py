"""Kazakh numerals, months and weekdays (Cyrillic)."""

UNITS = ("", "бір", "екі", "үш", "төрт", "бес", "алты", "жеті", "сегіз", "тоғыз")
TENS = ("", "он", "жиырма", "отыз", "қырық", "елу", "алпыс", "жетпіс", "сексен", "тоқсан")
MONTHS = (
    "қаңтар", "ақпан", "наурыз", "сәуір", "мамыр", "маусым",
    "шілде", "тамыз", "қыркүйек", "қазан", "қараша", "желтоқсан",
)  # fmt: skip
DAYS = ("дүйсенбі", "сейсенбі", "сәрсенбі", "бейсенбі", "жұма", "сенбі", "жексенбі")


def numeral(number: int | str) -> str:
    """0 <= number < 200 in words: 23 is "жиырма үш"."""
    if int(number) == 0:
        return "нөл"
    hundreds, rest = divmod(int(number), 100)
    words = ["жүз" if hundreds else "", TENS[rest // 10], UNITS[rest % 10]]
    return " ".join(word for word in words if word)


def value(words: str) -> int:
    """The number that `numeral` wrote."""
    if words == "нөл":
        return 0
    return sum(100 if w == "жүз" else 10 * TENS.index(w) if w in TENS else UNITS.index(w) for w in words.split())
