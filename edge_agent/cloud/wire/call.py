"""One running call to a cloud: its thread, its deadline and its connection.

Owns when a call ends, whatever the other side does. Knows nothing of questions or replies. Invariants: a call has an outcome by
its deadline; after the deadline it sends nothing, its place is free for the next call, and its connection is shut down, so its
thread ends too. Only name resolution cannot be interrupted: such a thread ends when the system's resolver gives up.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from edge_agent.core.outcome import CloudKind, CloudOutcome

if TYPE_CHECKING:
    import socket


class TooLateError(Exception):
    """The caller no longer waits; nothing may be sent now."""


class CloudCall:
    """A running call, in a thread of its own; at the deadline its connection is shut down from outside.

    The thread is needed because httpx limits the time of each read but not of the whole call, and does not limit name
    resolution at all. A server that sends a byte a second would keep the thread and its place for ever. `work` makes the call
    and passes `trace` to httpcore. At most as many calls run as `slots` allows. A call that gets its place when less than half of its
    time is left, and less than `enough_s` returns, sends nothing: it could hardly be answered, and would be billed all the same.
    """

    def __init__(
        self,
        work: Callable[[CloudCall], CloudOutcome],
        deadline_s: float,
        slots: threading.BoundedSemaphore,
        enough_s: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self._work, self._slots, self._enough_s = work, slots, enough_s
        self._deadline_s = min(deadline_s, threading.TIMEOUT_MAX)
        self.ends_s = time.monotonic() + self._deadline_s  # by time.monotonic
        self._done: SimpleQueue[CloudOutcome] = SimpleQueue()
        self._lock = threading.Lock()  # guards what follows
        self._has_slot = self._sent = self._over = False
        self._slot_s: float | None = None  # when it got its place, by time.monotonic
        self._line: socket.socket | None = None  # a second handle on the connection, to shut it down
        self._timer = threading.Timer(self._deadline_s, self.abandon)
        self._timer.name, self._timer.daemon = "cloud-deadline", True
        try:
            self._timer.start()
            threading.Thread(target=self._run, daemon=True, name="cloud-call").start()
        except RuntimeError as error:  # the system allows no more threads
            self._timer.cancel()
            self._done.put(CloudOutcome(CloudKind.DEVICE, error=f"this device cannot make the call ({error}); nothing was sent"))

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; 0 afterwards, and once the call was abandoned."""
        return 0.0 if self._over else max(0.0, self.ends_s - time.monotonic())

    @property
    def was_sent(self) -> bool:
        """Whether the cloud may have seen the question."""
        return self._sent

    @property
    def is_over(self) -> bool:
        """Whether `result` would not wait."""
        return not self._done.empty() or not self.left_s

    def result(self) -> CloudOutcome:
        """Wait for the outcome, until the deadline at the latest. Call it once."""
        try:
            return self._done.get(timeout=max(0.0, self.ends_s - time.monotonic()))
        except Empty:
            self.abandon()
            return self._too_late()

    def abandon(self) -> bool:
        """Stop waiting: what was not sent yet will not be sent, and the connection ends. Returns whether the question was sent."""
        with self._lock:
            self._over = True
            if self._line is not None:
                import socket  # an answer from memory does not need it

                with contextlib.suppress(OSError):  # the other side has ended it
                    self._line.shutdown(socket.SHUT_RDWR)
            self._leave()
            return self._sent

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Follows httpcore's progress: takes hold of each new connection, and stops an abandoned call before it is sent."""
        with self._lock:
            if event == "connection.connect_tcp.complete":
                self._hold(info["return_value"])
            if not self.left_s and event.endswith((".connect_tcp.started", ".send_request_headers.started")):
                raise TooLateError
            if event.endswith(".send_request_headers.started") and info["request"].method != b"CONNECT":
                self._sent = True

    def _hold(self, stream: Any) -> None:
        """Keep a handle of our own: TLS takes the socket away from its first owner, and may hang while it does."""
        try:
            if not self.left_s:
                raise TooLateError
            self._let_go()
            self._line = stream.get_extra_info("socket").dup()
        except BaseException:  # no handle is left (ulimit -n), or nobody waits
            stream.close()
            raise

    def _run(self) -> None:
        if not self._slots.acquire(timeout=self.left_s):
            return  # the caller no longer waits
        with self._lock:
            self._has_slot, self._slot_s = True, time.monotonic()
            if self._over:
                self._leave()
                return
        try:
            is_too_late = self._is_hurried and self.left_s < self._enough_s()
            outcome = self._not_sent() if is_too_late else self._work(self)
            if outcome.kind is CloudKind.TIMEOUT and self._is_hurried:
                outcome = replace(outcome, was_hurried=True)
            self._done.put(outcome if outcome.answer or self.left_s or is_too_late else self._too_late())
        finally:
            self._timer.cancel()
            with self._lock:
                self._let_go()
                self._leave()

    def _not_sent(self) -> CloudOutcome:
        waited_s = (self._slot_s or self.ends_s) - self.ends_s + self._deadline_s
        waited = f"other calls to the cloud were under way for {waited_s:.2g} of {self._deadline_s:g} s"
        return CloudOutcome(
            CloudKind.OFFLINE, error=f"{waited}, and this device makes only a few at once; nothing was sent", was_hurried=True
        )

    def _too_late(self) -> CloudOutcome:
        if self._slot_s is None:
            return self._not_sent()
        left_s = max(0.0, self.ends_s - self._slot_s)  # for the call itself
        within = f"{left_s:.2g} s, after it had waited for other calls" if self._is_hurried else f"{self._deadline_s:g} s"
        kind, what = (CloudKind.TIMEOUT, "the cloud sent no answer") if self._sent else (CloudKind.OFFLINE, "no connection to the cloud")
        return CloudOutcome(kind, error=f"{what} within {within}", was_hurried=self._is_hurried)

    @property
    def _is_hurried(self) -> bool:
        """Whether the call waited for its place for more than half of its time."""
        return self._slot_s is not None and self.ends_s - self._slot_s < self._deadline_s / 2

    def _leave(self) -> None:
        """Give the place back, once."""
        if self._has_slot:
            self._has_slot = False
            self._slots.release()

    def _let_go(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
