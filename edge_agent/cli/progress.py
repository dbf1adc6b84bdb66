"""How long work looks on stderr: a line that is written over on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from edge_agent.cli.show import plain

if TYPE_CHECKING:
    from edge_agent.fetch.download import Progress

_ON_TERMINAL_S, _ELSEWHERE_S = 0.2, 15.0


class ProgressLine:
    """Use as a context manager; `show` a text as often as you like, `note` what should stay."""

    def __init__(self) -> None:
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._shown, self._width = (0.0 if self._terminal else time.monotonic()), 0

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def show(self, text: str) -> None:
        """The latest state; what comes too soon after the last one is not shown."""
        now = time.monotonic()
        if now - self._shown < (_ON_TERMINAL_S if self._terminal else _ELSEWHERE_S):
            return
        self._shown, text = now, plain(text)
        if self._terminal:
            click.echo("\r" + text.ljust(self._width), nl=False, err=True)
            self._width = len(text)
        else:
            click.echo(text, err=True)

    def note(self, text: str) -> None:
        """A line that stays."""
        self._clear()
        click.echo(plain(text), err=True)

    def transfer(self, progress: Progress) -> None:
        """How far a download is."""
        if progress.trouble:
            self.note(f"{progress.name}: {progress.trouble}; trying again")
        self.show(f"{progress.name}  {_megabytes(progress.n_bytes, progress.total_bytes)}")

    def _clear(self) -> None:
        if self._width:
            click.echo("\r" + " " * self._width + "\r", nl=False, err=True)
            self._width = 0


def _megabytes(n_bytes: int, total_bytes: int | None) -> str:
    """So much of so much."""
    return f"{n_bytes / 1e6:,.1f} MB" if not total_bytes else f"{n_bytes / 1e6:,.1f} of {total_bytes / 1e6:,.1f} MB"
