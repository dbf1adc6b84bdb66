"""Keeps the evaluated system message on disk, so that a new process need not evaluate it again.

Owns the file: its name, its checksum and its removal. Does not know what the bytes mean; it never copies them, because
they take 9 MB with Qwen3-0.6B. Invariant: `load` returns exactly the bytes that `save` got with the same facts, or None.
Neither raises for a disk error, because only a little time is lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import zlib
from collections.abc import Sequence

from edge_agent.core.files import replacing

KEPT = 4  # files in the folder: a device has few models, but each new version of llama.cpp or option adds a file
_MAGIC = b"edge-agent prefix 1\n"


class PrefixFile:
    """One file in `folder`. Its name is a hash of the `facts` (numbers and strings) that the bytes depend on."""

    def __init__(self, folder: pathlib.Path, facts: Sequence[str | int]) -> None:
        name = hashlib.sha256(json.dumps(list(facts)).encode()).hexdigest()[:32]
        self.path = folder / f"{name}.prefix"
        self.is_there = False

    def load(self) -> memoryview | None:
        """The saved bytes, or None if there are none or the file is damaged."""
        try:
            data = memoryview(self.path.read_bytes())
            os.utime(self.path)  # keep the most recently used files
        except OSError:
            return None
        head, state = data[: len(_MAGIC) + 4], data[len(_MAGIC) + 4 :]
        self.is_there = head == _head(state)
        return state if self.is_there else None

    def save(self, state: memoryview) -> None:
        """Save `state`, completely or not at all. Several processes may do so at once."""
        self.is_there = True  # try once, even if it fails
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path, durable=False) as file:
                file.write(_head(state))
                file.write(state)
            self._remove_old()

    def _remove_old(self) -> None:
        files = sorted(self.path.parent.glob("*.prefix"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files[KEPT:]:
            path.unlink(missing_ok=True)


def _head(state: memoryview) -> bytes:
    return _MAGIC + zlib.crc32(state).to_bytes(4, "little")
