"""What the server writes to its log.

Owns its form. Invariants: no control character of a stranger reaches it; of an exception it shows the type and the places, never the
words, which may hold a question; and a request that is merely bad leaves no line.
"""

from __future__ import annotations

import logging
import time
import traceback
from typing import Any

from edge_agent.core.terminal import plain

# What uvicorn calls an error of its own: a WebSocket that the guard refused, and one whose text is not UTF-8.
_MERELY_BAD = ("without completing handshake", "Invalid UTF-8 sequence received from client")
_SELDOM_S = 60.0


class Plainly(logging.Formatter):
    """Messages without control characters but the ends of lines."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        return "\n".join(plain(line) for line in super().format(record).split("\n"))

    def formatException(self, ei: Any) -> str:  # noqa: N802  # logging's name
        """Where an exception came from, and its type."""
        return "".join([*traceback.format_tb(ei[2]), ei[0].__name__])


class Seldom(logging.Filter):
    """Lets a message with these words through once a minute."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words, self._again_s = words, 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        if self._words not in record.getMessage():
            return True
        if time.monotonic() < self._again_s:
            return False
        self._again_s = time.monotonic() + _SELDOM_S
        return True


def plainly() -> None:
    """Write the log of this process to stderr in this form."""
    handler = logging.StreamHandler()
    handler.setFormatter(Plainly())
    logging.getLogger().handlers = [handler]
    logging.getLogger("asyncio").addFilter(Seldom("out of system resource"))  # it says so again with every try
    server = logging.getLogger("uvicorn.error")
    server.setLevel(logging.ERROR)  # at lower levels each bad request is a line
    server.addFilter(lambda record: not any(words in record.getMessage() for words in _MERELY_BAD))
