"""Which option a gold answer means: a letter, an index, the text of an option, or its text with its letter.

Owns the decision, which the whole file makes: a file that answers by index has an index in every row. Invariant: an answer that may
mean two options is refused, never guessed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_agent.core.errors import BadData
from edge_agent.core.labels import LETTERS
from edge_agent.core.question import Question

BY_LETTER, BY_TEXT, FROM_0, FROM_1 = "letter", "text", "index from 0", "index from 1"
_LETTERED = re.compile(r"[(\[]?([A-Za-z])[)\].:]+(?:\s*)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Given:
    """The gold answer of one question, as the file gives it.

    `texts` are the options as in the file, with their letters. `letter` is the answer's letter, where the file has it beside the
    text. `base` is 0 or 1 where the form says where an index begins.
    """

    value: Any
    texts: Sequence[str]
    letter: Any = None
    base: int | None = None


def readings(question: Question, given: Given) -> dict[str, str]:
    """The letter that the answer means, by each way of reading it. Raises `BadData` if there is none."""
    value = given.value
    if value is None or value == "":
        raise BadData('there is no "answer"; give the letter of the right option.')
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadData(f"the answer {value!r:.80} is not a letter, an index or the text of an option; give the letter.")
    text = plain(str(value))
    found = _by_index(text, question, given.base)
    if (by_text := _by_text(text, question, given.texts)) is not None:
        found[BY_TEXT] = by_text
    if isinstance(value, str):
        found |= _by_letter(text, question)
    if not found:
        raise BadData(f"the answer {value!r:.80} is not one of the options A to {question.letters[-1]}; give the letter.")
    if given.letter is not None:
        return {BY_LETTER: _beside(question, given, set(found.values()))}
    return found


def _by_letter(text: str, question: Question) -> dict[str, str]:
    """A letter in either case, in brackets or not; with the text of its option behind it, it is both a letter and a text."""
    if len(text) == 1 and text.upper() in question.letters:
        return {BY_LETTER: text.upper()}
    lettered = _LETTERED.fullmatch(text)
    if not lettered or lettered[1].upper() not in question.letters:
        return {}
    letter, behind = lettered[1].upper(), lettered[2].strip()
    if not behind:
        return {BY_LETTER: letter}
    return {BY_LETTER: letter, BY_TEXT: letter} if plain(question.options[LETTERS.index(letter)]) == behind else {}


def _by_index(text: str, question: Question, base: int | None) -> dict[str, str]:
    if not (text.isascii() and text.isdigit() and len(text) < 3):
        return {}
    ways = {FROM_0: int(text), FROM_1: int(text) - 1}
    allowed = (FROM_0, FROM_1) if base is None else ((FROM_0, FROM_1)[base],)
    return {way: question.letters[at] for way, at in ways.items() if way in allowed and 0 <= at < len(question.letters)}


def decide(rows: Sequence[tuple[str, dict[str, str]]]) -> list[str]:
    """The letters of all rows of a file: of each, its place and its `readings`. Raises `BadData` with the place.

    A way of reading that fits every row is the file's own. If there are two and they differ, or none and a row has two meanings,
    the answer is refused.
    """
    ways = [way for way in (BY_LETTER, BY_TEXT, FROM_0, FROM_1) if all(way in found for _, found in rows)]
    only_indexes = [(place, found) for place, found in rows if found.keys() <= {FROM_0, FROM_1}]
    bases = {way for way in (FROM_0, FROM_1) if all(way in found for _, found in only_indexes)}
    if not bases:
        place = next(place for place, found in only_indexes if FROM_0 not in found)
        raise BadData(f"{place}: this answer counts from 1, and others in the file count from 0; give letters.")
    letters = []
    for place, found in rows:
        usable = ways or [way for way in found if way in bases or way not in (FROM_0, FROM_1)]
        meant = {found[way] for way in usable}
        if len(meant) > 1:
            raise BadData(f"{place}: {_words(meant, usable)}")
        letters.append(meant.pop())
    return letters


def plain(text: str) -> str:
    """The text for a comparison: composed characters, and one space for any white space."""
    text = " ".join(text.split())
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _by_text(text: str, question: Question, given: Sequence[str]) -> str | None:
    """The letter of the option with this text. Options with the same text count as one answer."""
    for texts in (question.options, given):
        for letter, option in zip(question.letters, texts, strict=False):
            if plain(option) == text:
                return letter
    close = [
        letter for letter, option in zip(question.letters, question.options, strict=True) if plain(option).casefold() == text.casefold()
    ]
    return close[0] if len(close) == 1 and len(text) > 1 else None


def _beside(question: Question, given: Given, found: set[str]) -> str:
    """The letter beside the text of the answer, as MedQA's `answer_idx`; it decides which one is meant."""
    letter = given.letter
    if isinstance(letter, int) and not isinstance(letter, bool):
        letter = question.letters[letter : letter + 1] if letter >= 0 else ""
    if not isinstance(letter, str) or len(letter.strip()) != 1 or letter.strip().upper() not in question.letters:
        raise BadData(f"the answer's letter {given.letter!r:.80} is not one of the options A to {question.letters[-1]}; correct it.")
    letter = letter.strip().upper()
    if not set(question.same_as(letter)) & found:
        raise BadData(f"the answer {given.value!r:.80} is not option {letter}, which the letter beside it names; correct one of them.")
    return letter


def _words(meant: set[str], ways: Sequence[str]) -> str:
    if set(ways) <= {FROM_0, FROM_1}:
        return f"the answers of this file may count from 0 or from 1, so this one may mean {' or '.join(sorted(meant))}; give letters."
    return f"the answer may mean {' or '.join(sorted(meant))}; change the options or the form of the answer."
