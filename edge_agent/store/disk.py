"""The free space on the disk.

Owns the measurement; the thresholds are settings (`DiskLimits`). Invariant: it costs one call to the kernel. If that call
fails, the disk counts as free: the database itself reports a full disk.

    free space    above both thresholds    everything is stored
                  below `cache`            what waits for the cloud is stored; other answers are returned but not remembered
                  below `queue`            nothing new is queued either: the rest is for draining what already waits
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
