"""Processes that are killed before each of their changes to files."""

import os
import pathlib
import shutil
import signal
import sys
from collections.abc import Callable, Iterator

_CHANGES = {"os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate"}


def _changes_files(event: str, arguments: tuple[object, ...]) -> bool:
    if event == "open":
        _, mode, flags = arguments
        return bool(int(flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) or "w" in str(mode or "")
    return event in _CHANGES


def killed_before(change: Callable[[], object], at: int) -> bool:
    """Run `change` in a process that is killed before its change number `at` to files. Returns False if it ended first."""
    child = os.fork()
    if child == 0:
        count = 0

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            if _changes_files(event, arguments):
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1

        status = 1
        try:
            sys.addaudithook(hook)
            change()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or status == 0, "the change failed by itself"
    return os.WIFSIGNALED(status)


def after_each_kill(folder: pathlib.Path, change: Callable[[], object]) -> Iterator[int]:
    """Kill `change` before each of its changes, each time from the same start of `folder`; yields after each kill."""
    start = folder.with_name(f"{folder.name}-start")
    shutil.copytree(folder, start)
    at = 0
    while True:
        shutil.rmtree(folder)
        shutil.copytree(start, folder)
        if not killed_before(change, at):
            break
        yield at
        at += 1
    assert at > 3
    shutil.rmtree(start)
