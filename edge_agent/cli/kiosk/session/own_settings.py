"""What the owner of the device may change, in /etc/default/edge-agent-kiosk.

Owns the names and their defaults. `install` never writes that file and `remove` never removes it.
"""

from __future__ import annotations

import os
import pathlib
import shlex

FILE = pathlib.Path("/etc/default/edge-agent-kiosk")
DEFAULTS = {
    "KIOSK_ROTATE": "normal",  # or 90, 180, 270: the screen, clockwise
    "KIOSK_LAYOUT": "us",  # of a real keyboard; `us,ru,kz` has three, and Caps Lock goes to the next one
    "KIOSK_POINTER": "hide",  # or show, for a device with a mouse
    "KIOSK_COMPOSITOR": "",  # cage or labwc; empty: cage if it is there
    "KIOSK_FLAGS": "",  # more flags for Chromium
}


def read(file: pathlib.Path = FILE) -> dict[str, str]:
    """The settings: from the environment, otherwise from the file, otherwise the default. Raises `ValueError` for an unknown name."""
    found = dict(DEFAULTS)
    try:
        lines = file.read_text().splitlines()
    except FileNotFoundError:
        lines = []
    for line in lines:
        words = shlex.split(line, comments=True)
        if not words:
            continue
        name, separator, value = words[0].partition("=")
        if len(words) > 1 or not separator or name not in DEFAULTS:
            raise ValueError(f"{file} has the line '{line.strip():.80}'; write {', '.join(DEFAULTS)} as NAME='value'")
        found[name] = value
    return found | {name: os.environ[name] for name in DEFAULTS if name in os.environ}
