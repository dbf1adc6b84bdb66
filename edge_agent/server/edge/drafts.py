"""Drafts: questions that people are still typing, which the model reads ahead of time.

Owns which client has a draft and when it is forgotten. Stores and logs nothing. Invariants: the model works on the newest text of all
clients and on no other, because it has room for one; a client that is forgotten leaves no text behind; a draft never delays a question.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from typing import Protocol

from edge_agent.agent.agent import Agent
from edge_agent.core.errors import BadQuestion, ModelBusy

MOST_DRAFTS = 32
IDLE_S = 60.0


class ReadAhead(Protocol):
    """What `Agent.draft` returns."""

    def update(self, text: str, complete: bool = False) -> None:
        """Set the text to read."""

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether nothing is left to read, now or within this time."""

    def close(self) -> None:
        """Stop."""


class Drafts:
    """The drafts of all clients. All but `open` is called on the event loop. Two drafts at once would undo each other's work at every
    step, so the newest text replaces the others'; their clients lose only time.
    """

    def __init__(self, agent: Agent, idle_s: float = IDLE_S) -> None:
        self._agent, self.idle_s = agent, idle_s
        self._opening = threading.Lock()
        self._draft: ReadAhead | None = None
        self._ends: dict[str, float] = {}  # of each client's draft: when it is forgotten
        self._newest: str | None = None  # whose text the model has
        self._is_asked = False  # since then, a question was answered
        self._is_timed = False  # whether the one timer runs: one for each message would take memory for as long as a draft lives

    def open(self) -> None:
        """Make ready for drafts; opens the model if need be. Raises what `Agent.draft` raises."""
        with self._opening:
            if self._draft is None:
                self._draft = self._agent.draft()

    def add(self) -> str:
        """A new draft. Raises `ModelBusy` if there are too many."""
        self._forget_idle()
        if len(self._ends) >= MOST_DRAFTS:
            raise ModelBusy(f"{MOST_DRAFTS} drafts are open already; ask without one, or try again later.")
        draft_id = str(uuid.uuid4())
        self._keep(draft_id)
        return draft_id

    def update(self, draft_id: str, text: str, complete: bool) -> None:
        """Set the text so far. Raises `BadQuestion` for an unknown draft."""
        self._forget_idle()
        if draft_id not in self._ends or self._draft is None:
            raise BadQuestion(f"There is no such draft; it was dropped, or not changed for {self.idle_s:g} s.")
        self._keep(draft_id)
        self._newest, self._is_asked = draft_id, False
        self._draft.update(text, complete)

    def drop(self, draft_id: str) -> bool:
        """Forget a draft and its text at once. False if there was none."""
        if self._ends.pop(draft_id, None) is None:
            return False
        if self._newest == draft_id and self._draft is not None:
            self._newest = None
            if not (self._is_asked and self._draft.wait(0)):  # what the model has read of a question that was asked is worth keeping
                self._draft.update("", complete=True)
        return True

    def decided(self) -> None:
        """Note that a question was answered."""
        self._is_asked = True

    def close(self) -> None:
        """Drop all; called when the event loop has ended."""
        self._ends.clear()
        with self._opening:
            if self._draft is not None:
                self._draft.close()
                self._draft = None

    def _keep(self, draft_id: str) -> None:
        self._ends[draft_id] = time.monotonic() + self.idle_s
        if not self._is_timed:
            self._look_after(self.idle_s)

    def _look_after(self, wait_s: float) -> None:
        self._is_timed = True
        asyncio.get_running_loop().call_later(wait_s + 0.1, self._look)

    def _look(self) -> None:
        """Forget what is idle, and look again when the next one may be."""
        self._is_timed = False
        self._forget_idle()
        if self._ends:
            self._look_after(min(self._ends.values()) - time.monotonic())

    def _forget_idle(self) -> None:
        now = time.monotonic()
        for draft_id in [one for one, ends in self._ends.items() if ends <= now]:
            self.drop(draft_id)
