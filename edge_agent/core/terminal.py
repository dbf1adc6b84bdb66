"""Text that is safe to print, and a progress line on stderr.

`convert` prints with it too. Invariant: text from a model, a cloud or a stranger reaches a terminal without control
characters.
"""

from __future__ import annotations

import sys
import time
import unicodedata
from typing import NamedTuple

_ON_TERMINAL_S, _ELSEWHERE_S = 0.2, 15.0
_JOINERS = "\u200c\u200d"  # emoji and some scripts need them


class Progress(NamedTuple):
    """How far a transfer is; `trouble` says why a request is retried."""

    name: str
    n_bytes: int
    total_bytes: int | None
    trouble: str | None = None


def plain(text: str) -> str:
    """The text without control and direction characters, which could rewrite an operator's terminal."""
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c)[0] == "C" and c not in _JOINERS else c for c in text)


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
            _write("\r" + text.ljust(self._width))
            self._width = len(text)
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
