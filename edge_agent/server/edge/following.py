"""Who waits for endings: one thread follows them in the store, and every stream and every waiting request hears of them from it.

Owns the fan-out and its bounds. Knows nothing about HTTP. Invariants: a listener hears each ending that was stored after it began
to listen, in order, or is told that it is `behind` and must read the store; nobody who listens holds a thread, and no listener
can make this process keep more than `MOST_KEPT` items for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edge_agent.agent.agent import Agent
from edge_agent.core.errors import AgentClosed, EdgeAgentError, ModelBusy
from edge_agent.core.outcome import CloudKind
from edge_agent.core.records import Ending
from edge_agent.store import overview

MOST_STREAMS, MOST_WAITERS, MOST_KEPT = 64, 128, 256  # together fewer than the connections that the server takes
FOR_OPERATOR = 8  # of the streams, and of the waiting requests: so many are kept for whoever has the operator's token
_STATE_EVERY_S = 1.0
_AGAIN_S = 2.0  # after an error, such as a database that cannot be read

_IN_WORDS = {"online": "Online", "offline": "Offline", "paused": "The cloud has a problem", "none": "No cloud is set up"}

_log = logging.getLogger("edge_agent")


@dataclass(frozen=True, slots=True)
class State:
    """Whether the cloud can be reached, as far as is known, and how many questions wait for it.

    `connection` is `online` (the last call got a reply, or there was none yet), `offline` (it found no connection), `paused` (it failed
    otherwise, or the cloud refuses calls) or `none` (no cloud is set up).
    """

    connection: str
    waiting: int

    @property
    def text(self) -> str:
        """The same as a sentence for people."""
        said = _IN_WORDS[self.connection]
        if not self.waiting:
            return f"{said}."
        one, until = self.waiting == 1, " until one is" if self.connection == "none" else " for the cloud"
        return f"{said}; {self.waiting} question{' waits' if one else 's wait'}{until}."


class Listener:
    """One stream, or one request that waits. `ids` are the decisions that it wants to hear of; None means all, and decisions too.

    `behind` is true when it has to read the store first: at the beginning, after it was too slow, and when one of its
    decisions was deleted.
    """

    def __init__(self, ids: Sequence[str] | None, is_stream: bool) -> None:
        self.ids, self.is_stream, self.behind = ids, is_stream, True
        self._items: deque[Ending | State | dict[str, Any]] = deque()
        self._woken = asyncio.Event()

    def put(self, item: Ending | State | dict[str, Any]) -> None:
        """Add an item, or note that there are too many."""
        if len(self._items) >= MOST_KEPT:
            self._items.clear()
            self.behind = True
        else:
            self._items.append(item)
        self.wake()

    def wake(self) -> None:
        """Make `next` return."""
        self._woken.set()

    async def next(self, timeout_s: float) -> Ending | State | dict[str, Any] | None:
        """The next item; None if none comes in time, or if it was woken."""
        if not self._items:
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), timeout_s)
        return self._items.popleft() if self._items else None


class Following:
    """The thread and its listeners. All but `run` is called on the event loop. `on_ending` is called with each ending."""

    def __init__(self, agent: Agent, stop: threading.Event, on_ending: Callable[[Ending], None] = lambda ending: None) -> None:
        self._agent, self._stop, self._on_ending = agent, stop, on_ending
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: set[Listener] = set()
        self._by_id: dict[str, set[Listener]] = {}
        self.closing = asyncio.Event()

    def listen(self, ids: Sequence[str] | None, is_stream: bool, is_operator: bool = False) -> Listener:
        """Start listening; `leave` ends it. Raises `ModelBusy` if too many listen, `AgentClosed` if the server stops.

        The last `FOR_OPERATOR` places are the operator's, so that no client can shut the operator out.
        """
        if self._stop.is_set():
            raise AgentClosed("The server stops; connect again in a moment.")
        most = (MOST_STREAMS if is_stream else MOST_WAITERS) - (0 if is_operator else FOR_OPERATOR)
        if sum(one.is_stream == is_stream for one in self._listeners) >= most:
            raise ModelBusy(f"{most} {'streams are open' if is_stream else 'requests wait for a decision'} already; try again later.")
        self._loop = asyncio.get_running_loop()
        listener = Listener(ids, is_stream)
        self._listeners.add(listener)
        for decision_id in ids or ():
            self._by_id.setdefault(decision_id, set()).add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """Stop listening."""
        self._listeners.discard(listener)
        for decision_id in listener.ids or ():
            listeners = self._by_id.get(decision_id, set())
            listeners.discard(listener)
            if not listeners:
                self._by_id.pop(decision_id, None)

    @property
    def n_streams(self) -> int:
        """How many streams are open."""
        return sum(listener.is_stream for listener in self._listeners)

    def close(self) -> None:
        """Wake every listener, because the server stops."""
        self.closing.set()
        for listener in self._listeners:
            listener.wake()

    def decided(self, facts: dict[str, Any]) -> None:
        """Tell those who may hear everything of a new decision."""
        for listener in self._listeners:
            if listener.ids is None:
                listener.put(facts)

    def state(self) -> State:
        """The state now, from the store. Raises `StorageError`."""
        gate = self._agent.gate
        waiting = self._agent.outbox.count("ready", "sending")
        if gate is None:
            return State("none", waiting)
        health = gate.breaker.health
        if not health.open_s and not health.recent.endswith("-"):
            return State("online", waiting)
        return State("offline" if health.kind == CloudKind.OFFLINE else "paused", waiting)

    def run(self) -> None:
        """Follow the endings until the server stops; for a thread of its own."""
        after: int | None = None
        mark: object = None
        said = ""
        while not self._stop.is_set():
            try:
                if after is None:
                    after = self._agent.store.last_end()
                for ending in self._agent.endings(after, self._stop, timeout_s=_STATE_EVERY_S):
                    after = ending.number
                    self._on_ending(ending)
                    self._tell(self._ended, ending)
                if (now := self._agent.store.database.change_mark()) != mark:
                    self._tell(self._changed, self.state())
                    for decision_id in overview.forgotten(self._agent.store, list(self._by_id)):
                        self._tell(self._forgotten, decision_id)
                    mark = now
                said = ""
            except EdgeAgentError as error:
                if not self._stop.is_set() and str(error) != said:  # once, not every time
                    said = str(error)
                    _log.warning("edge-agent: endings cannot be read for now: %s", error)
                self._stop.wait(_AGAIN_S)
            except Exception:  # a bug in telling must not end the answering
                _log.exception("edge-agent: following the endings failed")
                self._stop.wait(_AGAIN_S)

    def _tell(self, tell: Callable[..., None], item: Ending | State | str) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
                self._loop.call_soon_threadsafe(tell, item)

    def _ended(self, ending: Ending) -> None:
        everything = {listener for listener in self._listeners if listener.ids is None}
        for listener in self._by_id.get(ending.decision_id, set()) | everything:
            listener.put(ending)

    def _forgotten(self, decision_id: str) -> None:
        """Let those who wait for a decision that was deleted read the store."""
        for listener in self._by_id.pop(decision_id, set()):  # once: an id is never used again
            listener.behind = True
            listener.wake()

    def _changed(self, state: State) -> None:
        """Tell every stream, even if nothing is new here: one that was opened meanwhile may have seen another state in between."""
        for listener in self._listeners:
            if listener.is_stream:
                listener.put(state)
