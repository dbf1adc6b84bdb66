"""One thread that does the jobs of many, in turn: a bounded waiting line before the model.

Owns the order, the waiting and the giving up; knows nothing of what a job does. Invariant: jobs run one at a time on
the same thread; a caller who leaves (timeout, Ctrl-C) takes the job along, whether it waits or runs.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from edge_agent.core.errors import ModelBusy, ModelError

T = TypeVar("T")
DEFAULT_LIMIT = 16


@dataclass(eq=False, slots=True)
class _Job:
    work: Callable[[float], Any]  # takes the time that it waited, in ms
    in_nobodys_way: bool
    future: Future[Any] = field(default_factory=Future)
    put_at: float = field(default_factory=time.perf_counter)


class WaitingLine:
    """`run` waits for its turn; `later` waits for a moment when nobody does.

    At most `limit` callers wait. `stop` ends the job that runs, from another thread, and `go` takes that back.
    """

    def __init__(self, stop: Callable[[], None], go: Callable[[], None], limit: int = DEFAULT_LIMIT) -> None:
        self._stop, self._go, self._limit = stop, go, limit
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._later: deque[_Job] = deque()
        self._current: _Job | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, daemon=True, name="engine")
        self._thread.start()

    def run(self, work: Callable[[float], T], timeout_s: float | None = None) -> T:
        """What `work(waited_ms)` gives, on the line's thread.

        Raises `ModelBusy` if too many wait, or the job is not done within `timeout_s`; whatever `work` raises; and what
        interrupts the waiting. However it ends, the job is over when this returns.
        """
        job = self._put(_Job(work, in_nobodys_way=False), self._waiting)
        try:
            result: T = job.future.result(timeout_s)
            return result
        except TimeoutError as error:
            self._leave(job)
            raise ModelBusy(f"The model gave no answer within {timeout_s:g} s; allow more time, or ask again later.") from error
        except BaseException:
            self._leave(job)
            raise

    def later(self, work: Callable[[], T]) -> Future[T]:
        """Do `work` when nobody waits for another job."""
        return self._put(_Job(lambda _: work(), in_nobodys_way=True), self._later).future

    def stop_later(self) -> None:
        """End the job that runs if it is one of `later`."""
        with self._changed:
            if self._current is not None and self._current.in_nobodys_way:
                self._stop()

    def close(self) -> None:
        """Finish what is in line and end the thread; closing twice is fine."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _put(self, job: _Job, line: deque[_Job]) -> _Job:
        with self._changed:
            if self._closed:
                raise ModelError("The model was closed; open it again.")
            if len(line) >= self._limit:
                raise ModelBusy(f"{len(line)} questions wait for the model already; ask again later.")
            line.append(job)
            self._changed.notify_all()
        return job

    def _leave(self, job: _Job) -> None:
        """Take a job out of the line, or end it if it runs."""
        with self._changed:
            if job.future.cancel():
                self._waiting.remove(job)
                return
            if self._current is job:
                self._stop()
        job.future.exception()  # waits for the end, whatever it is

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                result = job.work((time.perf_counter() - job.put_at) * 1000)
            except BaseException as error:
                self._done()
                job.future.set_exception(error)
            else:
                self._done()
                job.future.set_result(result)

    def _next(self) -> _Job | None:
        """The next job that nobody took back; None when the line is closed and empty."""
        with self._changed:
            while True:
                line = self._waiting or self._later
                if line:
                    job = line.popleft()
                    if job.future.set_running_or_notify_cancel():
                        self._current = job
                        self._go()
                        return job
                elif self._closed:
                    return None
                else:
                    self._changed.wait()

    def _done(self) -> None:
        with self._changed:
            self._current = None
