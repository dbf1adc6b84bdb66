"""What must not leave the device: questions that are never sent, and what is blacked out in those that are.

Owns the rules and the patterns. Pure; knows nothing of clouds or queues. Invariant: whatever is queued or sent has been through
`Rules.redacted`, and nothing that `Rules.forbids` is queued or sent at all.

Patterns are best effort. They find what has a form - an address with an @, a number with a check digit - and no names, no
street, no illness: whoever needs certainty forbids the question or sets no cloud up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from edge_agent.errors import BadSetting
from edge_agent.question import Question

_LUHN_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_IIN_WEIGHTS = ((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11), (3, 4, 5, 6, 7, 8, 9, 10, 11, 1, 2))


def _is_card(text: str) -> bool:
    """The Luhn check of payment cards (ISO/IEC 7812)."""
    digits = [int(c) for c in text if c.isdigit()]
    doubled = (_LUHN_DOUBLED[d] if place % 2 else d for place, d in enumerate(reversed(digits)))
    return len(set(digits)) > 1 and sum(doubled) % 10 == 0


def _is_iban(text: str) -> bool:
    """The check digits of a bank account (ISO 13616: the number modulo 97 is 1)."""
    packed = text.replace(" ", "")
    return 15 <= len(packed) <= 34 and int("".join(str(int(c, 36)) for c in packed[4:] + packed[:4])) % 97 == 1


def _is_iin(text: str) -> bool:
    """A Kazakh individual identification number: a date of birth, a century, and the check digit."""
    digits = [int(c) for c in text]
    if not (1 <= int(text[2:4]) <= 12 and 1 <= int(text[4:6]) <= 31 and 1 <= digits[6] <= 6):
        return False
    for weights in _IIN_WEIGHTS:
        check = sum(w * d for w, d in zip(weights, digits, strict=False)) % 11
        if check < 10:
            return check == digits[11]
    return False


# Each: what is put in its place, where it may be, and what makes sure.
_BUILT_IN: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("[iban]", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b"), _is_iban),
    ("[email]", re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"), bool),
    ("[phone]", re.compile(r"(?<!\w)\+\d(?:[ ().-]{0,2}\d){8,14}(?!\d)"), bool),
    ("[id number]", re.compile(r"(?<!\d)\d{12}(?!\d)"), _is_iin),
    ("[card]", re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)"), _is_card),
)


@dataclass(frozen=True, slots=True)
class Rules:
    """`never_send`: a question that one of these is found in stays here. `redact`: what these find is blacked out, and, with
    `built_in`, e-mail addresses, phone numbers with a +, payment cards, bank accounts and Kazakh identification numbers.
    """

    never_send: tuple[re.Pattern[str], ...] = ()
    redact: tuple[re.Pattern[str], ...] = ()
    built_in: bool = True

    @classmethod
    def of(cls, never_send: Iterable[str], redact: Iterable[str], built_in: bool = True) -> Rules:
        """Rules from patterns as text, in Python's syntax, letter case ignored. Raises `BadSetting`."""
        return cls(_compiled("never_send", never_send), _compiled("redact", redact), built_in)

    def forbids(self, question: Question) -> bool:
        """Whether the question must not leave the device."""
        return question.never_send or any(pattern.search(text) for pattern in self.never_send for text in _texts(question))

    def redacted(self, question: Question) -> Question:
        """The question as it may leave the device; letters stay what they were."""
        stem, *options = [self._blacked_out(text) for text in _texts(question)]
        return Question(stem, tuple(options), question.kind)

    def _blacked_out(self, text: str) -> str:
        for pattern in self.redact:
            text = pattern.sub("[redacted]", text)
        if self.built_in:
            for name, pattern, is_one in _BUILT_IN:
                text = pattern.sub(partial(_named, name, is_one), text)
        return text


def _named(name: str, is_one: Callable[[str], bool], found: re.Match[str]) -> str:
    return name if is_one(found[0]) else found[0]


def _texts(question: Question) -> tuple[str, ...]:
    return (question.stem, *question.options)


def _compiled(name: str, patterns: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    found = []
    for text in patterns:
        try:
            found.append(re.compile(text, re.IGNORECASE))
        except re.error as error:
            raise BadSetting(f"{name} has {text!r}, which is no regular expression ({error}); correct it.") from error
        if found[-1].search(""):
            raise BadSetting(f"{name} has {text!r}, which is found in every text, even an empty one; correct it.")
    return tuple(found)
