"""Finds the options in the text of a question, in the forms that people type.

Owns which forms count as options; `labels` reads one label, and `choice` tells options from other lists. Knows nothing about models
or stored questions; pure. Invariants: a text that may mean two things is refused with a sentence, never split on a guess; a text in
FogGen's own form (`A. text`, one option a line, at the end) is read as it always was, because stored answers are found by the exact
stem and options; and the time is in proportion to the length of the text.

The forms, in the order in which they are tried:

    lines     A. 18 / A) 18 / (A) 18 / A: 18        FogGen's form
    columns   A. 18 <tab> C. 24                     two or more on a line, with a tab or several spaces between them
    inline    What is 12 + 7? A) 18 B) 19 C) 24     in a row
    lists     a. 18 / А) 18 / 1. 18 / - 18          other letters, numbers, bullets

All forms but FogGen's own are guesses, so they must pass `choice.checked`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from edge_agent.core import choice, labels
from edge_agent.core.choice import EXAMPLE, Found
from edge_agent.core.errors import BadQuestion
from edge_agent.core.labels import CLOSE, LETTERS, LOWER, UPPER, Line, ListItem

_OPTION = re.compile(r"\(?([A-Z])[.):]\s+(?=\S)")
_GAP = re.compile(rf"(?<=\S)\s+(?=[(\[（]?(?:[{UPPER}{LOWER}]|\d{{1,2}})[{CLOSE}])")
_ENDS_STEM = "?？:：_…"
_BULLET_COLUMN = re.compile(rf"(?<=\S)(?P<space>\s+)[{re.escape(labels.BULLETS)}]\s")


def split(text: str) -> Found:
    """The stem and the options of a text with clean line ends; no options if there are none.

    Raises `BadQuestion` if the options are not lettered in order, or if the text may mean two things.
    """
    lines = labels.lines_of(text)
    _refuse_more_than_letters(lines)
    own = _own_form(text)
    ready = len(own) if labels.in_order(own) and own[0].label == "A" else 0
    if columns := _columns(text, lines, ready):
        return columns
    stem, options = text[: _start(text, len(own))], [item.text for item in own]
    if ready > 1:
        choice.refuse_labels_in_own_form(own)
        return Found(stem, options)
    if found := _inline(text) or _list(text, lines):
        return found
    if own and not ready:
        raise BadQuestion(f"The options are lettered {labels.named(own)}; letter them A, B, C, ... without gaps.")
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

    Numbers are kept if the options would be the same without them: `1. Mai`, `2. Mai`. Raises `BadQuestion` if all have letters, but
    not A, B, C, ... in order.
    """
    items = [labels.lettered(option) or labels.numbered(option) for option in options]
    marked = [item for item in items if item]
    if len(marked) < len(options) or len(options) < 2 or len({item.family for item in marked}) > 1:
        return list(options)
    if labels.in_order(marked):
        texts = [item.text for item in marked]
        return list(options) if marked[0].label == "1" and len(set(texts)) < len(texts) else texts
    labels.refuse_cyrillic_pair(marked)
    if labels.are_latin_out_of_order(marked):
        named = labels.named(marked)
        raise BadQuestion(f"The options are lettered {named}; give them in the order of their letters, or without letters.")
    return list(options)


def _own_form(text: str) -> list[ListItem]:
    """FogGen's own form: the last run of lines A, B, C, ... that reaches the end; their letters may still be out of order.

    Everything before it is the stem, so a stem may hold lines that look like options.
    """
    run: list[ListItem] = []
    for line in reversed(text.split("\n")):
        if not line.strip():
            continue
        if not (item := _own_item(line)):
            break
        run.append(item)
    run.reverse()
    starts = [i for i, item in enumerate(run) if item.label == "A"]
    return run[starts[-1] :] if starts else run


def _own_item(line: str) -> ListItem | None:
    line = line.strip()
    found = _OPTION.match(line)
    return ListItem(found[1], "", line[found.end() :]) if found else None


def _start(text: str, n_lines: int) -> int:
    """Where the last `n_lines` lines begin, of those that are not blank. FogGen's form knows no line break but `\\n`."""
    lines = text.split("\n")
    at, end = len(lines), len(text) + 1
    while n_lines:
        at -= 1
        end -= len(lines[at]) + 1
        n_lines -= bool(lines[at].strip())
    return min(end, len(text))


def _columns(text: str, lines: list[Line], ready: int) -> Found | None:
    """Options with a tab or several spaces between those on one line, read by their letters or numbers, across or down.

    `ready` is how many options there are if these are no columns. A tab before a letter is a column, whatever follows.
    """
    for read in (labels.lettered, labels.numbered):
        rows: list[list[ListItem]] = []
        tab = False
        for line in reversed(lines):
            row = _cells(line.text, read)
            if not row:
                break
            rows.append(row)
            tab = tab or (len(row) > 1 and "\t" in line.text)
            if any(labels.is_first(cell) for cell in row):
                break
        cells = [cell for row in reversed(rows) for cell in row]
        if len(cells) <= len(rows) or len(rows) == len(lines):
            continue
        order = labels.ordered(cells)
        if order and len(order) > ready:
            return choice.checked(text, lines[-len(rows)].at, order)
        if tab and not order:
            raise BadQuestion(f"The options are in columns, labelled {labels.named(cells)}; {EXAMPLE}.")
    return None


