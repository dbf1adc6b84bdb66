"""The lines of a text and the labels in front of options: letters of three alphabets, numbers and bullets.

Owns what counts as a label and which labels are in order. Knows nothing about questions; pure. Invariant: every function takes time
in proportion to the length of its text, whatever a stranger writes. So lines are stripped first, and patterns match the label alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from edge_agent.core.errors import BadQuestion

LINE_BREAKS = "\n\u2028\u2029"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_SEQUENCES = (
    LETTERS,
    "АБВГДЕЖЗИКЛМНОПРСТУФХЦЧШЩЭЮЯ",
    "АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЭЮЯ",
    "АБВГДЕЁЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ",
    "АӘБВГҒДЕЖЗИЙКҚЛМНҢОӨПРСТУҰҮФХҺЦЧШЩЫІЭЮЯ",
    "АӘБВГҒДЕЁЖЗИЙКҚЛМНҢОӨПРСТУҰҮФХҺЦЧШЩЪЫІЬЭЮЯ",
)
_LOOK_ALIKE = str.maketrans("АВСЕНКМОРТХІ", "ABCEHKMOPTXI")  # Cyrillic letters that look like Latin ones
_MOST = 99  # labels of a list: numbers have two digits

UPPER, LOWER = "A-ZА-ЯЁӘҒҚҢӨҰҮҺІ", "a-zа-яёәғқңөұүһі"
CLOSE = ".):\\]．）：、"  # behind a letter
_CLOSE_NUMBER = ".)\\]．）、"  # "1: 3" is a ratio
BULLETS = "-*+•·●○◦▪‣"
# White space, and marks without a width that copying brings along.
_UNSEEN = "".join(c for c in map(chr, range(0x3001)) if c.isspace()) + "\u200b\u200e\u200f\u2060\ufeff"
_BOLD = r"\*\*|__"
_LETTERED = re.compile(
    rf"(?P<bold>{_BOLD})?[(\[（]?(?P<label>[{UPPER}{LOWER}])"
    rf"(?:(?P<inner>(?(bold)(?:{_BOLD})?))[{CLOSE}](?P<outer>(?(bold)(?:{_BOLD})?))(?![^\W\d_]\.)|\t)\s*(?=\S)"
)
_NUMBERED = re.compile(rf"[(\[（]?(?P<label>\d{{1,2}})(?P<mark>[{_CLOSE_NUMBER}])(?:(?<=[)）、])|(?=\s))\s*(?=\S)")
_BULLETED = re.compile(rf"(?P<label>[{re.escape(BULLETS)}])\s+(?=\S)")


class ListItem(NamedTuple):
    """One line of a list: its label, what the label is made of, and its text."""

    label: str
    family: str
    text: str


class Line(NamedTuple):
    """A line that is not blank, and where it begins in the text."""

    text: str
    at: int


Reader = Callable[[str], ListItem | None]


def lines_of(text: str) -> list[Line]:
    """The lines that are not blank."""
    lines: list[Line] = []
    at = 0
    for line in re.split(f"[{LINE_BREAKS}]", text):
        if line.strip():
            lines.append(Line(line, at))
        at += len(line) + 1
    return lines


def lettered(line: str) -> ListItem | None:
    """The item of a line such as `A. 18`, `(б) 18` or `**A.** 18`. If the whole line is bold, its text is read without the marks."""
    line = line.strip(_UNSEEN)
    found = _LETTERED.match(line)
    if not found:
        return None
    text = line[found.end() :]
    if (bold := found["bold"]) and not (found["inner"] or found["outer"]):
        text = text[:-2].rstrip() if text.endswith(bold) else ""
        if not text:
            return None  # bold ends inside the text
    return ListItem(found["label"], "upper" if found["label"].isupper() else "lower", text)


def numbered(line: str) -> ListItem | None:
    """The item of a line such as `1. 18` or `(1) 18`."""
    line = line.strip(_UNSEEN)
    found = _NUMBERED.match(line)
    return ListItem(found["label"], found["mark"], line[found.end() :]) if found else None


def bulleted(line: str) -> ListItem | None:
    """The item of a line such as `- 18`."""
    line = line.strip(_UNSEEN)
    found = _BULLETED.match(line)
    return ListItem(found["label"], found["label"], line[found.end() :]) if found else None


def is_first(item: ListItem) -> bool:
    """Whether a list may begin with this label."""
    return item.label in ("A", "a", "А", "а", "1")


def in_order(items: Sequence[ListItem]) -> bool:
    """Whether the labels are 1, 2, 3, ... or the first letters of an alphabet, in order.

    Cyrillic letters that look like Latin ones count as Latin, unless they may as well be letters of their own with one left out.
    """
    if not items or len(items) > _MOST:
        return False
    labels = [item.label.upper() for item in items]
    if labels == [str(n) for n in range(1, len(labels) + 1)]:
        return True
    if any(len(label) > 1 for label in labels):
        return False
    joined = "".join(labels)
    if any(sequence.startswith(joined) for sequence in _SEQUENCES):
        return True
    return joined != "АВ" and LETTERS.startswith(joined.translate(_LOOK_ALIKE))


def ordered(items: Sequence[ListItem]) -> list[ListItem] | None:
    """The items as they come if they are in order; else sorted by their labels, as columns are read down; None if that has gaps."""
    if len(items) > _MOST:
        return None
    orders: list[Callable[[ListItem], int]] = []
    if all(item.label.isdecimal() for item in items):
        orders.append(lambda item: int(item.label))
    orders += [lambda item, sequence=sequence: sequence.find(item.label.upper()) for sequence in _SEQUENCES]  # type: ignore[misc]
    orders.append(lambda item: LETTERS.find(item.label.upper().translate(_LOOK_ALIKE)))
    for each in (list(items), *(sorted(items, key=order) for order in orders)):
        if in_order(each):
            return each
    return None


def inside(text: str, number: bool = False) -> list[re.Match[str]]:
    """The labels inside a text that something follows, as matches with the groups `space` (before it), `label` and `mark`."""
    label = rf"\d{{1,2}})(?P<mark>[{_CLOSE_NUMBER}]" if number else rf"[{UPPER}{LOWER}])(?P<mark>[{CLOSE}]"
    return list(re.finditer(rf"(?<=\S)(?P<space>\s+)[(\[（]?(?P<label>{label})(?![^\W\d_]\.)\s*(?=\S)", text))


def is_wide(space: str) -> bool:
    """Whether white space is as wide as a gap between columns: a tab, or several spaces."""
    return "\t" in space or "  " in space or " \u00a0" in space


def named(items: Iterable[ListItem]) -> str:
    """The labels, for a message; not all of very many."""
    labels = [item.label for item in items]
    return ", ".join(labels if len(labels) <= 40 else [*labels[:40], "..."])


def refuse_cyrillic_pair(items: Sequence[ListItem]) -> None:
    """Raise `BadQuestion` if the labels are А, В in Cyrillic: the first two of the Latin ones, or the first and the third."""
    if "".join(item.label for item in items).upper() == "АВ":
        raise BadQuestion(f"The options are lettered {named(items)} in Cyrillic: A, B, or А, Б, В with one left out? Use A, B.")


def are_latin_out_of_order(items: Sequence[ListItem]) -> bool:
    """Whether the labels are A, B, C, ... (or look like them), each once, but not in this order."""
    labels = {item.label.upper().translate(_LOOK_ALIKE) for item in items}
    return labels == set(LETTERS[: len(items)]) and not in_order(items)
