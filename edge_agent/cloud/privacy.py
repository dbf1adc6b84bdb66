"""What must not leave the device: questions that are never sent, and the parts that are redacted in the others.

Owns the rules and the patterns. Pure, except for a warning; knows nothing of clouds or queues. Invariants: every question that is
queued or sent has been through `Rules.redacted`, and a question that `Rules.forbids` is never queued or sent; no pattern runs
longer than its time limit, and a text that it could not search in that time counts as forbidden.

Redaction is best effort. Patterns find what has a fixed form: an address with an @, a number with a check digit. They do not
find names, streets or illnesses. If you need certainty, forbid the question or set up no cloud.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from edge_agent.core.errors import BadSetting
from edge_agent.core.question import Question

if TYPE_CHECKING:  # loaded only if there are patterns
    import regex

# Processor time for all patterns on one question. People write the patterns, and a bad one can take years on fifty letters.
TIME_LIMIT_S = 0.25
_REDACTED = "[redacted]"
_log = logging.getLogger("edge_agent")
_LUHN_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_IIN_WEIGHTS = ((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11), (3, 4, 5, 6, 7, 8, 9, 10, 11, 1, 2))


def is_card(text: str) -> bool:
    """Whether this is a payment card number, by the Luhn check (ISO/IEC 7812)."""
    digits = [int(c) for c in text if c.isdigit()]
    doubled = (_LUHN_DOUBLED[d] if place % 2 else d for place, d in enumerate(reversed(digits)))
    return len(set(digits)) > 1 and sum(doubled) % 10 == 0


def is_iban(text: str) -> bool:
    """Whether this is a bank account number, by its check digits (ISO 13616: the number modulo 97 is 1)."""
    packed = text.replace(" ", "")
    return 15 <= len(packed) <= 34 and int("".join(str(int(c, 36)) for c in packed[4:] + packed[:4])) % 97 == 1


def is_iin(text: str) -> bool:
    """Whether this is a Kazakh individual identification number: a date of birth, a century, and the check digit."""
    digits = [int(c) for c in text]
    if not (1 <= int(text[2:4]) <= 12 and 1 <= int(text[4:6]) <= 31 and 1 <= digits[6] <= 6):
        return False
    for weights in _IIN_WEIGHTS:
        check = sum(w * d for w, d in zip(weights, digits, strict=False)) % 11
        if check < 10:
            return check == digits[11]
    return False


# Each: what replaces it, a pattern that finds candidates, and the check that confirms one.
_BUILT_IN: tuple[tuple[str, str, Callable[[str], bool]], ...] = (
    ("[iban]", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b", is_iban),
    ("[email]", r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}", bool),
    ("[phone]", r"(?<!\w)\+\d(?:[ ().-]{0,2}\d){8,14}(?!\d)", bool),
    ("[id number]", r"(?<!\d)\d{12}(?!\d)", is_iin),
    ("[card]", r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)", is_card),
)


@dataclass(frozen=True, slots=True)
class Rules:
    """`never_send`: a question that matches one of these stays on the device. `redact`: matches of these are redacted.

    `built_in` also redacts e-mail addresses, phone numbers with a +, payment cards, bank accounts and Kazakh identification numbers.
    """

    never_send: tuple[regex.Pattern[str], ...] = ()
    redact: tuple[regex.Pattern[str], ...] = ()
    built_in: bool = True
    slow: set[str] = field(default_factory=set, compare=False, repr=False)  # patterns that we have warned about

    @classmethod
    def of(cls, never_send: Iterable[str], redact: Iterable[str], built_in: bool = True) -> Rules:
        """Make rules from patterns in Python's syntax, which ignore letter case. Raises `BadSetting` if one is wrong."""
        return cls(_compiled("never_send", never_send), _compiled("redact", redact), built_in)

    def forbids(self, question: Question) -> bool:
        """Whether the question must not leave the device: it says so, a pattern matches it, or a pattern takes too long on it."""
        if question.never_send:
            return True
        search = _TimedSearch(TIME_LIMIT_S)
        try:
            if any(search.finds(pattern, text) for pattern in self.never_send for text in _texts(question)):
                return True
            for text in _texts(question):
                search.redacted(self.redact, text)
        except _TooSlowError as error:
            return self._forbids_slow(str(error))
        return False

    def redacted(self, question: Question) -> Question:
        """The question as it may leave the device; its options keep their letters.

        If a pattern takes too long on a text here, although it did not in `forbids`, the whole text is redacted.
        """
        search = _TimedSearch(4 * TIME_LIMIT_S)
        stem, *options = [self._redacted_text(text, search) for text in _texts(question)]
        return Question(stem, tuple(options), question.kind)

    def _forbids_slow(self, pattern: str) -> bool:
        """Whether a question is forbidden because this pattern takes too long on it: yes. Warns once for each pattern."""
        if pattern not in self.slow:
            self.slow.add(pattern)
            _log.warning("edge-agent: the pattern %r takes too long on a question, so the question stays on this device; "
                         "simplify the pattern (never_send or redact in config.toml).", pattern)  # fmt: skip
        return True

    def _redacted_text(self, text: str, search: _TimedSearch) -> str:
        try:
            text = search.redacted(self.redact, text)
        except _TooSlowError as error:
            self._forbids_slow(str(error))
            return _REDACTED
        if self.built_in:
            for name, pattern, is_one in _BUILT_IN:
                text = re.sub(pattern, partial(_named, name, is_one), text)
        return text


class _TooSlowError(Exception):
    """A pattern took too long; the message is the pattern."""


class _TimedSearch:
    """Searches within a limit of processor time, which `regex` counts as well: a busy machine does not shorten it."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.process_time() + seconds

    def finds(self, pattern: regex.Pattern[str], text: str) -> bool:
        """Whether the pattern matches somewhere in the text; raises `_TooSlowError`."""
        try:
            return pattern.search(text, timeout=self._left_s()) is not None
        except (TimeoutError, MemoryError) as error:
            raise _TooSlowError(pattern.pattern) from error

    def redacted(self, patterns: Iterable[regex.Pattern[str]], text: str) -> str:
        """The text with every match replaced; raises `_TooSlowError`."""
        for pattern in patterns:
            try:
                text = pattern.sub(_REDACTED, text, timeout=self._left_s())
            except (TimeoutError, MemoryError) as error:
                raise _TooSlowError(pattern.pattern) from error
        return text

    def _left_s(self) -> float:
        return max(0.001, self._ends - time.process_time())


def _named(name: str, is_one: Callable[[str], bool], found: re.Match[str]) -> str:
    return name if is_one(found[0]) else found[0]


def _texts(question: Question) -> tuple[str, ...]:
    return (question.stem, *question.options)


def _compiled(name: str, patterns: Iterable[str]) -> tuple[regex.Pattern[str], ...]:
    found: list[regex.Pattern[str]] = []
    for text in patterns:
        import regex

        try:
            found.append(regex.compile(text, regex.IGNORECASE))
        except (regex.error, RecursionError, OverflowError) as error:
            raise BadSetting(f"{name} has the pattern {text!r:.200}, which is not a regular expression ({error}); correct it.") from error
        try:
            matches_all = found[-1].search("", timeout=TIME_LIMIT_S)
        except (TimeoutError, MemoryError) as error:
            raise BadSetting(f"{name} has the pattern {text!r:.200}, which never ends, even on an empty text; correct it.") from error
        if matches_all:
            raise BadSetting(f"{name} has the pattern {text!r:.200}, which matches every text, even an empty one; correct it.")
    return tuple(found)
