"""How much room is left on the disk, and from when on it is kept for what matters more.

Owns the question and the two thresholds. Knows nothing of databases. Invariant: asking is one call to the kernel; where it cannot
be answered nothing is held back, since the database says for itself when it is full.

    free space    above both thresholds    all is stored
                  below `cache`            what waits for the cloud is stored; other answers are given and not remembered
                  below `queue`            nothing new is queued either: the rest is for draining what waits already
"""

from __future__ import annotations

import os
import pathlib
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DiskLimits:
    """Free bytes below which nothing is cached any more, and nothing queued."""

    cache_bytes: int = 64 << 20
    queue_bytes: int = 32 << 20


def free_bytes(path: pathlib.Path) -> int:
    """The bytes that this user may still write on the disk of a folder, or of the nearest one above it that exists."""
    for folder in (path, *path.parents):
        try:
            status = os.statvfs(folder)
        except FileNotFoundError:
            continue
        except OSError:
            break
        return status.f_bavail * status.f_frsize
    return sys.maxsize
