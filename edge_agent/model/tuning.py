"""The fastest options that were measured on this device, for each model file.

Owns `tuning.json` in the data folder. Knows the options of the engine only as names and numbers. Invariant: options that
were measured with another build of llama.cpp, another number of CPUs or another file are never used.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any

from edge_agent.model import entries

FILE = "tuning.json"


def load(folder: pathlib.Path, sha256: str, build: str) -> dict[str, Any]:
    """The options for a model file with this build. Empty if none were measured or the file cannot be read."""
    entry = entries.read(folder / FILE, sha256)
    if entry is None or entry.get("build") != build or entry.get("n_cpus") != os.cpu_count():
        return {}
    options = entry.get("options")
    return {k: v for k, v in options.items() if isinstance(v, int)} if isinstance(options, dict) else {}


def save(folder: pathlib.Path, sha256: str, build: str, options: dict[str, Any], decision_ms: float) -> None:
    """Save options and the median decision time that was measured with them. Raises `StorageError`."""
    entry = {"build": build, "n_cpus": os.cpu_count(), "options": options, "decision_ms": decision_ms}
    entries.put(folder / FILE, sha256, entry)
