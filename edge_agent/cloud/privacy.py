"""What must not leave the device: questions that are never sent, and the parts that are redacted in the others.

Owns the rules; `identifiers.py` has the built-in forms. Pure, except for a warning; knows nothing of clouds or queues. Invariants:
every question that is queued or sent has been through `Rules.redacted`, and a question that `Rules.forbids` is never queued or sent;
no pattern runs longer than its time limit, and a text that it could not search in that time counts as forbidden.

Redaction is best effort. Patterns find what has a fixed form: an address with an @, a number with a check digit. They do not
find names, streets or illnesses. If you need certainty, forbid the question or set up no cloud.
"""

from __future__ import annotations

import logging
import re
import time
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_agent.cloud.identifiers import Identifier, find, view
from edge_agent.core.errors import BadSetting
from edge_agent.core.question import Question

if TYPE_CHECKING:  # loaded only if there are patterns
    import regex

# Processor time for all patterns on one question. People write the patterns, and a bad one can take years on fifty letters.
TIME_LIMIT_S = 0.25
_REDACTED = "[redacted]"
_NAMES = r"\[(?:redacted|iban|email|phone|id number|card)\]"
_log = logging.getLogger("edge_agent")


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
        """Whether the question must not leave the device.

        It says so, a pattern matches it, or a pattern takes too long on it. Or too little is left of it to be answered: nothing of
        its text, or options that are the same once they are redacted, so that the cloud's letter would mean nothing.
        """
        if question.never_send:
            return True
        search = _TimedSearch(TIME_LIMIT_S)
        try:
            if any(search.finds(pattern, text) for pattern in self.never_send for text in _texts(question)):
                return True
            stem, *options = [self._redacted_text(text, search) for text in _texts(question)]
        except _TooSlowError as error:
            return self._forbids_slow(str(error))
        return len(set(options)) < len(options) or not any(map(str.isalnum, re.sub(_NAMES, "", stem)))

    def redacted(self, question: Question) -> Question:
        """The question as it may leave the device; its options keep their letters.

        If a pattern takes too long on a text here, although it did not in `forbids`, the whole text is redacted.
        """
        search = _TimedSearch(4 * TIME_LIMIT_S)
        texts = []
        for text in _texts(question):
            try:
                texts.append(self._redacted_text(text, search))
            except _TooSlowError as error:
                self._forbids_slow(str(error))
                texts.append(_REDACTED)
        return Question(texts[0], tuple(texts[1:]), question.kind)

    def _forbids_slow(self, pattern: str) -> bool:
        """Whether a question is forbidden because this pattern takes too long on it: yes. Warns once for each pattern."""
        if pattern not in self.slow:
            self.slow.add(pattern)
            _log.warning("edge-agent: the pattern %r takes too long on a question, so the question stays on this device; "
                         "simplify the pattern (never_send or redact in config.toml).", pattern)  # fmt: skip
        return True

    def _redacted_text(self, text: str, search: _TimedSearch) -> str:
        """The text with everything redacted; raises `_TooSlowError`."""
        text = search.redacted(self.redact, text)
        while self.built_in and (found := find(text)):  # again, because one may hide the start of its neighbour
            text = _replaced(text, found)
        return text


class _TooSlowError(Exception):
    """A pattern took too long; the message is the pattern."""


class _TimedSearch:
    """Searches within a limit of processor time, which `regex` counts as well: a busy machine does not shorten it."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.process_time() + seconds

    def finds(self, pattern: regex.Pattern[str], text: str) -> bool:
        """Whether the pattern matches somewhere in the text, as it is written or as it reads; raises `_TooSlowError`."""
        plain = view(text).text
        return bool(self._spans(pattern, text)) or (plain != text and bool(self._spans(pattern, plain)))

    def redacted(self, patterns: Iterable[regex.Pattern[str]], text: str) -> str:
        """The text with every match replaced, as it is written or as it reads; raises `_TooSlowError`."""
        for pattern in patterns:
            spans = self._spans(pattern, text)
            plain = view(text)
            if plain.text != text:
                spans += [(plain.starts[start], plain.ends[end - 1]) for start, end in self._spans(pattern, plain.text)]
            text = _replaced(text, [Identifier(start, end, _REDACTED) for start, end in _apart(spans)])
        return text

    def _spans(self, pattern: regex.Pattern[str], text: str) -> list[tuple[int, int]]:
        """Where the pattern matches; a match of nothing does not count. Raises `_TooSlowError`."""
        try:
            return [match.span() for match in pattern.finditer(text, timeout=self._left_s()) if match.end() > match.start()]
        except (TimeoutError, MemoryError) as error:
            raise _TooSlowError(pattern.pattern) from error

    def _left_s(self) -> float:
        return max(0.001, self._ends - time.process_time())


def _apart(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans in order, with those that overlap made one."""
    apart: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if apart and start < apart[-1][1]:
            apart[-1] = apart[-1][0], max(end, apart[-1][1])
        else:
            apart.append((start, end))
    return apart


def _replaced(text: str, found: Iterable[Identifier]) -> str:
    """The text with each of these, which do not overlap, replaced by its name."""
    parts, at = [], 0
    for start, end, name in found:
        parts += [text[at:start], name]
        at = end
    return "".join([*parts, text[at:]])


def _texts(question: Question) -> tuple[str, ...]:
    return (question.stem, *question.options)


def _compiled(name: str, patterns: Iterable[str]) -> tuple[regex.Pattern[str], ...]:
    found: list[regex.Pattern[str]] = []
    for text in patterns:
        import regex

        try:
            found.append(regex.compile(unicodedata.normalize("NFC", text), regex.IGNORECASE))
        except (regex.error, RecursionError, OverflowError) as error:
            raise BadSetting(f"{name} has the pattern {text!r:.200}, which is not a regular expression ({error}); correct it.") from error
        try:
            matches_all = found[-1].search("", timeout=TIME_LIMIT_S)
        except (TimeoutError, MemoryError) as error:
            raise BadSetting(f"{name} has the pattern {text!r:.200}, which never ends, even on an empty text; correct it.") from error
        if matches_all:
            raise BadSetting(f"{name} has the pattern {text!r:.200}, which matches every text, even an empty one; correct it.")
    return tuple(found)