def _cells(line: str, read: labels.Reader) -> list[ListItem]:
    """The labelled cells of a line; none unless each has a label. A gap before a text without a label belongs to the text."""
    line = line.strip()
    cells, start = [], 0
    for gap in _GAP.finditer(line):
        if labels.is_wide(gap[0]) and read(line[gap.end() : gap.end() + 40]):
            cells.append(line[start : gap.start()])
            start = gap.end()
    items = [read(cell) for cell in (*cells, line[start:])]
    return [item for item in items if item] if all(items) else []


def _list(text: str, lines: list[Line]) -> Found | None:
    """A list at the end: lettered in any alphabet, numbered, or with bullets."""
    for read in (labels.lettered, labels.numbered, labels.bulleted):
        items = _run(lines, read)
        if len(items) < 2:
            continue
        above = len(lines) - len(items)
        if read is not labels.bulleted:
            start = _first_option(items, above)
            if start is None or not labels.in_order(items[start:]):
                labels.refuse_cyrillic_pair(items)
                kind, right = ("numbered", "number them 1, 2, 3") if read is labels.numbered else ("lettered", "letter them A, B, C")
                raise BadQuestion(f"The options are {kind} {labels.named(items)}; {right}, ... without gaps.")
            items, above = items[start:], above + start
        if len(items) < 2:
            continue
        if read is labels.lettered:
            return choice.checked(text, lines[above].at, items)
        if read is labels.bulleted and any("\t" in item.text or _has_bullet_column(item.text) for item in items):
            raise BadQuestion(f"The options seem to be in columns; {EXAMPLE}.")
        if not all(choice.may_be_option(item.text) for item in items):
            raise BadQuestion(f"The list at the end seems to be a part of the question, not its options; {EXAMPLE}.")
        found = choice.checked(text, lines[above].at, items)
        return found._replace(options=unlettered(found.options))
    return None


def _run(lines: list[Line], read: labels.Reader) -> list[ListItem]:
    """The items at the end that are all of one family."""
    items: list[ListItem] = []
    for line in reversed(lines):
        item = read(line.text)
        if item is None or (items and item.family != items[0].family):
            break
        items.append(item)
    return items[::-1]


def _first_option(items: list[ListItem], above: int) -> int | None:
    """Which item is option A or 1: the first, or the second if the first is the question itself (`12. What is 12 + 7?`)."""
    if labels.is_first(items[0]) and sum(labels.is_first(item) for item in items) == 1:
        return 0
    return 1 if above == 0 and items[0].label != "0" and labels.is_first(items[1]) else None


def _inline(text: str) -> Found | None:
    """Options in a row: `A) 18 B) 19`, after the question on its line, or on lines of their own.

    `A. 18 B. 19` may be two people's initials, so with dots there must be three options. Numbers follow a question mark, because
    "the steps: 1) boil 2) pour" is no choice.
    """
    for label, ends in ((f"[{UPPER}]", _ENDS_STEM), (f"[{LOWER}]", _ENDS_STEM), ("[0-9]{1,2}", "?？")):
        for mark, fewest in ((rf"({label})\)\s*", 2), (rf"\(({label})\)\s*", 2), (rf"({label})\.\s+", 3)):
            marks = list(re.finditer(rf"(?<!\S){mark}(?=\S)", text))
            if len(marks) < fewest or not labels.in_order([ListItem(found[1], "", "") for found in marks]):
                continue
            before = text[: marks[0].start()]
            if before.rpartition("\n")[2].strip() and before.rstrip()[-1] not in ends:
                continue
            to = [found.start() for found in marks[1:]] + [len(text)]
            items = [ListItem(found[1], "", text[found.end() : end].strip()) for found, end in zip(marks, to, strict=True)]
            if choice.may_be_row(items):
                return choice.checked(text, marks[0].start(), items)
    return None


def _has_bullet_column(text: str) -> bool:
    return any(labels.is_wide(found["space"]) for found in _BULLET_COLUMN.finditer(text))


def _refuse_more_than_letters(lines: list[Line]) -> None:
    """Raise `BadQuestion` if more lines follow an option Z: the letters are used up."""
    at = "".join(item.label if (item := _own_item(line.text)) else " " for line in lines).find(LETTERS)
    if at >= 0 and len(lines) > at + len(LETTERS):
        raise BadQuestion(f"The question has {len(lines) - at} options, but it needs 2 to 26; leave some out.")


def _refuse_what_looks_like_options(text: str, lines: list[Line]) -> None:
    """Raise `BadQuestion` with the cause, if the text seems to have options that cannot be read safely."""
    if "\n" not in text and re.search(rf"\\n\s*\(?[{UPPER}{LOWER}\d][{CLOSE}]", text):
        raise BadQuestion(r"The text has '\n' as two characters instead of line breaks; in a shell, write it as $'...', or use --option.")
    if "AB" in "".join(item.label if (item := labels.lettered(line.text)) else " " for line in lines):
        last = lines[-1].text.strip()
        raise BadQuestion(f"The options are not the last lines of the text ('{last:.40}' is); put them last, one a line.")
    if choice.has_row(text):
        raise BadQuestion(f"The text may have options in a row, or only mention their letters; {EXAMPLE}.")
