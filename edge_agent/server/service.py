"""The agent behind the server: a bounded line in front of it, the drainer beside it, and whether it is ready.

Owns the threads that work for requests, and those that work beside them: the drainer, one that follows the endings, one that tidies. Knows
nothing about HTTP. Invariants: at most `most_at_once` questions work or wait, and one more is refused in a moment; what was started is
finished and stored before `close` returns, whether its client still waits or not; short work on the store never waits behind questions.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from edge_agent.agent.agent import Agent
from edge_agent.cloud.breaker import CALLED_AGAIN
from edge_agent.cloud.drain import Drained
from edge_agent.core.errors import AgentClosed, EdgeAgentError, ModelBusy, ModelError
from edge_agent.core.question import Question
from edge_agent.core.records import Decision
from edge_agent.server.edge.counts import Counts
from edge_agent.server.edge.drafts import Drafts
from edge_agent.server.edge.following import Following
from edge_agent.server.kiosk.deck import NO_DECK, Kiosk
from edge_agent.server.kiosk.survey import Surveys
from edge_agent.store.database import Patience

T = TypeVar("T")
MOST_AT_ONCE = 16
_N_ASIDE = 4  # threads for short work on the store
REFUSAL_S = 0.25  # how long one more request waits for a place before it is refused
_TOLD = ("decision_id", "answer", "confidence", "route", "reason", "cause", "recalled", "provisional", "queue_id")
_DRAIN_ENDS_S = 5.0  # how long a call that the drainer makes may go on when the server stops: nobody waits for its answer
TIDY_EVERY_S = 60.0  # a look at the time, mostly: old questions go once an hour
_DRAIN_AGAIN_S = 5.0  # after an error that ended the drainer, such as a database that cannot be read

_log = logging.getLogger("edge_agent")


class Told:
    """What the log was told last about sending: why it cannot be done is said once, and so is that it can be done again."""

    def __init__(self) -> None:
        self._why = ""

    def hear(self, done: Drained) -> None:
        """Log what a pass over the queue showed, if it is news. An error of a cloud repeats no question."""
        why, _, _ = (done.stopped or "").partition(CALLED_AGAIN)  # how long the pause still lasts is no news
        if why and why != self._why:
            self._why = why
            _log.warning("edge-agent: %d questions wait for the cloud: %s", done.waiting, done.stopped)
        elif done.answered and not why and self._why:
            self._why = ""
            _log.warning("edge-agent: the cloud answers again")


class Service:
    """An agent for many clients at once. `start` opens the model and the drainer; `close` ends both and closes the agent.

    `hang_up` ends the connection of a client, given by its address and port: the process that owns the sockets sets it.
    """

    def __init__(self, agent: Agent, kiosk: Kiosk = NO_DECK, most_at_once: int = MOST_AT_ONCE, tidy_every_s: float = TIDY_EVERY_S) -> None:
        self.agent, self.kiosk, self.most_at_once = agent, kiosk, most_at_once
        self.n_at_work = 0  # requests that work or wait; only the event loop changes it
        self.n_refused = 0
        self.started = time.monotonic()
        self.failed: EdgeAgentError | None = None  # why the model cannot be used
        self.hang_up: Callable[[tuple[str, int]], None] = lambda client: None
        self._ready, self._stop = threading.Event(), threading.Event()
        self._tidy_every_s = tidy_every_s
        self._workers = ThreadPoolExecutor(most_at_once, "request")
        self._aside = ThreadPoolExecutor(_N_ASIDE, "aside")
        self.surveys = Surveys(self._stop, self._patiently)
        self.counts = Counts(agent)
        self.following = Following(agent, self._stop, self.counts.ended)
        self.drafts = Drafts(agent)
        self._background = [
            threading.Thread(target=self._open_model, name="warm", daemon=True),
            threading.Thread(target=self.following.run, name="follow", daemon=True),
            threading.Thread(target=self._tidy, name="tidy", daemon=True),
        ]
        if agent.gate is not None:
            self._background.append(threading.Thread(target=self._drain, name="drain", daemon=True))

    def start(self) -> None:
        """Open the model, follow the endings and start the drainer, each in a thread of its own."""
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
        decision = await self.run(lambda: self.agent.ask(question, refresh, tau=tau, policy=policy))
        self.decided(decision)
        return decision

    def decided(self, *decisions: Decision) -> None:
        """Count decisions, and tell the operator's streams of them. `ask` does; whoever decides in `run` calls it."""
        self.drafts.decided()
        for decision in decisions:
            self.counts.decided(decision)
            self.following.decided({name: getattr(decision, name) for name in _TOLD})

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` on a thread of its own. A client that goes away does not stop it. Raises `ModelBusy` if too many wait."""
        if self.n_at_work >= self.most_at_once:
            await asyncio.sleep(REFUSAL_S)  # clients that ask again at once would take the CPU from the model (docs/speed.md)
        self.check_taking()
        if self.n_at_work >= self.most_at_once:
            self.n_refused += 1
            self.counts.refused_busy()
            raise ModelBusy(f"{self.n_at_work} requests are already waiting; ask again in a moment.")
        try:
            future = asyncio.get_running_loop().run_in_executor(self._workers, self._patiently(work))
        except RuntimeError as error:
            raise ModelBusy("This device cannot start another thread now; ask again in a moment.") from error
        self.n_at_work += 1
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def check_taking(self) -> None:
        """Raise `AgentClosed` if no new work is taken."""
        if self._stop.is_set():
            raise AgentClosed("The server stops; ask again in a moment.")

    async def aside(self, work: Callable[[], T]) -> T:
        """Run short work on the store, such as a look at a decision, on threads of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._aside, self._patiently(work))

    def _patiently(self, work: Callable[[], T]) -> Callable[[], T]:
        """`work`, all steps of which share one `Patience` with another program's lock; the wait for a thread takes from it."""
        asked, patience = time.monotonic(), Patience()

        def patiently() -> T:
            patience.left_s -= time.monotonic() - asked
            with self.agent.store.database.waiting_once(patience):
                return work()

        return patiently

    def _done(self, future: asyncio.Future[Any]) -> None:
        self.n_at_work -= 1
        if not future.cancelled():
            future.exception()  # nobody may wait for it any more

    def stop_taking(self) -> None:
        """Take no new work, and end streams and waits; what is under way goes on. To be called on the event loop."""
        self._stop.set()
        self.following.close()

    def close(self) -> None:
        """Finish what is under way, then close the agent.

        A call of the drainer that takes longer is left: its row stays `sending`, as after a crash, and the next drainer sends it again.
        """
        self._stop.set()
        self._workers.shutdown(wait=True)
        self._aside.shutdown(wait=True)
        self.surveys.close()
        self.drafts.close()
        for thread in self._background:
            if thread.ident is not None:
                thread.join(_DRAIN_ENDS_S if thread.name == "drain" else None)
        self.agent.close()

    def _open_model(self) -> None:
        try:
            self.agent.warm()
        except EdgeAgentError as error:
            self.failed = error
        except Exception as error:  # no memory, no more threads, a bug below: the server must end, not load for ever
            _log.exception("edge-agent: opening the model failed")
            self.failed = ModelError(f"The model cannot be opened ({type(error).__name__}); is there enough memory?")
        finally:
            self._ready.set()

    def _tidy(self) -> None:
        """Forget what is old while the server runs, also where no cloud is set up and so nothing is ever drained."""
        while not self._stop.wait(self._tidy_every_s):
            try:
                self.agent.forget_old()
            except Exception:  # a bug in forgetting must not end the forgetting
                _log.exception("edge-agent: forgetting failed")

    def _drain(self) -> None:
        """Send what waits as soon as it can be sent, until the server stops; takes over when another process ends that drains."""
        said = ""
        told = Told()
        while not self._stop.is_set():
            try:
                for step in self.agent.watch(self._stop):
                    if isinstance(step, Drained):
                        told.hear(step)
            except EdgeAgentError as error:
                if str(error) != said:  # once, not every time
                    said = str(error)
                    _log.warning("edge-agent: the queue cannot be sent for now: %s", error)
            except Exception:  # a bug in sending must not end the answering
                _log.exception("edge-agent: the drainer failed")
            self._stop.wait(_DRAIN_AGAIN_S)
