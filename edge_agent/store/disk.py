"""How much room is left on the disk.

Owns the question; the thresholds are settings (`DiskLimits`). Invariant: asking is one call to the kernel. Where it cannot be
answered, there is room: the database itself reports when the disk is full.

    free space    above both thresholds    everything is stored
                  below `cache`            what waits for the cloud is stored; other answers are given but not remembered
                  below `queue`            nothing new is queued either: the rest is for draining what waits already
"""

from __future__ import annotations

import os
import pathlib
import sys


def free_bytes(path: pathlib.Path) -> int:
    """The bytes that this user may still write on the disk of a folder, or of the nearest parent that exists."""
    for folder in (path, *path.parents):
        try:
            status = os.statvfs(folder)
        except FileNotFoundError:
            continue
        except OSError:
            break
        return status.f_bavail * status.f_frsize
    return sys.maxsize
