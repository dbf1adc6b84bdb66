"""The agent behind the server: a bounded line in front of it, the drainer beside it, and whether it is ready.

Owns the threads that work for requests. Knows nothing about HTTP. Invariants: at most `most_at_once` requests work or wait, and one
more is refused at once; what was started is finished and stored before `close` returns, whether its client still waits or not.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from edge_agent.agent.agent import Agent
from edge_agent.core.errors import AgentClosed, EdgeAgentError, ModelBusy
from edge_agent.core.question import Question
from edge_agent.core.records import Decision

T = TypeVar("T")
MOST_AT_ONCE = 16
_DRAIN_AGAIN_S = 5.0  # after an error that ended the drainer, such as a database that cannot be read

_log = logging.getLogger("edge_agent")


class Service:
    """An agent for many clients at once. `start` opens the model and the drainer; `close` ends both and closes the agent."""

    def __init__(self, agent: Agent, most_at_once: int = MOST_AT_ONCE) -> None:
        self.agent, self.most_at_once = agent, most_at_once
        self.n_at_work = 0  # requests that work or wait; only the event loop changes it
        self.n_refused = 0
        self.failed: EdgeAgentError | None = None  # why the model cannot be used
        self._ready, self._stop = threading.Event(), threading.Event()
        self._workers = ThreadPoolExecutor(most_at_once, "request")
        self._background = [threading.Thread(target=self._open_model, name="warm", daemon=True)]
        if agent.gate is not None:
            self._background.append(threading.Thread(target=self._drain, name="drain", daemon=True))

    def start(self) -> None:
        """Open the model and start the drainer, both in threads of their own."""
        for thread in self._background:
            thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether the model is open."""
        return self._ready.is_set()

    def wait_ready(self, timeout_s: float | None = None) -> bool:
        """Wait until the model is open; False if it is not by then, or cannot be (`failed`)."""
        self._ready.wait(timeout_s)
        return self.is_ready and self.failed is None

    @property
    def is_stopping(self) -> bool:
        """Whether no new work is taken."""
        return self._stop.is_set()

    async def ask(self, question: Question, *, tau: float | None = None, policy: str | None = None, refresh: bool = False) -> Decision:
        """Decide one question. Raises what `Agent.ask` raises, and `ModelBusy` if too many wait."""
        return await self.run(lambda: self.agent.ask(question, refresh, tau=tau, policy=policy))

    async def ask_all(
        self, questions: Sequence[Question], *, tau: float | None = None, policy: str | Sequence[str] | None = None, refresh: bool = False
    ) -> list[Decision]:
        """Decide several questions, whose common beginning is read once. Raises what `Agent.ask_all` raises, and `ModelBusy`."""
        return await self.run(lambda: self.agent.ask_all(questions, tau=tau, policy=policy, refresh=refresh))

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` on a thread of its own. A client that goes away does not stop it. Raises `ModelBusy` if too many wait."""
        if self._stop.is_set():
            raise AgentClosed("The server stops; ask again in a moment.")
        if self.n_at_work >= self.most_at_once:
            self.n_refused += 1
            raise ModelBusy(f"{self.n_at_work} requests are already waiting; ask again in a moment.")
        self.n_at_work += 1
        future = asyncio.get_running_loop().run_in_executor(self._workers, work)
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self.n_at_work -= 1
        if not future.cancelled():
            future.exception()  # nobody may wait for it any more

    def close(self) -> None:
        """Finish what is under way, then close the agent."""
        self._stop.set()
        self._workers.shutdown(wait=True)
        for thread in self._background:
            if thread.ident is not None:
                thread.join()
        self.agent.close()

    def _open_model(self) -> None:
        try:
            self.agent.warm()
        except EdgeAgentError as error:
            self.failed = error
        self._ready.set()

    def _drain(self) -> None:
        """Send what waits as soon as it can be sent, until the server stops."""
        while not self._stop.is_set():
            try:
                for _ in self.agent.watch(self._stop):
                    pass
            except EdgeAgentError as error:
                _log.warning("edge-agent: the queue cannot be sent for now: %s", error)
            except Exception:  # a bug in sending must not end the answering
                _log.exception("edge-agent: the drainer failed")
            self._stop.wait(_DRAIN_AGAIN_S)
