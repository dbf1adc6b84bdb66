"""A bounded queue in front of the model: one thread runs the jobs of many callers, one after another.

Owns the order, the waiting and the timeouts. Does not know what a job does. Invariant: jobs run one at a time on the same
thread; when a caller gives up (timeout, Ctrl-C), its job is cancelled or stopped; a forked child, which has no such thread, gets an
error and never waits; no job runs while the interpreter ends, where llama.cpp would crash the process.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from edge_agent.core.errors import ModelBusy, ModelError

T = TypeVar("T")
DEFAULT_LIMIT = 16
EXIT_S = 5.0  # how long the end of the interpreter waits for the thread


@dataclass(eq=False, slots=True)
class _Job:
    work: Callable[[], Any]
    is_background: bool
    future: Future[Any] = field(default_factory=Future)


class WaitingLine:
    """Jobs for the model: `run` waits for its turn; `later` runs when no other job waits.

    At most `limit` callers can wait. `stop` ends the current job from another thread; `go` undoes `stop`.
    """

    def __init__(self, stop: Callable[[], None], go: Callable[[], None], limit: int = DEFAULT_LIMIT) -> None:
        self._stop, self._go, self._limit = stop, go, limit
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._later: deque[_Job] = deque()
        self._current: _Job | None = None
        self._closed = False
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._work, daemon=True, name="engine")
        self._thread.start()
        _lines.add(self)

    @property
    def n_waiting(self) -> int:
        """How many callers wait for their turn, without the one whose job runs."""
        return len(self._waiting)

    def run(self, work: Callable[[], T], timeout_s: float | None = None, goes_on: bool = False) -> T:
        """Run `work` on the queue's thread and return its result.

        With `goes_on` it is the next part of long work that let others go first: it waits at the end, even of a full line.
        Raises `ModelError` in a forked child, `ModelBusy` if too many callers wait or the job takes longer than `timeout_s`,
        whatever `work` raises, and whatever interrupts the wait. In every case the job is over when this returns.
        """
        job = self._put(_Job(work, is_background=False), self._waiting, goes_on)
        try:
            result: T = job.future.result(timeout_s)
            return result
        except TimeoutError as error:
            self._leave(job)
            raise ModelBusy(f"The model did not answer within {timeout_s:g} s; allow more time or ask again later.") from error
        except BaseException:
            self._leave(job)
            raise

    def later(self, work: Callable[[], T]) -> Future[T]:
        """Run `work` when no other job waits."""
        return self._put(_Job(work, is_background=True), self._later).future

    def stop_later(self) -> None:
        """Stop the current job if it came from `later`."""
        self.check_process()
        with self._changed:
            if self._current is not None and self._current.is_background:
                self._stop()

    def close(self) -> None:
        """Finish all waiting jobs and end the thread. Closing twice is fine; in a forked child it does nothing."""
        if self.is_forked:
            return
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def end_now(self) -> None:
        """Stop the current job, refuse the others, and end the thread: for the end of the interpreter."""
        if self.is_forked:
            return
        with self._changed:
            self._closed = True
            for job in (*self._waiting, *self._later):
                job.future.set_exception(ModelError("The program ends, so the model is closed."))
            self._waiting.clear()
            self._later.clear()
            if self._current is not None:
                self._stop()
            self._changed.notify_all()
        self._thread.join(EXIT_S)

    @property
    def is_forked(self) -> bool:
        """Whether this process is a forked child of the one that runs the jobs."""
        return self._process != os.getpid()

    def check_process(self) -> None:
        """Raises `ModelError` in a forked child: it has a copy of the line, but not of the thread; its locks may be held for ever."""
        if self.is_forked:
            raise ModelError("The model was opened before this process was forked; open it again in this process.")

    def _put(self, job: _Job, line: deque[_Job], always: bool = False) -> _Job:
        self.check_process()
        with self._changed:
            if self._closed:
                raise ModelError("The model is closed; open it again.")
            if len(line) >= self._limit and not always:
                raise ModelBusy(f"{len(line)} questions are already waiting for the model; ask again later.")
            line.append(job)
            self._changed.notify_all()
        return job

    def _leave(self, job: _Job) -> None:
        """Cancel a job that waits, or stop it if it runs."""
        with self._changed:
            if job.future.cancel():
                self._waiting.remove(job)
                return
            if self._current is job:
                self._stop()
        job.future.exception()  # waits until the job has ended

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                result = job.work()
            except BaseException as error:
                self._done()
                job.future.set_exception(error)
            else:
                self._done()
                job.future.set_result(result)

    def _next(self) -> _Job | None:
        """The next job that was not cancelled; None when the queue is closed and empty."""
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


_lines: weakref.WeakSet[WaitingLine] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    for line in list(_lines):
        line.end_now()
