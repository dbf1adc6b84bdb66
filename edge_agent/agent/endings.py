"""Reports how provisional answers end: in order, each once, from any number on, whichever process ends them.

Owns the waiting. Writes nothing. Invariants: endings are numbered in the order of their commits and no number is used twice,
so a reader that keeps the number of the last ending it handled misses none and repeats none; while nothing happens, a poll
costs SQLite's change counter and no query; a lock of another process delays the endings, and ends nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from edge_agent.agent.until import Until
from edge_agent.core.errors import BadQuestion, BadSetting, StorageBusy, StorageError
from edge_agent.core.records import Ending
from edge_agent.store.store import Store

POLL_EVERY_S = 0.2


def endings(
    store: Store, after: int | None = None, stop: threading.Event | Until | None = None, poll_every_s: float = POLL_EVERY_S
) -> Iterator[Ending]:
    """The endings after the number `after`, then each new one as it comes, until `stop`; with None, only new ones.

    Those that are stored come first, even if the time of `stop` is up. A number that this file has not reached comes from another
    file, for example the one before a restored backup: then all endings come. If a person retries an abandoned queue row, its
    decision ends a second time, with a new number. Raises `BadSetting`, `StorageError`; `StorageBusy` only with None, because what
    is new can't be known while another program locks the file.
    """
    if after is not None and (not isinstance(after, int) or isinstance(after, bool)):
        raise BadSetting(f"The after is {after!r:.80}; give the number of an ending, 0 for all endings, or None for new ones.")
    until = stop if isinstance(stop, Until) else Until(stop)
    try:
        start: int | None = _start(store, after)
    except StorageBusy:
        if after is None:
            raise
        start = None
    return _endings(store, after, start, until, poll_every_s)


def _start(store: Store, after: int | None) -> int:
    last = store.last_end()
    return last if after is None else after if after <= last else 0


def _endings(store: Store, asked: int | None, start: int | None, until: Until, poll_every_s: float) -> Iterator[Ending]:
    """The endings after the number `start`; if that is None, because of a lock, after what `asked` turns out to mean."""
    after, seen = start, None
    while not until.stopped:
        try:
            if after is None:
                after = _start(store, asked)
            now = store.database.change_mark()
            found = store.endings(after) if now != seen else []
        except StorageBusy:
            if until.over:
                return
            until.sleep(poll_every_s)
            continue
        for ending in found:
            assert ending.number is not None
            after = ending.number
            yield ending
            if until.stopped:
                return
        if not found:
            seen = now
            if until.over:
                return
            until.sleep(poll_every_s)


def wait(store: Store, decision_id: str, timeout_s: float | Until | None = None, poll_every_s: float = POLL_EVERY_S) -> Ending:
    """The state of a decision once it no longer waits, or when the time is up; if the store is closed meanwhile, the last one known.

    Raises `BadQuestion` for an unknown id, `StorageError`.
    """
    if not isinstance(decision_id, str) or not decision_id.isascii():
        raise BadQuestion(f"There is no decision {decision_id!r:.80}; `edge-agent log --json` shows the ids.")
    until = timeout_s if isinstance(timeout_s, Until) else Until(timeout_s=timeout_s)
    found, mark = store.ending(decision_id), None
    while found.waits:
        try:
            if (now := store.database.change_mark()) != mark:
                found, mark = store.ending(decision_id), now
                continue
        except StorageBusy:
            pass  # a lock of another process: the state is still the one that was read last
        except StorageError:
            if until.stopped:  # closed by another thread
                break
            raise
        if until.over:
            break
        until.sleep(poll_every_s)
    return found
