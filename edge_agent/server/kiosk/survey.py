"""Long looks at the store for the operator, one at a time, on a thread of their own.

Owns that thread and its line. Knows nothing about HTTP or about what is looked at. Invariants: a look never takes a thread from questions
or from short work on the store; it ends soon after nobody waits for it, or the server stops.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from edge_agent.core.errors import AgentClosed, ModelBusy

T = TypeVar("T")
MOST_AT_ONCE = 8  # that work or wait


class Surveys:
    """The line. `stop` ends all looks; `patiently` bounds how long a look waits for another program's lock."""

    def __init__(self, stop: threading.Event, patiently: Callable[[Callable[[], Any]], Callable[[], Any]]) -> None:
        self._stop, self._patiently = stop, patiently
        self._pool = ThreadPoolExecutor(1, "survey")
        self._n = 0  # only the event loop changes it

    async def run(self, work: Callable[[Callable[[], None]], T], gone: Coroutine[Any, Any, None]) -> T:
        """Run `work`, which calls the function that it gets now and then: it raises once `gone` is over or the server stops.

        Raises `ModelBusy` if too many looks wait.
        """
        if self._n >= MOST_AT_ONCE:
            gone.close()
            raise ModelBusy("Too many long looks at the history wait; come again in a moment.")
        given_up = threading.Event()

        def check() -> None:
            if given_up.is_set() or self._stop.is_set():
                raise AgentClosed("The server stops, or nobody waits for this any more; ask again in a moment.")

        def checked() -> T:
            check()
            return work(check)

        self._n += 1
        leaving = asyncio.ensure_future(gone)
        try:
            looking: asyncio.Future[T] = asyncio.get_running_loop().run_in_executor(self._pool, self._patiently(checked))
            await asyncio.wait((looking, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not looking.done():
                given_up.set()
            return await looking
        finally:
            given_up.set()
            leaving.cancel()
            self._n -= 1

    def close(self) -> None:
        """Wait for the end of the look that is under way."""
        self._pool.shutdown(wait=True, cancel_futures=True)
