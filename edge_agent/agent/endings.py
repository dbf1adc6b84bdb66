"""Reports how provisional answers end: in order, each once, from any number on, whichever process ends them.

Owns the waiting. Writes nothing. Invariants: endings are numbered in the order of their commits and no number is used twice,
so a reader that keeps the number of the last ending it handled misses none and repeats none; while nothing happens, a poll
costs SQLite's change counter and no query; a lock of another process delays the endings, and ends nothing.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from edge_agent.core.errors import StorageBusy
from edge_agent.core.records import Ending
from edge_agent.store.store import Store

POLL_EVERY_S = 0.2


def endings(
    store: Store, after: int | None = None, stop: threading.Event | None = None, poll_every_s: float = POLL_EVERY_S
) -> Iterator[Ending]:
    """The endings after the number `after`, then each new one as it comes, until `stop` is set; with None, only new ones.

    A number that this file has not reached comes from another file, for example the one before a restored backup: then all
    endings come. If a person retries an abandoned queue row, its decision ends a second time, with a new number. Raises `StorageError`.
    """
    last = store.last_end()
    return _endings(store, last if after is None else after if after <= last else 0, stop or threading.Event(), poll_every_s)


def _endings(store: Store, after: int, stop: threading.Event, poll_every_s: float) -> Iterator[Ending]:
    seen = None
    while not stop.is_set():
        try:
            now = store.database.change_mark()
            found = store.endings(after) if now != seen else []
        except StorageBusy:
            stop.wait(poll_every_s)
            continue
        for ending in found:
            assert ending.number is not None
            after = ending.number
            yield ending
            if stop.is_set():
                return
        if not found:
            seen = now
            stop.wait(poll_every_s)


def wait(store: Store, decision_id: str, timeout_s: float | None = None, poll_every_s: float = POLL_EVERY_S) -> Ending:
    """The state of a decision once it no longer waits, or when the time is up. Raises `BadQuestion` for an unknown id."""
    ends = None if timeout_s is None else time.monotonic() + timeout_s
    found, mark = store.ending(decision_id), None
    while found.waits:
        with contextlib.suppress(StorageBusy):  # a lock of another process: the state is still the one that was read last
            if (now := store.database.change_mark()) != mark:
                found, mark = store.ending(decision_id), now
                continue
        left_s = poll_every_s if ends is None else min(poll_every_s, ends - time.monotonic())
        if left_s <= 0:
            break
        time.sleep(left_s)
    return found
