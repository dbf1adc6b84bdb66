"""What is asked: a stem and its options (or none), read from text or JSON, with a fingerprint.

Owns the reading and checking of a person's question; knows nothing about prompts, tokens or answers. Invariant: every
`Question` can be asked: it has a stem, 2 to 26 one-line options (none if it is open), and no text that
UTF-8 cannot hold.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

from edge_agent.core.errors import BadQuestion

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CHOICE, OPEN = "choice", "open"

_OPTION_LINE = r"\s*\(?([A-Z])[.):]\s+(\S.*?)\s*"
_CYRILLIC_OPTION_LINE = r"\s*\(?[\u0410-\u042f][.):]\s+\S.*"
_EXAMPLE = "write the question, then one option a line: 'A. text', 'B. text'"


@dataclass(frozen=True, slots=True)
class Question:
    """A multiple-choice question: `stem` and 2 to 26 `options`, lettered A, B, C, ... by position.

    With `kind` "open" it has no options and is answered in a few words. With `never_send` it must not leave the device.
    Texts are kept as given, except for outer white space and line ends (`\\n`). Raises `BadQuestion`.
    """

    stem: str
    options: tuple[str, ...]
    kind: str = CHOICE
    never_send: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        stem = _clean(self.stem)
        options = tuple(_clean(option) for option in self.options)
        if not stem:
            raise BadQuestion(f"The question is empty; {_EXAMPLE}.")
        if self.kind == OPEN and options:
            raise BadQuestion("The question has options, and this model answers in its own words; ask without them.")
        if self.kind != OPEN and not 2 <= len(options) <= len(LETTERS):
            counted = {0: "no options", 1: "one option"}.get(len(options), f"{len(options)} options")
            raise BadQuestion(f"The question has {counted}, but it needs 2 to 26; {_EXAMPLE}.")
        for letter, option in zip(LETTERS, options, strict=False):
            if not option:
                raise BadQuestion(f"Option {letter} is empty; give every option a text.")
            if "\n" in option:
                raise BadQuestion(f"Option {letter} has a line break; write every option on one line.")
        object.__setattr__(self, "stem", stem)
        object.__setattr__(self, "options", options)

    @classmethod
    def of(cls, stem: str, options: Iterable[str]) -> Question:
        """The stored question with these options; an open question if there are none."""
        options = tuple(options)
        return cls(stem, options, CHOICE if options else OPEN)

    @classmethod
    def parse(cls, text: str, kind: str = CHOICE) -> Question:
        """Read FogGen's user message: the question, then one option a line as `A. text` (or `A) text`, `(A) text`, `A: text`).

        The options are the last run of lines A, B, C, ... that reaches the end of the text; everything
        before it is the stem, so a stem may hold lines that look like options. The text of an open question is all stem.
        """
        if kind == OPEN:
            return cls(text, (), OPEN)
        lines = [line for line in _clean(text).split("\n") if line.strip()]
        matches = [re.fullmatch(_OPTION_LINE, line) for line in lines]
        first = len(lines)
        while first > 0 and matches[first - 1]:
            first -= 1
        starts = [i for i in range(first, len(lines)) if (m := matches[i]) and m[1] == "A"]
        start = starts[-1] if starts else first
        run = [m for m in matches[start:] if m]
        letters = "".join(m[1] for m in run)
        if letters != LETTERS[: len(letters)]:
            raise BadQuestion(f"The options are lettered {', '.join(letters)}; letter them A, B, C, ... without gaps.")
        if not run and lines and re.fullmatch(_CYRILLIC_OPTION_LINE, lines[-1]):
            raise BadQuestion("The options are lettered in Cyrillic, which only looks like A, B, C; letter them in Latin.")
        stem = text if not run else _before(text, lines[start])
        return cls(stem, tuple(m[2] for m in run))

    @classmethod
    def from_json(cls, data: object) -> Question:
        """Read `{"question": str, "options": [str, ...]}` (or options as `{"A": str, ...}`), perhaps with `"never_send": true`."""
        if not isinstance(data, dict) or not isinstance(data.get("question"), str):
            raise BadQuestion('A question in JSON is an object: {"question": "...", "options": ["...", "..."]}.')
        options = data.get("options", [])
        if isinstance(options, dict):
            if list(options) != list(LETTERS[: len(options)]):
                raise BadQuestion("The options of a JSON question must have the keys A, B, C, ... in this order.")
            options = list(options.values())
        if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
            raise BadQuestion("The options of a JSON question must be a list of texts.")
        if not isinstance(never_send := data.get("never_send", False), bool):
            raise BadQuestion("The never_send of a JSON question must be true or false.")
        return cls(data["question"], tuple(options), never_send=never_send)

    @property
    def letters(self) -> str:
        """The letters of the options: "ABCD" for four."""
        return LETTERS[: len(self.options)]

    @property
    def repeated(self) -> str:
        """The letters of options whose text occurs more than once: "AC", or ""."""
        return "".join(letter for letter in self.letters if len(self.same_as(letter)) > 1)

    def same_as(self, letter: str) -> str:
        """The letters of all options with the text of this letter's option, including itself; case matters (genes are Bb or bb)."""
        texts = [unicodedata.normalize("NFC", option) for option in self.options]
        return "".join(other for other, text in zip(LETTERS, texts, strict=False) if text == texts[LETTERS.index(letter)])

    def check_options_differ(self) -> None:
        """Raise `BadQuestion` if two options have the same text, because the answer could not tell them apart."""
        if self.repeated:
            same = " and ".join(self.same_as(self.repeated[0]))
            raise BadQuestion(f"Options {same} are the same text, so the answer could not tell them apart; make every option different.")

    @property
    def user_message(self) -> str:
        """The user message of FogGen models: the stem, then one option a line as `A. text`, if there are any."""
        return "\n".join([self.stem, *_lettered(self.options)])

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of stem and options: the same only for the same question, not for a similar one."""
        canonical = json.dumps(["question-1", self.stem, self.options], ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def _lettered(options: Iterable[str]) -> list[str]:
    return [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]


def _before(text: str, line: str) -> str:
    """The text before the last occurrence of `line` as a whole line."""
    lines = _clean(text).split("\n")
    at = max(i for i, candidate in enumerate(lines) if candidate == line)
    return "\n".join(lines[:at])


def _clean(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadQuestion(f"The text has a character that UTF-8 cannot hold (at position {error.start}); check its encoding.") from error
    return text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff").strip()


_ARTICLES = ("a", "an", "the")


def same(one: str, other: str) -> bool:
    """Whether two answers are the same: letters compare exactly; words ignore case, punctuation and articles.

    SQuAD's evaluation does the same (Rajpurkar et al. 2016).
    """
    if one == other or len(one) == len(other) == 1:
        return one == other
    words, others = _words(one), _words(other)
    return words == others != [] or _without_articles(words) == _without_articles(others) != []


def _words(answer: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in answer.casefold()).split()


def _without_articles(words: list[str]) -> list[str]:
    return [word for word in words if word not in _ARTICLES]
