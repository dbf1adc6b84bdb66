"""Finds what identifies a person or an account by its fixed form: e-mail, phone, card, bank account, Kazakh identification number.

Owns the forms and their check digits, and how a text is read past its typography: other spaces and dashes, full-width digits,
invisible characters, letters in parts. Pure. Invariants: every span that is found lies in the text as it was given; the work
grows with the length of the text and no faster.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

_LUHN_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_IIN_WEIGHTS = ((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11), (3, 4, 5, 6, 7, 8, 9, 10, 11, 1, 2))

# How many characters an account number has in each country (the IBAN registry of SWIFT).
_IBAN_LENGTHS = {
    15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH CR HN HR LI LV",
    22: "BG BH DE GB GE IE ME RS", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ DZ ES MD PK RO SA SE SK TN VG",
    25: "AO CV GW LY MZ PT ST", 26: "IS TR", 27: "BF BI BJ CF CG CI CM DJ FR GA GR IT KM MC MG ML MR NE SM SN TD TG",
    28: "AL AZ BY CY DO EG GT HU IR LB MA NI PL SV YE",
    29: "BR PS QA UA", 30: "JO KW MU", 31: "MT SC", 32: "LC", 33: "RU",
}  # fmt: skip
_IBAN_LENGTH = {country: length for length, countries in _IBAN_LENGTHS.items() for country in countries.split()}

_BETWEEN = r"[ \t\n._/·-]"
_DIGIT_RUN = rf"\d+(?:{_BETWEEN}{{1,4}}\d+)*"
_LOOK_ALIKE = str.maketrans("АВЕКМНОРСТХавекмнорстх", "ABEKMHOPCTXabekmhopctx")  # Cyrillic letters that look like Latin ones
_LETTER = "A-Za-zАВЕКМНОРСТХавекмнорстх"
_IBAN_START = (
    rf"(?:(?<![A-Za-z0-9])|(?<=IBAN)|(?<=iban))[{_LETTER}]{{2}}{_BETWEEN}?\d{_BETWEEN}?\d(?:{_BETWEEN}{{0,2}}[{_LETTER}0-9]){{11,30}}"
)
_EMAIL = r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"
# After a number a + is a sum, unless a number of Kazakhstan or Russia follows.
_PHONE = (
    r"(?<![\d)])(?<![\d)] )\+\d(?:[ \t()._-]{0,3}\d){8,14}(?!\d)"
    r"|\+ ?7[ \t(._-]{0,3}[3-9]\d\d(?:[ \t)._-]{0,3}\d){7}(?!\d)"
)
_CARD_START = r"[3-6]|2(?:2(?:0[0-4]|2[1-9]|[3-9])|[3-6]|7[01]|720)|1\d{14}$|8[12]|8600|9860|9792"  # ISO/IEC 7812: the issuers in use
# How many digits are written together. Other groups are dates, years, thousands and lists of numbers.
_CARD_GROUPS = r"4(?: 4){2,3} [1-4]|4(?: 4){3}(?: [1-3])?|4 6 [45]|8 8|4 12|12 4|6 10|1[3-9]"
_IIN_GROUPS = r"12|6 6|6 3 3|2 2 2 6|6 1 5"
_FEWEST_DIGITS = 9
_SELECTORS = re.compile("[\u034f\u180b-\u180d\u20e3\ufe00-\ufe0f\U000e0100-\U000e01ef]")  # they change how a character looks
_DOTS = "\u3002\uff61"  # full stops of East Asian texts, which stand for dots in addresses (RFC 3490)


class Identifier(NamedTuple):
    """One thing that was found: where it is in the text, and what stands for it."""

    start: int
    end: int
    name: str


class View(NamedTuple):
    """A text as it reads; character `i` of `text` comes from `starts[i]` to `ends[i]` of the text as it was given."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]


def view(text: str) -> View:
    """The text in its plain form (NFKC), with every kind of space and dash as ' ' and '-', and without invisible characters."""
    if text.isascii():
        return View(text, range(len(text)), range(1, len(text) + 1))
    plain: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    at = 0
    while at < len(text):
        end = at + 1
        while end < len(text) and _joins(text[end]):
            end += 1
        for char in _plain(text[at:end]):
            plain.append(char)
            starts.append(at)
            ends.append(end)
        at = end
    return View("".join(plain), starts, ends)


def find(text: str) -> list[Identifier]:
    """All that is found, from left to right; nothing overlaps."""
    seen = view(text)
    if "@" not in seen.text and sum(map(str.isdecimal, seen.text)) < _FEWEST_DIGITS:
        return []
    spans = sorted((start, -end, name) for look in _LOOKS for start, end, name in look(seen.text))
    found: list[Identifier] = []
    for start, minus_end, name in spans:
        if not found or seen.starts[start] >= found[-1].end:
            found.append(Identifier(seen.starts[start], seen.ends[-minus_end - 1], name))
    return found


