"""Hears how provisional answers end: in order, each once, from any place on, whichever process ends them.

Owns the waiting. Writes nothing. Invariants: ends are numbered in the order in which they were committed, and no number is given
twice, so that whoever keeps the number of the last end that it has dealt with misses none and gets none again; while nothing
happens, a look costs SQLite's change counter and no query.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from edge_agent.core.records import Ending
from edge_agent.store.store import Store

LOOK_EVERY_S = 0.2


def endings(
    store: Store, after: int | None = None, stop: threading.Event | None = None, look_every_s: float = LOOK_EVERY_S
) -> Iterator[Ending]:
    """The ends behind the number `after`, and then each as it comes, until `stop` is set; with None, those that come from now on.

    A number that this file has not reached is another one's - of a backup, or of a file that was begun anew: then all its ends
    come. A decision whose queue row a person tries again after it was abandoned ends a second time, under a new number. Raises
    `StorageError`.
    """
    last = store.last_end()
    return _endings(store, last if after is None else after if after <= last else 0, stop or threading.Event(), look_every_s)


def _endings(store: Store, after: int, stop: threading.Event, look_every_s: float) -> Iterator[Ending]:
    seen = None
    while not stop.is_set():
        if (now := store.database.change_mark()) == seen:
            stop.wait(look_every_s)
            continue
        while found := store.endings(after):
            for ending in found:
                assert ending.number is not None
                after = ending.number
                yield ending
                if stop.is_set():
                    return
        seen = now


def wait(store: Store, decision_id: str, timeout_s: float | None = None, look_every_s: float = LOOK_EVERY_S) -> Ending:
    """How a decision stands as soon as it waits no more, or when the time is up. Raises `BadQuestion` for an unknown id."""
    ends = None if timeout_s is None else time.monotonic() + timeout_s
    mark = store.database.change_mark()
    while (found := store.ending(decision_id)).waits:
        while (now := store.database.change_mark()) == mark:
            left_s = look_every_s if ends is None else min(look_every_s, ends - time.monotonic())
            if left_s <= 0:
                return found
            time.sleep(left_s)
        mark = now
    return found
