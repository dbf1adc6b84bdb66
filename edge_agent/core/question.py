"""What is asked: a stem and its options (or none), read from text or JSON, with a fingerprint.

Owns the checking of a person's question (`parsing` finds its options); knows nothing about prompts, tokens or answers. Invariant: every
`Question` can be asked: it has a stem, 2 to 26 one-line options (none if it is open), and no text that
UTF-8 cannot hold.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any

from edge_agent.core import labels, parsing
from edge_agent.core.choice import EXAMPLE
from edge_agent.core.errors import BadQuestion

LETTERS = labels.LETTERS
CHOICE, OPEN = "choice", "open"
JSON_KEYS = ("question", "options", "id", "tau", "policy", "never_send", "refresh")  # of a question that a program asks

_NO_OPTIONS = "and this model chooses one of several; write them after the question, one a line: 'A. text', 'B. text'"


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
        stem = _clean(self.stem, "question")
        options = _texts(self.options)
        if self.kind not in (CHOICE, OPEN):
            raise BadQuestion(f"The kind of the question is {self.kind!r:.80}; give 'choice' or 'open'.")
        if not isinstance(self.never_send, bool):
            raise BadQuestion(f"The never_send of the question is {self.never_send!r:.80}; give True or False.")
        if not stem:
            raise BadQuestion(f"The question is empty; {EXAMPLE}.")
        if self.kind == OPEN and options:
            raise BadQuestion("The question has options, and this model answers in its own words; ask without them.")
        if self.kind != OPEN and not options:
            raise BadQuestion(f"The question has no options, {_NO_OPTIONS}.")
        if self.kind != OPEN and not 2 <= len(options) <= len(LETTERS):
            counted = "one option" if len(options) == 1 else f"{len(options)} options"
            raise BadQuestion(f"The question has {counted}, but it needs 2 to 26; {EXAMPLE}.")
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
        """Read a text that a person typed: the question, then its options in one of the forms of `parsing`.

        FogGen's own form is one option a line: `A. text`. The text of an open question is all stem. Raises `BadQuestion`, also if
        the text may mean two things.
        """
        text = _clean(text, "question")
        if kind == OPEN:
            return cls(text, (), OPEN)
        found = parsing.split(text)
        return cls(found.stem, tuple(found.options))

    @classmethod
    def typed(cls, text: str, options: Iterable[str] = (), kind: str = CHOICE, never_send: bool = False) -> Question:
        """The question of a person or a program that gives each of the `options` apart, or all in the `text` (see `parse`).

        An option's own letter is left out: `A. 18` is 18. Raises `BadQuestion` if both the text and `options` have options.
        """
        if not options:
            return replace(cls.parse(text, kind), never_send=never_send)
        if kind != OPEN and parsing.has_lettered_options(_clean(text, "question")):
            raise BadQuestion("The text already has lettered options; give all options in the text, or all of them apart.")
        return cls(text, _unlettered(options), kind, never_send)

    @classmethod
    def from_json(cls, data: object, kind: str = CHOICE) -> Question:
        """Read `{"question": str, "options": [str, ...]}` (or options as `{"A": str, ...}`), perhaps with `"never_send": true`.

        Without "options", they are read from the text of the question. An option's own letter is left out. A key that looks like a
        mistyped one is refused ("neversend"); other unknown keys are a program's own and are ignored.
        """
        if isinstance(data, dict):
            _refuse_mistyped_keys(data)
        if not isinstance(data, dict) or not isinstance(data.get("question"), str):
            raise BadQuestion('A question in JSON is an object: {"question": "...", "options": ["...", "..."]}.')
        options = [] if data.get("options") is None else data["options"]
        if isinstance(options, dict):
            if list(options) != list(LETTERS[: len(options)]) and len(options) <= len(LETTERS):
                raise BadQuestion("The options of a JSON question must have the keys A, B, C, ... in this order.")
            options = list(options.values())
        if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
            raise BadQuestion("The options of a JSON question must be a list of texts.")
        if not isinstance(never_send := data.get("never_send", False), bool):
            raise BadQuestion("The never_send of a JSON question must be true or false.")
        if not options:
            return cls.typed(data["question"], (), kind, never_send)
        return cls(data["question"], _unlettered(options), kind, never_send)

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


def _unlettered(options: Iterable[str]) -> tuple[str, ...]:
    return tuple(parsing.unlettered(_texts(options)))


def _texts(options: Iterable[str]) -> tuple[str, ...]:
    """The options, clean. A single text is no list of options, and a set or a dictionary has no order to letter them by."""
    if isinstance(options, (str, bytes, Mapping, Set)) or not isinstance(options, Iterable):
        raise BadQuestion(f'The options are {options!r:.80}; give a list of texts: ["18", "19"].')
    return tuple(_clean(option, f"option {number}") for number, option in enumerate(options, 1))


def _refuse_mistyped_keys(data: Mapping[Any, object]) -> None:
    """Raise `BadQuestion` if a key is nearly one of `JSON_KEYS`. "question_id" is not: it has a word more."""
    plain = {_plain(key): key for key in JSON_KEYS}
    for key in data:
        if not isinstance(key, str) or key in JSON_KEYS:
            continue
        first, *more = re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", key[:80].strip("_ "))
        if more and first.casefold() in JSON_KEYS:
            continue
        typed = _plain(key[:80])
        close = next((each for each in plain if each == typed), "neversend" if typed.startswith("neversend") else None)
        near = [close] if close else difflib.get_close_matches(typed, plain, n=1, cutoff=0.8)
        if near and (close or near[0] != "id"):
            raise BadQuestion(f"The JSON question has the key {key!r:.80}; write {plain[near[0]]!r}, or leave it out.")


def _plain(key: str) -> str:
    return re.sub(r"[\W_]", "", key).casefold()


def _clean(text: str, what: str) -> str:
    if not isinstance(text, str):
        raise BadQuestion(f"The {what} is {text!r:.80}; give a text.")
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
