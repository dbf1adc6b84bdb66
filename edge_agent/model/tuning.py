"""The fastest settings found on this device, remembered per model file.

Owns `tuning.json` in the data folder. Knows the options of the engine as names and numbers only. Invariant: settings found
with another build of llama.cpp, another number of processors or another file are never used.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from typing import Any

from edge_agent.core.files import not_written, replacing

FILE = "tuning.json"


def load(folder: pathlib.Path, sha256: str, build: str) -> dict[str, Any]:
    """The options for a model file under this build; empty if none were found yet, or the file cannot be read."""
    entry = _read(folder / FILE).get(sha256)
    if not isinstance(entry, dict) or entry.get("build") != build or entry.get("n_cpus") != os.cpu_count():
        return {}
    options = entry.get("options")
    return {k: v for k, v in options.items() if isinstance(v, int)} if isinstance(options, dict) else {}


def save(folder: pathlib.Path, sha256: str, build: str, options: dict[str, Any], decision_ms: float) -> None:
    """Remember options and the median decision that was measured with them; raises `StorageError`."""
    path = folder / FILE
    entries = _read(path) | {sha256: {"build": build, "n_cpus": os.cpu_count(), "options": options, "decision_ms": decision_ms}}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path, "w") as file:
            json.dump(entries, file, indent=1)
    except OSError as error:
        raise not_written(path, error) from error


def _read(path: pathlib.Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, dict):
            return data
    return {}
