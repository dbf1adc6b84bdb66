"""Processes that are killed at each statement of an operation on the database."""

import os
import pathlib
import signal
import sqlite3
from collections.abc import Callable

from edge_agent.store.store import Store

Operation = Callable[[Store], object]


class Killed(sqlite3.Connection):
    """A connection whose process is killed before its statement number `at`, or after it."""

    at, after, count = 10**9, False, 0

    def execute(self, *arguments: object) -> sqlite3.Cursor:
        number, Killed.count = Killed.count, Killed.count + 1
        if number == Killed.at and not Killed.after:
            os.kill(os.getpid(), signal.SIGKILL)
        cursor = super().execute(*arguments)
        if number == Killed.at:
            os.kill(os.getpid(), signal.SIGKILL)
        return cursor


def killed_at(path: pathlib.Path, operation: Operation, at: int, after: bool) -> bool:
    """Run the operation in a process that is killed at a statement. Returns False if the operation ended first."""
    child = os.fork()
    if child == 0:
        try:
            with Store(path, connection=Killed) as store:
                store.clock.now_s()
                Killed.at, Killed.after, Killed.count = at, after, 0
                operation(store)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def states_after_kills(
    tmp_path: pathlib.Path, prepare: list[Operation], operation: Operation, state: Callable[[pathlib.Path], tuple]
) -> tuple[tuple, tuple, set[tuple]]:
    """The states before and after the operation, and the states that kills at each statement leave."""
    path = tmp_path / "edge-agent.db"
    for step in prepare:
        with Store(path) as store:
            step(store)
    if not prepare:
        Store(path).close()
    whole = path.read_bytes()
    before, found = state(path), set()
    for after in (False, True):
        at = 0
        while True:
            path.write_bytes(whole)
            killed = killed_at(path, operation, at, after)
            found.add(repr(state(path)))
            if not killed:
                break
            at += 1
        assert at > 2  # BEGIN, something, COMMIT
    return repr(before), repr(state(path)), found