def is_card(digits: str) -> bool:
    """Whether this is a payment card number, by its issuer and the Luhn check (ISO/IEC 7812)."""
    if not 13 <= len(digits) <= 19 or not re.match(_CARD_START, digits) or len(set(digits)) == 1:
        return False
    doubled = (_LUHN_DOUBLED[int(d)] if place % 2 else int(d) for place, d in enumerate(reversed(digits)))
    return sum(doubled) % 10 == 0


def is_iban(packed: str) -> bool:
    """Whether this is a bank account number, by its country's length and its check digits (ISO 13616: modulo 97 is 1)."""
    return len(packed) == _IBAN_LENGTH.get(packed[:2]) and int("".join(str(int(c, 36)) for c in packed[4:] + packed[:4])) % 97 == 1


def is_iin(digits: str) -> bool:
    """Whether this is a Kazakh individual identification number: a date of birth, a century, and the check digit."""
    numbers = [int(c) for c in digits]
    if len(numbers) != 12 or not (1 <= int(digits[2:4]) <= 12 and 1 <= int(digits[4:6]) <= 31 and 1 <= numbers[6] <= 6):
        return False
    for weights in _IIN_WEIGHTS:
        check = sum(w * d for w, d in zip(weights, numbers, strict=False)) % 11
        if check < 10:
            return check == numbers[11]
    return False


def _emails(text: str) -> Iterator[Identifier]:
    return (Identifier(*match.span(), "[email]") for match in re.finditer(_EMAIL, text))


def _phones(text: str) -> Iterator[Identifier]:
    return (Identifier(*match.span(), "[phone]") for match in re.finditer(_PHONE, text))


def _ibans(text: str) -> Iterator[Identifier]:
    """Account numbers. The country says how long one is, so the words after it do not count."""
    at = 0
    while match := re.compile(_IBAN_START).search(text, at):
        places = [i for i in range(*match.span()) if text[i].isalnum()]
        packed = "".join(text[i] for i in places).translate(_LOOK_ALIKE).upper()
        length = _IBAN_LENGTH.get(packed[:2], 0)
        if 0 < length <= len(places) and is_iban(packed[:length]):
            yield Identifier(places[0], places[length - 1] + 1, "[iban]")
            at = places[length - 1] + 1
        else:
            at = match.start() + 2


def _numbers(text: str) -> Iterator[Identifier]:
    """Card and identification numbers: the groups of a run of digits that are written as such numbers are."""
    for run in re.finditer(_DIGIT_RUN, text):
        groups = [(run.start() + g.start(), run.start() + g.end()) for g in re.finditer(r"\d+", run[0])]
        at = 0
        while at < len(groups):
            found = _number_at(text, groups, at)
            if found:
                yield found[0]
            at = found[1] if found else at + 1


def _number_at(text: str, groups: Sequence[tuple[int, int]], first: int) -> tuple[Identifier, int] | None:
    """The number that starts with the group `first`, and the group after it; the longest one if several do."""
    digits, widths = "", []
    best = None
    for last in range(first, len(groups)):
        start, end = groups[last]
        digits += text[start:end]
        widths.append(str(end - start))
        if len(digits) > 19:
            break
        if len(digits) < 12:
            continue
        if last == first and first > 0 and text[start - 1] == ".":
            continue  # the digits behind a decimal point
        for name, shapes, check in (("[id number]", _IIN_GROUPS, is_iin), ("[card]", _CARD_GROUPS, is_card)):
            if re.fullmatch(shapes, " ".join(widths)) and check(digits):
                best = Identifier(groups[first][0], end, name), last + 1
    return best


_LOOKS: tuple[Callable[[str], Iterator[Identifier]], ...] = (_ibans, _emails, _phones, _numbers)


def _joins(char: str) -> bool:
    """Whether a character belongs to the one before it: a combining mark, a selector, or the inner part of a Korean syllable."""
    return unicodedata.combining(char) != 0 or "\u1160" <= char <= "\u11ff" or _SELECTORS.match(char) is not None


def _plain(cluster: str) -> str:
    """How a character with its marks reads; "" if it is invisible."""
    cluster = _SELECTORS.sub("", cluster)
    category = unicodedata.category(cluster[0]) if cluster else "Cf"
    if category == "Cf":
        return ""
    if category == "Zs":
        return " "
    if cluster in _DOTS:
        return "."
    if category == "Pd" or cluster == "\u2212":
        return "-"
    return "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in unicodedata.normalize("NFKC", cluster))
