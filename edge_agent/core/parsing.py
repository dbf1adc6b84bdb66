"""Finds the options in the text of a question, in the forms that people type.

Owns which forms count as options. Knows nothing about models or stored questions; pure. Invariants: a text that may mean two things
is refused with a sentence, never split on a guess; and a text in FogGen's own form (`A. text`, one option a line, at the end) is
read as it always was, because stored answers are found by the exact stem and options.

The forms, in the order in which they are tried:

    lines     A. 18 / A) 18 / (A) 18 / A: 18        FogGen's form
    columns   A. 18 <tab> C. 24                     two or more on a line, with a tab or several spaces between them
    inline    What is 12 + 7? A) 18 B) 19 C) 24     in a row
    lists     a. 18 / А) 18 / 1. 18 / - 18          other letters, numbers, bullets
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from edge_agent.core.errors import BadQuestion

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
EXAMPLE = "write the question, then one option a line: 'A. text', 'B. text'"

_OPTION_LINE = r"\s*\(?([A-Z])[.):]\s+(\S.*?)\s*"
_UNSEEN = r"[\s\u200b\u200e\u200f\u2060\ufeff]*"  # white space, and marks without a width that copying brings along
_UPPER, _LOWER = "A-ZА-ЯЁӘҒҚҢӨҰҮҺІ", "a-zа-яёәғқңөұүһі"
_CLOSE = ".):\\]．）：、"
_NUMBERED = rf"{_UNSEEN}[(\[（]?(?P<label>\d{{1,2}})(?P<mark>[{_CLOSE}])(?:(?<=[)）、])|(?=\s))\s*(?P<text>\S.*?){_UNSEEN}"
_BULLET = rf"{_UNSEEN}(?P<label>(?P<mark>[-*+•·●○◦▪‣]))\s+(?P<text>\S.*?){_UNSEEN}"
_GAP = r"\t\s*| [ \u00a0]+"
_SEQUENCES = (
    LETTERS,
    "АБВГДЕЖЗИКЛМНОПРСТУФХЦЧШЩЭЮЯ",
    "АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЭЮЯ",
    "АБВГДЕЁЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ",
    "АӘБВГҒДЕЖЗИЙКҚЛМНҢОӨПРСТУҰҮФХҺЦЧШЩЫІЭЮЯ",
    "АӘБВГҒДЕЁЖЗИЙКҚЛМНҢОӨПРСТУҰҮФХҺЦЧШЩЪЫІЬЭЮЯ",
)
_LOOK_ALIKE = str.maketrans("АВСЕНКМОРТХІ", "ABCEHKMOPTXI")  # Cyrillic letters that look like Latin ones
_ROW = r"(?<!\S)\(?[AaАа][.)]\s*\S.*\s\(?[BbБбВ][.)]\s*\S"
_LINKS = "and|or|nor|и|или|либо|да|және|немесе|әлде|мен"
_ENDS_STEM = "?？:：_…"


class Found(NamedTuple):
    """The stem and the options of a text; `lettered` if the options have letters in it, not numbers or bullets."""

    stem: str
    options: list[str]
    lettered: bool = True


class _Item(NamedTuple):
    """One line of a list: its label, what the label is made of, and its text."""

    label: str
    family: str
    text: str


def split(text: str) -> Found:
    """The stem and the options of a text with clean line ends; no options if there are none.

    Raises `BadQuestion` if the options are not lettered in order, or if the text may mean two things.
    """
    lines = [line for line in re.split("[\n\u2028\u2029]", text) if line.strip()]
    _refuse_more_than_letters(lines)
    stem, labels, options = _lines(text)
    in_order = labels == LETTERS[: len(labels)]
    if columns := _columns(lines, len(options) if in_order else 0):
        return columns
    if in_order and len(options) > 1:
        _refuse_columns(list(labels), options, marks=r"\)")
        return Found(stem, options)
    if found := _inline(text) or _list(lines):
        return found
    if labels and not in_order:
        raise BadQuestion(f"The options are lettered {', '.join(labels)}; letter them A, B, C, ... without gaps.")
    _refuse_what_looks_like_options(text, lines)
    return Found(stem, options)


def has_lettered_options(text: str) -> bool:
    """Whether the text ends in options with letters. Numbers and bullets may be statements that other options refer to."""
    try:
        found = split(text)
    except BadQuestion:
        return False  # nothing in it can be read as options, so it may be a stem
    return found.lettered and len(found.options) > 1


def unlettered(options: Sequence[str]) -> list[str]:
    """The options without their letters or numbers, if every option has its own in order: `A. 18`, `B. 19`; otherwise as given.

    Raises `BadQuestion` if all have letters, but not A, B, C, ... in order.
    """
    items = [_lettered_item(option) or _numbered_item(option) for option in options]
    marked = [item for item in items if item]
    if len(marked) < len(options) or len(options) < 2 or len({item.family for item in marked}) > 1:
        return list(options)
    if _in_order(marked):
        return [item.text for item in marked]
    firsts = {item.label.upper().translate(_LOOK_ALIKE) for item in marked}
    if firsts == set(LETTERS[: len(marked)]):
        raise BadQuestion(f"The options are lettered {_named(marked)}; give them in the order of their letters, or without letters.")
    return list(options)


def _lines(text: str) -> tuple[str, str, list[str]]:
    """FogGen's own form: the last run of lines A, B, C, ... that reaches the end. Returns the stem, the letters and the options.

    Everything before it is the stem, so a stem may hold lines that look like options.
    """
    whole = text.split("\n")
    lines = [line for line in whole if line.strip()]
    matches = [re.fullmatch(_OPTION_LINE, line) for line in lines]
    first = len(lines)
    while first > 0 and matches[first - 1]:
        first -= 1
    starts = [i for i in range(first, len(lines)) if (m := matches[i]) and m[1] == "A"]
    start = starts[-1] if starts else first
    run = [m for m in matches[start:] if m]
    if not run:
        return text, "", []
    at = max(i for i, line in enumerate(whole) if line == lines[start])
    return "\n".join(whole[:at]), "".join(m[1] for m in run), [m[2] for m in run]


def _columns(lines: list[str], n_lines: int) -> Found | None:
    """Options with a tab or several spaces between those on one line, read by their letters or numbers, across or down.

    `n_lines` is how many options the lines have if these are no columns. A tab before a letter is a column, whatever follows.
    """
    for read, label in ((_lettered_item, f"[{_UPPER}{_LOWER}]"), (_numbered_item, r"\d{1,2}")):
        cells: list[_Item] = []
        above, tab = len(lines), False
        while above > 0 and (row := _cells(lines[above - 1], read, label)) and not (cells and _starts(cells)):
            above, cells = above - 1, [*row, *cells]
            tab = tab or (len(row) > 1 and "\t" in lines[above])
        if len(cells) <= len(lines) - above or above == 0:
            continue
        by_label = sorted(cells, key=lambda cell: (len(cell.label), cell.label.upper()))
        by_looks = sorted(cells, key=lambda cell: cell.label.upper().translate(_LOOK_ALIKE))
        for order in (cells, by_label, by_looks):
            if _in_order(order) and len(order) > n_lines:
                return Found("\n".join(lines[:above]), [cell.text for cell in order], read is _lettered_item)
        if tab:
            raise BadQuestion(f"The options are in columns, labelled {_named(cells)}; {EXAMPLE}.")
    return None


def _cells(line: str, read: Callable[[str], _Item | None], label: str) -> list[_Item]:
    """The labelled cells of a line; none unless each has a label. A gap before a text without a label belongs to the text."""
    items = [read(cell) for cell in re.split(rf"(?:{_GAP})(?=[(\[（]?{label}[{_CLOSE}]\s*\S)", line.strip())]
    return [item for item in items if item] if all(items) else []


def _starts(items: list[_Item]) -> list[int]:
    """Where a list begins: the places of A and 1."""
    return [i for i, item in enumerate(items) if item.label in ("A", "a", "А", "а", "1")]


def _refuse_columns(labels: list[str], options: list[str], marks: str) -> None:
    """Raise `BadQuestion` if the texts of the options hold exactly the labels that follow, as in `A) 18 C) 24`, `B) 19 D) 30`."""
    label = r"\d{1,2}" if labels[0].isdigit() else f"[{_UPPER}{_LOWER}]"
    inside = [m[1] for option in options for m in re.finditer(rf"(?<=\s)[(\[（]?({label})(?:{marks})(?=\s*\S)", option)]
    every = sorted([_Item(each, "", "") for each in (*labels, *inside)], key=lambda item: (len(item.label), item.label.upper()))
    if inside and _in_order(every):
        raise BadQuestion(f"The options are in columns, labelled {_named(every)}; {EXAMPLE}.")


def _list(lines: list[str]) -> Found | None:
    """A list at the end: lettered in any alphabet, numbered, or with bullets."""
    for read in (_lettered_item, _numbered_item, _bullet_item):
        items = _run(lines, read)
        above = len(lines) - len(items)
        if len(items) < 2:
            continue
        if read is not _bullet_item:
            starts = _starts(items)
            start = starts[-1] if starts else 0
            numbers_the_question = above == 0 and start == 1
            if not _in_order(items[start:]) or (len(starts) > 1 and not numbers_the_question):
                if _named(items[start:]).upper() == "А, В":
                    raise BadQuestion("The options are lettered А, В in Cyrillic: A, B, or А, Б, В with one left out? Use A, B.")
                kind, right = ("numbered", "number them 1, 2, 3") if read is _numbered_item else ("lettered", "letter them A, B, C")
                raise BadQuestion(f"The options are {kind} {_named(items)}; {right}, ... without gaps.")
            items, above = items[start:], above + start
        if len(items) < 2:
            continue
        texts = [item.text for item in items]
        if read is _bullet_item and "\t" in "".join(texts):
            raise BadQuestion(f"The options seem to be in columns, with a tab between; {EXAMPLE}.")
        if read is not _bullet_item:
            _refuse_columns([item.label for item in items], texts, marks="[.)]")
        if read is not _lettered_item:
            rows = any(re.search(_ROW, text) for text in texts)
            if rows or any(len(_run(lines[:above], other)) > 1 for other in (_lettered_item, _numbered_item, _bullet_item)):
                raise BadQuestion(f"The text ends with two lists, so it is not clear which one has the options; {EXAMPLE}.")
            if not all(_may_be_option(text) for text in texts):
                raise BadQuestion(f"The list at the end seems to be a part of the question, not its options; {EXAMPLE}.")
            texts = unlettered(texts)
        return Found("\n".join(lines[:above]), texts, read is _lettered_item)
    return None


def _run(lines: list[str], read: Callable[[str], _Item | None]) -> list[_Item]:
    """The items at the end that are all of one family."""
    items: list[_Item] = []
    for line in reversed(lines):
        item = read(line)
        if item is None or (items and item.family != items[0].family):
            break
        items.insert(0, item)
    return items


def _inline(text: str) -> Found | None:
    """Options in a row: `A) 18 B) 19`, after the question on its line, or on lines of their own.

    `A. 18 B. 19` may be two people's initials, so with dots there must be three options. Numbers follow a question mark, because
    "the steps: 1) boil 2) pour" is no choice.
    """
    for label, ends in ((f"[{_UPPER}]", _ENDS_STEM), (f"[{_LOWER}]", _ENDS_STEM), ("[0-9]{1,2}", "?？")):
        for mark, fewest in ((rf"({label})\)\s*", 2), (rf"\(({label})\)\s*", 2), (rf"({label})\.\s+", 3)):
            marks = list(re.finditer(rf"(?<!\S){mark}(?=\S)", text))
            if len(marks) < fewest or not _in_order([_Item(found[1], label, "") for found in marks]):
                continue
            before = text[: marks[0].start()]
            if before.rpartition("\n")[2].strip() and before.rstrip()[-1] not in ends:
                continue
            to = [found.start() for found in marks[1:]] + [len(text)]
            options = [text[found.end() : end].strip() for found, end in zip(marks, to, strict=True)]
            if "\n" not in text[len(before) :] and all(option[-1:] in (",", ";") for option in options[:-1]):
                options = [*(option.rstrip(",; ") for option in options[:-1]), options[-1]]
            lettered = not marks[0][1].isdigit()
            if all(_may_be_option(option) for option in options) and (lettered or not re.search(_ROW, options[-1])):
                return Found(before.rstrip(), options, lettered)
    return None


def _may_be_option(text: str) -> bool:
    """Whether a text between two labels can be an option: `18`, but not `or`, as in "plan A) or plan B)", and not a question."""
    words = re.findall(r"\w+", text.casefold())
    return "\n" not in text and not text.endswith(("?", "？")) and not (words and re.fullmatch(_LINKS, words[-1]))


def _lettered_item(line: str) -> _Item | None:
    bold = r"(?:\*\*|__)?"
    found = re.fullmatch(
        rf"{_UNSEEN}{bold}[(\[（]?(?P<label>[{_UPPER}{_LOWER}])"
        rf"(?:{bold}[{_CLOSE}]{bold}(?![^\W\d_]\.)\s*|\t\s*|\s+[-–—=]\s+)(?P<text>\S.*?){_UNSEEN}",
        line,
    )
    if not found:
        return None
    return _Item(found["label"], "upper" if found["label"].isupper() else "lower", found["text"])


def _numbered_item(line: str) -> _Item | None:
    found = re.fullmatch(_NUMBERED, line)
    return _Item(found["label"], found["mark"], found["text"]) if found else None


def _bullet_item(line: str) -> _Item | None:
    found = re.fullmatch(_BULLET, line)
    return _Item(found["label"], found["mark"], found["text"]) if found else None


def _in_order(items: Sequence[_Item]) -> bool:
    """Whether the labels are 1, 2, 3, ... or the first letters of an alphabet, in order.

    Cyrillic letters that look like Latin ones count as Latin, unless they may as well be letters of their own with one left out.
    """
    labels = [item.label.upper() for item in items]
    if labels == [str(n) for n in range(1, len(labels) + 1)]:
        return True
    if any(len(label) > 1 for label in labels):
        return False
    joined = "".join(labels)
    if any(sequence.startswith(joined) for sequence in _SEQUENCES):
        return True
    return joined != "АВ" and LETTERS.startswith(joined.translate(_LOOK_ALIKE))


def _named(items: Iterable[_Item]) -> str:
    return ", ".join(item.label for item in items)


def _refuse_more_than_letters(lines: list[str]) -> None:
    """Raise `BadQuestion` if more lines follow an option Z: the letters are used up."""
    labels = [m[1] if (m := re.fullmatch(_OPTION_LINE, line)) else " " for line in lines]
    at = "".join(labels).find(LETTERS)
    if at >= 0 and len(lines) > at + len(LETTERS):
        raise BadQuestion(f"The question has {len(lines) - at} options, but it needs 2 to 26; leave some out.")


def _refuse_what_looks_like_options(text: str, lines: list[str]) -> None:
    """Raise `BadQuestion` with the cause, if the text seems to have options that cannot be read safely."""
    if "\n" not in text and re.search(rf"\\n\s*\(?[{_UPPER}{_LOWER}\d][{_CLOSE}]", text):
        raise BadQuestion(r"The text has '\n' as two characters instead of line breaks; in a shell, write it as $'...', or use --option.")
    labels = [item.label if (item := _lettered_item(line)) else " " for line in lines]
    if "AB" in "".join(labels):
        raise BadQuestion(f"The options are not the last lines of the text ('{lines[-1].strip():.40}' is); put them last, one a line.")
    if re.search(_ROW, text):
        raise BadQuestion(f"The text may have options in a row, or only mention their letters; {EXAMPLE}.")
