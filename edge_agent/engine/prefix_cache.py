"""The evaluated system message on disk, so that a new process does not evaluate it again.

Owns the file: its name, its checksum, its end. Knows nothing of what the bytes mean (9 MB at Qwen3-0.6B's shape,
which is why they are never copied). Invariant: `load` gives exactly bytes that `save` took under the same facts, or
None; neither ever raises for what the disk does, since all that is lost is a little time.
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

KEPT = 4  # files in the folder: a device has a few models, and each new llama.cpp or option makes a new file
_MAGIC = b"edge-agent prefix 1\n"


class PrefixFile:
    """One file in `folder`, named by all the `facts` (numbers and texts) on which the bytes depend."""

    def __init__(self, folder: pathlib.Path, facts: Sequence[str | int]) -> None:
        name = hashlib.sha256(json.dumps(list(facts)).encode()).hexdigest()[:32]
        self.path = folder / f"{name}.prefix"
        self.is_there = False

    def load(self) -> memoryview | None:
        """What was saved; None if nothing was, or it was damaged since."""
        try:
            data = memoryview(self.path.read_bytes())
            os.utime(self.path)  # the files used last are kept
        except OSError:
            return None
        head, state = data[: len(_MAGIC) + 4], data[len(_MAGIC) + 4 :]
        self.is_there = head == _head(state)
        return state if self.is_there else None

    def save(self, state: memoryview) -> None:
        """Keep `state`: whole or not at all, also when several processes do it at once."""
        self.is_there = True  # tried once, whatever comes of it
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path, durable=False) as file:
                file.write(_head(state))
                file.write(state)
            self._forget_old()

    def _forget_old(self) -> None:
        files = sorted(self.path.parent.glob("*.prefix"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files[KEPT:]:
            path.unlink(missing_ok=True)


def _head(state: memoryview) -> bytes:
    return _MAGIC + zlib.crc32(state).to_bytes(4, "little")
