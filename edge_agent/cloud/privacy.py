"""What must not leave the device: questions that are never sent, and what is blacked out in those that are.

Owns the rules and the patterns. Pure but for a warning; knows nothing of clouds or queues. Invariants: whatever is queued or sent
has been through `Rules.redacted`, and nothing that `Rules.forbids` is queued or sent at all; no pattern takes longer than its time,
and what it could not look through in that time counts as forbidden.

Patterns are best effort. They find what has a form - an address with an @, a number with a check digit - and no names, no
street, no illness: whoever needs certainty forbids the question or sets no cloud up.
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

if TYPE_CHECKING:  # loaded when there are patterns
    import regex

# Of processor time, for all patterns over one question: people write patterns, and some take years over a text of fifty letters.
PATIENCE_S = 0.25
_REDACTED = "[redacted]"
_log = logging.getLogger("edge_agent")
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

    never_send: tuple[regex.Pattern[str], ...] = ()
    redact: tuple[regex.Pattern[str], ...] = ()
    built_in: bool = True
    slow: set[str] = field(default_factory=set, compare=False, repr=False)  # patterns that were complained of

    @classmethod
    def of(cls, never_send: Iterable[str], redact: Iterable[str], built_in: bool = True) -> Rules:
        """Rules from patterns as text, in Python's syntax, letter case ignored. Raises `BadSetting`."""
        return cls(_compiled("never_send", never_send), _compiled("redact", redact), built_in)

    def forbids(self, question: Question) -> bool:
        """Whether the question must not leave the device: it says so, a pattern is found in it, or one takes too long over it."""
        if question.never_send:
            return True
        patience = _Patience(PATIENCE_S)
        try:
            if any(patience.finds(pattern, text) for pattern in self.never_send for text in _texts(question)):
                return True
            for text in _texts(question):
                patience.blacked_out(self.redact, text)
        except _TooSlowError as error:
            return self._gave_up(str(error))
        return False

    def redacted(self, question: Question) -> Question:
        """The question as it may leave the device; letters stay what they were.

        A text that a pattern takes too long over, although `forbids` did not find so, is blacked out as a whole.
        """
        patience = _Patience(4 * PATIENCE_S)
        stem, *options = [self._blacked_out(text, patience) for text in _texts(question)]
        return Question(stem, tuple(options), question.kind)

    def _gave_up(self, pattern: str) -> bool:
        if pattern not in self.slow:
            self.slow.add(pattern)
            _log.warning("edge-agent: the pattern %r takes too long over a question, which therefore stays on this device; "
                         "write it in a simpler way (never_send or redact in config.toml).", pattern)  # fmt: skip
        return True

    def _blacked_out(self, text: str, patience: _Patience) -> str:
        try:
            text = patience.blacked_out(self.redact, text)
        except _TooSlowError as error:
            self._gave_up(str(error))
            return _REDACTED
        if self.built_in:
            for name, pattern, is_one in _BUILT_IN:
                text = pattern.sub(partial(_named, name, is_one), text)
        return text


class _TooSlowError(Exception):
    """A pattern took too long; its text is the message."""


class _Patience:
    """The processor time that is left for the patterns over one question, which is what `regex` counts, too: no busy machine spends it."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.process_time() + seconds

    def finds(self, pattern: regex.Pattern[str], text: str) -> bool:
        """Whether the pattern is in the text; raises `_TooSlowError`."""
        try:
            return pattern.search(text, timeout=self._left_s()) is not None
        except (TimeoutError, MemoryError) as error:
            raise _TooSlowError(pattern.pattern) from error

    def blacked_out(self, patterns: Iterable[regex.Pattern[str]], text: str) -> str:
        """The text without what the patterns find; raises `_TooSlowError`."""
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
            raise BadSetting(f"{name} has {text!r:.200}, which is no regular expression ({error}); correct it.") from error
        if found[-1].search("", timeout=PATIENCE_S):
            raise BadSetting(f"{name} has {text!r}, which is found in every text, even an empty one; correct it.")
    return tuple(found)
