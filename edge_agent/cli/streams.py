"""The standard streams while a command runs.

Owns what reaches stdout and stderr, whichever code prints it: our own, click's or a logger's. Invariants: a terminal gets
printable text, line ends and our own styles, nothing else; a character that the encoding cannot hold is written as an escape
and never raises; and no file that we open takes the number of a standard stream that the caller closed.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from typing import TextIO

from edge_agent.core.terminal import plain

_OURS = re.compile("(\x1b\\[(?:0|1|31|32|33)m|[\t\n])")  # reset, bold, red, green and yellow can neither hide nor move text
_NO_LOCALE = ("ascii", "us-ascii", "ansi_x3.4-1968", "646")  # the encoding that Python names when no locale is set


class OutputFailed(Exception):
    """Stdout cannot be written; `is_pipe` if the program that reads it has ended."""

    def __init__(self, error: OSError) -> None:
        super().__init__("standard output is closed" if error.errno == errno.EBADF else error.strerror)
        self.is_pipe = error.errno == errno.EPIPE


class _Safe(io.TextIOWrapper):
    """Stdout, with everything cleaned that is written to it. Raises `OutputFailed`."""

    def write(self, text: str) -> int:
        if text == "":
            return 0  # click tries with nothing whether text may be written
        try:
            return super().write(text if text.isprintable() else self._clean(text))
        except OSError as error:
            return self._fail(error)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._fail(error)

    def _clean(self, text: str) -> str:
        pieces = _OURS.split(text)  # every second piece is one of ours
        pieces[::2] = map(plain, pieces[::2])
        return "".join(pieces)

    def _fail(self, error: OSError) -> int:
        raise OutputFailed(error) from error


class _SafeStderr(_Safe):
    """Stderr: what is written may begin or end by returning to the start of the line, as a progress line does; and work does not
    stop because nobody can read about it.
    """

    def _clean(self, text: str) -> str:
        inner = text.strip("\r")
        before, _, after = text.partition(inner) if inner else (text, "", "")
        return before + super()._clean(inner) + after

    def _fail(self, error: OSError) -> int:
        discard(2)
        return 0


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """Safe streams while a command runs; afterwards they are as they were."""
    _reopen_closed()
    was = sys.stdout, sys.stderr
    safe = _over(_Safe, sys.stdout, 1), _over(_SafeStderr, sys.stderr, 2)
    sys.stdout, sys.stderr = safe
    try:
        yield
    finally:
        sys.stdout, sys.stderr = was
        for stream in safe:
            with contextlib.suppress(OutputFailed):
                stream.detach()


def discard(number: int) -> None:
    """Send what is still to be written to stdout (1) or stderr (2) nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def _over(kind: type[_Safe], stream: TextIO | None, number: int) -> _Safe:
    """A safe stream over the same bytes; over the bare file if it was closed when Python started."""
    buffer = getattr(stream, "buffer", None) or io.BufferedWriter(io.FileIO(number, "w", closefd=False))
    encoding = getattr(stream, "encoding", "utf-8")
    if encoding.lower() in _NO_LOCALE:
        encoding = "utf-8"  # most terminals show UTF-8 whatever the locale says
    at_once = number == 2 or getattr(stream, "line_buffering", False)
    return kind(buffer, encoding, "backslashreplace", line_buffering=at_once, write_through=getattr(stream, "write_through", False))


def _reopen_closed() -> None:
    """Give a closed standard stream its number back, so that the database does not become stdout.

    Writing to stdout then still fails, as it did; what is written to stderr is lost, as it was.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # the lowest free number, which is this one
