"""Text that is safe to print and fits its place, and a progress line on stderr.

`convert` prints with it too. Owns what a terminal may be shown and how many columns it takes; knows nothing of tables.
Invariant: text from a model, a cloud or a stranger reaches a terminal without control characters.
"""

from __future__ import annotations

import json
import sys
import time
import unicodedata
from typing import NamedTuple

_ON_TERMINAL_S, _ELSEWHERE_S = 0.2, 15.0
_JOINERS = "\u200c\u200d"  # emoji and some scripts need them
_EMOJI_STYLE = "\ufe0f"  # makes the character before it an emoji, two columns wide
_LINE_ENDS = ("Zl", "Zp")  # U+2028 and U+2029: some readers of JSON lines end a line there


class Progress(NamedTuple):
    """How far a transfer is; `trouble` says why a request is retried."""

    name: str
    n_bytes: int
    total_bytes: int | None
    trouble: str | None = None


def plain(text: str) -> str:
    """The text without control and direction characters, which could rewrite an operator's terminal."""
    return text if text.isprintable() else "".join("\N{REPLACEMENT CHARACTER}" if _is_unsafe(c) else c for c in text)


def safe_json(data: object, indent: int | None = None, only_ascii: bool = False) -> str:
    """JSON with every character that `plain` would replace as `\\uXXXX`: safe to show, and the same value to a program."""
    text = json.dumps(data, ensure_ascii=only_ascii, indent=indent)
    if only_ascii or text.isprintable():
        return text
    return "".join(json.dumps(c)[1:-1] if c != "\n" and (_is_unsafe(c) or unicodedata.category(c) in _LINE_ENDS) else c for c in text)


def _is_unsafe(c: str) -> bool:
    return unicodedata.category(c)[0] == "C" and c not in _JOINERS


def columns_of(text: str) -> int:
    """How many columns the text takes on a terminal: two for Chinese characters and emoji, none for accents that join a letter.

    Widths are those of Unicode's UAX 11, in which Cyrillic letters take one column. Emoji of several parts count in full, so a
    line may look shorter than it was counted, but never longer.
    """
    return len(text) if text.isascii() else sum(_columns_of(c) for c in text)


def _columns_of(c: str) -> int:
    if c == _EMOJI_STYLE:
        return 1
    if unicodedata.combining(c) or unicodedata.category(c) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1


def one_line(text: str) -> str:
    """The text on one line, safe to print."""
    return plain(" ".join(text.split()))


def shortened(text: str, columns: int) -> str:
    """The text on one line of at most so many columns (at least 1); an ellipsis marks what was cut."""
    return cut(one_line(text), columns)


def cut(line: str, columns: int) -> str:
    """A line with what does not fit in so many columns (at least 1) replaced by an ellipsis."""
    if columns_of(line) <= columns:
        return line
    return line[: _n_fitting(line, columns - 1)].rstrip() + "…"


def wrapped(text: str, columns: int, indent: int = 0) -> list[str]:
    """A text on lines of at most so many columns, broken at spaces, or inside a word that no line can hold.

    A text that fits stays as it is. Otherwise the first `indent` characters stay as they are, and the following lines begin with as
    many spaces.
    """
    if columns_of(text) <= columns:
        return [text]
    indent = min(indent, columns // 2)
    found, line, start = [], text[:indent], " " * indent
    is_new = True
    for word in text[indent:].split(" "):
        if not is_new and columns_of(f"{line} {word}") <= columns:
            line = f"{line} {word}"
            continue
        if not is_new:
            found.append(line)
            line = start
        while columns_of(line + word) > columns:
            n_fitting = max(1, _n_fitting(word, columns - columns_of(line)))
            found.append(line + word[:n_fitting])
            line, word = start, word[n_fitting:]  # noqa: PLW2901
        line, is_new = line + word, False
    return [*found, line]


def _n_fitting(text: str, columns: int) -> int:
    """How many characters of a text fit in so many columns."""
    for n, c in enumerate(text):
        columns -= _columns_of(c)
        if columns < 0:
            return n
    return len(text)


def padded(text: str, columns: int) -> str:
    """The text with spaces after it, so that it takes at least so many columns."""
    return text + " " * (columns - columns_of(text))


class ProgressLine:
    """One line that is rewritten on a terminal; elsewhere, a new line every 15 seconds.

    Use as a context manager. Call `show` as often as you like; `note` prints a line that stays.
    """

    def __init__(self) -> None:
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._shown, self._width = (0.0 if self._terminal else time.monotonic()), 0

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def show(self, text: str) -> None:
        """Print the latest state, unless the last one was printed a moment ago."""
        now = time.monotonic()
        if now - self._shown < (_ON_TERMINAL_S if self._terminal else _ELSEWHERE_S):
            return
        self._shown, text = now, plain(text)
        if self._terminal:
            _write("\r" + padded(text, self._width))
            self._width = columns_of(text)
        else:
            _write(text + "\n")

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self._clear()
        _write(plain(text) + "\n")

    def transfer(self, progress: Progress) -> None:
        """Show how far a transfer is."""
        if progress.trouble:
            self.note(f"{progress.name}: {progress.trouble}; trying again")
        self.show(f"{progress.name}  {_megabytes(progress.n_bytes, progress.total_bytes)}")

    def _clear(self) -> None:
        if self._width:
            _write("\r" + " " * self._width + "\r")
            self._width = 0


def _write(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(text)
        sys.stderr.flush()


def _megabytes(n_bytes: int, total_bytes: int | None) -> str:
    return f"{n_bytes / 1e6:,.1f} MB" if not total_bytes else f"{n_bytes / 1e6:,.1f} of {total_bytes / 1e6:,.1f} MB"
