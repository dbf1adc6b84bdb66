"""`python3 -m session ADDRESS`: starts the compositor, and inside of it keeps Chromium at the visitor's page.

Owns the order: compositor, browser, watch, and again. Invariants: a browser that ends or hangs is replaced by a new one with a new
profile; a profile is removed when its browser has ended, and whatever is left of an old one before the next begins.
"""

from __future__ import annotations

import os
import pathlib
import signal
import sys
import time
from types import FrameType

from . import chromium, compositor, own_settings, watch

INSIDE = "--inside"  # the compositor has started this process
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0  # before a browser is started again: longer each time, until one lives for a minute
_LIVES_S = 60.0


def main(arguments: list[str]) -> int:
    """Run the session for the address in `arguments`; returns the exit code."""
    signal.signal(signal.SIGTERM, _stop)
    if len(arguments) not in (1, 2) or (len(arguments) == 2 and arguments[0] != INSIDE):
        _say("usage: python3 -m session ADDRESS")
        return 2
    address = arguments[-1]
    settings = own_settings.read()
    try:
        runtime = _runtime_folder()
        if len(arguments) == 1:
            compositor.start([sys.executable, "-s", "-m", str(__package__), INSIDE, address], settings)
        compositor.rotate(settings)
        pause_s = _PAUSE_S
        while compositor.is_there(runtime):
            began = time.monotonic()
            _one_browser(address, runtime, settings)
            pause_s = _PAUSE_S if time.monotonic() - began > _LIVES_S else min(2 * pause_s, _LONGEST_PAUSE_S)
            time.sleep(pause_s)
        raise ValueError("the compositor has ended")
    except (OSError, ValueError) as error:
        _say(str(error))
        return 1


def _one_browser(address: str, runtime: pathlib.Path, settings: dict[str, str]) -> None:
    """One life of a browser, from a new profile to its removal."""
    with chromium.fresh_profile(runtime) as profile, chromium.Browser(profile, settings) as browser:
        why = watch.ScreenWatch(browser, address, hides_pointer=settings["KIOSK_POINTER"] != "show").run()
    _say(f"{why}; starting Chromium again")


def _runtime_folder() -> pathlib.Path:
    """The folder in memory that the login made for this user. Raises `ValueError` if there is none."""
    folder = pathlib.Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    if not folder.is_absolute() or not folder.is_dir():
        raise ValueError("XDG_RUNTIME_DIR is not set; start this session by a login (libpam-systemd)")
    return folder


def _say(text: str) -> None:
    """One line, which greetd passes on to the journal."""
    sys.stderr.write(f"edge-agent kiosk: {text}\n")
    sys.stderr.flush()


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


sys.exit(main(sys.argv[1:]))
