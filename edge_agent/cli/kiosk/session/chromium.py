"""Chromium: its flags, its throw-away profile, and the pipe by which it is watched.

Owns the process and the profile's folder. Invariants: nothing of a browser outlives it: its processes are ended and its profile, which
lies in memory, is removed; only this process holds the pipe, so nobody else can drive the browser.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import select
import shlex
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

STANDS_IN = (pathlib.Path(__file__).resolve().parent / "starting.html").as_uri()
NAMES = ("chromium", "chromium-browser")
FLAGS = (
    "--ozone-platform=wayland",
    "--kiosk",  # not with --app: the two together crash Chromium 156 under cage 0.1.4
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-default-browser-check",
    "--password-store=basic",  # otherwise it asks for a keyring
    "--noerrdialogs",
    "--hide-crash-restore-bubble",
    "--disable-breakpad",
    "--disable-pinch",
    "--overscroll-history-navigation=0",
    "--enable-features=OverlayScrollbar",
    "--disable-features=Translate,TouchpadOverscrollHistoryNavigation,MediaRouter",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-pings",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE [::1], EXCLUDE localhost",  # nothing leaves the device
    "--disk-cache-size=16777216",  # the profile lies in memory
)
_PREFIX = "edge-agent-chromium-"
_FOR_READING, _FOR_WRITING = 3, 4  # where Chromium expects the ends of the pipe
_FAR = 60  # a number that no other file has: the ends are moved there before they go to 3 and 4
_ENDS_S = 5.0


@contextlib.contextmanager
def fresh_profile(runtime: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new, empty folder for one browser; removed at the end, with all that earlier ones have left."""
    for old in runtime.glob(f"{_PREFIX}*"):
        shutil.rmtree(old, ignore_errors=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=_PREFIX, dir=runtime))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Browser:
    """A running Chromium. Raises `ValueError` if there is none, and `EOFError` from `send` and `receive` once it has ended."""

    def __init__(self, profile: pathlib.Path, settings: dict[str, str]) -> None:
        program = next((path for name in NAMES if (path := shutil.which(name))), None)
        if program is None:
            raise ValueError(f"there is no Chromium ({' or '.join(NAMES)}); apt install chromium")
        command = [program, *FLAGS, f"--user-data-dir={profile}", *shlex.split(settings["KIOSK_FLAGS"]), STANDS_IN]
        told, tells = os.pipe(), os.pipe()
        far = [os.dup2(end, _FAR + n, inheritable=False) for n, end in enumerate((told[0], tells[1]))]
        moved = [(os.POSIX_SPAWN_DUP2, far[0], _FOR_READING), (os.POSIX_SPAWN_DUP2, far[1], _FOR_WRITING)]
        try:
            # A home of its own, which goes with the profile: Chromium keeps certificates and fonts there, too.
            self.pid = os.posix_spawn(program, command, {**os.environ, "HOME": str(profile)}, file_actions=moved, setpgroup=0)
        finally:
            for end in (told[0], tells[1], *far):
                os.close(end)
        self._output, self._input, self._rest = told[1], tells[0], b""

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End it and all its processes, by force after 5 seconds."""
        os.close(self._output)
        os.close(self._input)
        ends = time.monotonic() + _ENDS_S
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(self.pid, os.WNOHANG)[0] == 0 and (number == signal.SIGKILL or time.monotonic() < ends):
                    time.sleep(0.05)

    def send(self, message: dict[str, Any]) -> None:
        """Send one message of the DevTools protocol."""
        try:
            os.write(self._output, json.dumps(message).encode() + b"\0")
        except BrokenPipeError as error:
            raise EOFError("Chromium has ended") from error

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        """The next message, or None if none came in time."""
        ends = time.monotonic() + timeout_s
        while b"\0" not in self._rest:
            if not select.select([self._input], [], [], max(0.0, ends - time.monotonic()))[0]:
                return None
            if not (read := os.read(self._input, 1 << 16)):
                raise EOFError("Chromium has ended")
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        found = json.loads(message)
        return found if isinstance(found, dict) else {}
