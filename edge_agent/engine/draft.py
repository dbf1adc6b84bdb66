"""Evaluates a question while a person is still typing or reading it, so that little is left to do when it is asked.

Owns the latest text and the thread that works on it. Knows the model only as a function that does a small step. Invariant:
at most one step runs at a time, and a question that is asked goes first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from edge_agent.core.errors import EdgeAgentError, ModelError
from edge_agent.engine.llama import Stopped


class Draft:
    """A question that is being typed: call `update` when it changes, then ask as usual.

    `advance(text, complete)` does one step; its future is True when nothing is left to do (`LocalModel.draft`). Use as a
    context manager, or call `close`.
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
        """Set the current text (FogGen's user message). It is `complete` if it will not change, as on the page of a quiz.

        A text that does not change for a moment counts as complete too. If it then changes, only that work is lost. Raises
        `ModelError` if the draft is closed.
        """
        with self._changed:
            if self._closed:
                raise ModelError("The draft is closed; open another one.")
            self._text, self._complete = text, complete
            self._idle.clear()
            self._changed.notify()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing is left to do for the latest text. False if that takes longer than `timeout_s`."""
        return self._idle.wait(timeout_s)

    def close(self) -> None:
        """Stop the work. Closing twice is fine."""
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
                        self._complete = True  # nothing new was typed: this may have been the last letter
            del text  # this thread may wait for long, and the text is a person's own

    def _finishes(self, text: str, complete: bool) -> bool:
        """Do one step. True if the text needs no more, which includes a text that cannot be evaluated."""
        try:
            return self._advance(text, complete).result()
        except Stopped:
            return False
        except EdgeAgentError:
            return True
