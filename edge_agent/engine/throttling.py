"""Whether the firmware of a Raspberry Pi slows the processor down, or has since the start.

Owns where that is read; says nothing of what to do. Changes nothing and never raises. Invariant: what is missing, hangs or makes no
sense is None, never 0, because 0 says that all is well.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
from collections.abc import Iterator

ROOT = pathlib.Path("/")

_BY_KERNEL = (  # the folder of the firmware's driver has other names on other boards
    "sys/devices/platform/soc*/*firmware*/get_throttled",
    "sys/devices/platform/*firmware*/get_throttled",
)
_PROGRAMS = ("usr/bin/vcgencmd", "opt/vc/bin/vcgencmd")  # the second is that of older systems
_WAIT_S = 2.0
_MAX_BYTES = 200
_FLAGS = re.compile(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})\s*", re.ASCII)


def flags(root: pathlib.Path = ROOT, wait_s: float = _WAIT_S) -> int | None:
    """The firmware's bits: 0 to 3 for now, 16 to 19 for any time since the start; None where nothing tells.

    Bit 0 is low voltage, 1 a capped frequency, 2 throttling, 3 the soft temperature limit (`vcgencmd get_throttled` in the
    documentation of Raspberry Pi). The kernel is asked first, then the firmware's program, for at most `wait_s` seconds.
    `root` is the folder that holds the files of the system.
    """
    return next((int(found[1], 16) for text in _said(root, wait_s) if (found := _FLAGS.fullmatch(text))), None)


def as_text(found: int) -> str:
    """The bits as `vcgencmd` prints them, such as `0x50005`."""
    return f"0x{found:x}"


def _said(root: pathlib.Path, wait_s: float) -> Iterator[str]:
    """What each source says, from the cheapest on."""
    for pattern in _BY_KERNEL:
        for path in _listed(root, pattern):
            try:
                with path.open("rb") as file:
                    yield file.read(_MAX_BYTES).decode("ascii", "replace")
            except (OSError, ValueError):
                continue
    for name in _PROGRAMS:
        try:
            done = subprocess.run(
                [root / name, "get_throttled"], stdin=subprocess.DEVNULL, capture_output=True, timeout=wait_s, check=False
            )
        except (OSError, ValueError, subprocess.SubprocessError):
            continue
        if done.returncode == 0:
            yield done.stdout[:_MAX_BYTES].decode("ascii", "replace")


def _listed(root: pathlib.Path, pattern: str) -> list[pathlib.Path]:
    try:
        return sorted(root.glob(pattern))
    except (OSError, ValueError):
        return []
