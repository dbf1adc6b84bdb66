"""Kazakh numerals, months and weekdays (Cyrillic)."""

UNITS = ("", "бір", "екі", "үш", "төрт", "бес", "алты", "жеті", "сегіз", "тоғыз")
TENS = ("", "он", "жиырма", "отыз", "қырық", "елу", "алпыс", "жетпіс", "сексен", "тоқсан")
MONTHS = (
    "қаңтар", "ақпан", "наурыз", "сәуір", "мамыр", "маусым",
    "шілде", "тамыз", "қыркүйек", "қазан", "қараша", "желтоқсан",
)  # fmt: skip
DAYS = ("дүйсенбі", "сейсенбі", "сәрсенбі", "бейсенбі", "жұма", "сенбі", "жексенбі")


def numeral(number: int | str) -> str:
    """0 <= number < 10,000 in words: 423 is "төрт жүз жиырма үш"."""
    if int(number) == 0:
        return "нөл"
    thousands, rest = divmod(int(number), 1000)
    hundreds, rest = divmod(rest, 100)
    words = [*_many(thousands, "мың"), *_many(hundreds, "жүз"), TENS[rest // 10], UNITS[rest % 10]]
    return " ".join(word for word in words if word)


def _many(n: int, unit: str) -> tuple[str, ...]:
    """The words for `n` units: 100 is "жүз" alone, 200 is "екі жүз"."""
    return () if n == 0 else (unit,) if n == 1 else (UNITS[n], unit)


def value(words: str) -> int:
    """The number that `numeral` wrote."""
    total = part = 0
    for word in words.split():
        if word == "мың":
            total, part = 1000 * max(part, 1), 0
        elif word == "жүз":
            part = 100 * max(part, 1)
        elif word != "нөл":
            part += 10 * TENS.index(word) if word in TENS else UNITS.index(word)
    return total + part
