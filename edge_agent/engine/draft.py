"""Evaluates a question while a person is still writing or reading it, so that the answer has only the tail left to do.

Owns the newest text and the thread that works on it. Knows the model only as something that does a little more when
asked. Invariant: at most one small piece of work is ever under way, and a question that is asked goes before it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from edge_agent.core.errors import EdgeAgentError
from edge_agent.engine.llama import Stopped


class Draft:
    """What is being written: `update` it as it grows or changes, then ask as usual.

    `advance(text, complete)` does a little work and says by its future whether any is left to do (`LocalModel.draft`).
    Use as a context manager, or `close`.
    """

    def __init__(self, advance: Callable[[str, bool], Future[bool]]) -> None:
        self._advance = advance
        self._changed = threading.Condition()
        self._text: str | None = None
        self._complete = self._closed = False
        self._idle = threading.Event()
        self._idle.set()
        self._thread = threading.Thread(target=self._work, daemon=True, name="draft")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def update(self, text: str, complete: bool = False) -> None:
        """The text as it is now (FogGen's user message); `complete` when only the asking is left, as with a page of a quiz.

        A text that stays as it is for a moment is taken for complete, too: if it then changes, only that guess is lost.
        """
        with self._changed:
            self._text, self._complete = text, complete
            self._idle.clear()
            self._changed.notify()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing is left to do for the newest text; False if the time was up before."""
        return self._idle.wait(timeout_s)

    def close(self) -> None:
        """End the work; closing twice is fine."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._text is None and not self._closed:
                    self._idle.set()
                    self._changed.wait()
                if self._closed:
                    self._idle.set()
                    return
                text, complete = self._text, self._complete
            finished = self._finishes(text or "", complete)
            with self._changed:
                if finished and self._text == text and self._complete == complete:
                    if complete:
                        self._text = None
                    else:
                        self._complete = True  # nothing else comes for now: perhaps that was the last letter

    def _finishes(self, text: str, complete: bool) -> bool:
        """One step; whether the text needs no more (a text that cannot be evaluated needs none either)."""
        try:
            return self._advance(text, complete).result()
        except Stopped:
            return False
        except EdgeAgentError:
            return True
