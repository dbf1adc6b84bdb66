"""The figures of a benchmark with what is needed to compare boards, and nothing about the person who owns one.

Owns what `edge-agent bench --share` prints. Each value is picked by name and copied from no text as a whole. Invariant: no host
name, user name, path, serial number or address gets in; a model is named by its own metadata, never by its file.
"""

from __future__ import annotations

import pathlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from edge_agent import __version__
from edge_agent.measure.bench import machine
from edge_agent.measure.bench.runs import Result
from edge_agent.model import catalog
from edge_agent.model.catalog import ModelFiles
from edge_agent.model.gguf import read_header

SCHEMA = 1
ROOT = pathlib.Path("/")

_MOST_CHARACTERS = 80
_MB = 1_000_000
# Arm's numbers for its cores, from the "CPU part" of /proc/cpuinfo where "CPU implementer" is 0x41
_CORES = {
    0xD03: "Cortex-A53", 0xD04: "Cortex-A35", 0xD05: "Cortex-A55", 0xD08: "Cortex-A72", 0xD09: "Cortex-A73", 0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76", 0xD0C: "Neoverse-N1", 0xD0D: "Cortex-A77", 0xD40: "Neoverse-V1", 0xD41: "Cortex-A78", 0xD42: "Cortex-A78AE",
    0xD46: "Cortex-A510", 0xD47: "Cortex-A710", 0xD49: "Neoverse-N2", 0xD4D: "Cortex-A715", 0xD80: "Cortex-A520", 0xD81: "Cortex-A720",
}  # fmt: skip


def to_dict(
    results: Sequence[Result], models: Sequence[ModelFiles], about: machine.Machine, n_threads: int, root: pathlib.Path = ROOT
) -> dict[str, Any]:
    """The object that `edge-agent bench --share` prints. `results` belong to `models`, in the same order."""
    from edge_agent.engine import llama

    most_khz = _read(root / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq").strip()
    return {
        "schema": SCHEMA,
        "edge_agent": __version__,
        "llama_cpp_python": llama.build().split()[0],
        "variant": about.variant,
        "board": board(root),
        "processor": processor(root),
        "architecture": about.architecture,
        "max_mhz": int(most_khz) // 1000 if most_khz.isdigit() else None,
        "n_cpus": about.n_cpus,
        "n_threads": n_threads,
        "memory_mb": about.memory_bytes // _MB if about.memory_bytes else None,
        "governor": about.governor,
        "throttled": machine.throttled(root),  # now, after the work
        "system": system(root),
        "kernel": _kernel(root),
        "files": [_file(result, model) for result, model in zip(results, models, strict=True)],
    }


def board(root: pathlib.Path = ROOT) -> str | None:
    """What the firmware calls the board, such as "Raspberry Pi 5 Model B Rev 1.0"; None on a PC."""
    return _short(_read(root / "proc/device-tree/model"))


def processor(root: pathlib.Path = ROOT) -> str | None:
    """The kinds of cores, such as "4 x Cortex-A76", or the name that an x86 processor gives itself; None if unknown."""
    rows = [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in _read(root / "proc/cpuinfo").splitlines())]
    name = next((value for key, value in rows if key == "model name"), None)
    parts = [int(value, 16) for key, value in rows if key == "CPU part" and re.fullmatch(r"0x[0-9a-f]{1,4}", value)]
    if not parts or any(value != "0x41" for key, value in rows if key == "CPU implementer"):
        return _short(name or "")
    counted = Counter(_CORES.get(part, f"part 0x{part:x}") for part in parts)
    return ", ".join(f"{n} x {core}" for core, n in sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def system(root: pathlib.Path = ROOT) -> str | None:
    """The distribution and its version, such as "debian 12"; the names that os-release(5) gives to programs, not to people."""
    rows = dict(line.partition("=")[::2] for line in _read(root / "etc/os-release").splitlines())
    values = [rows.get(key, "").strip().strip("\"'") for key in ("ID", "VERSION_ID")]
    return " ".join(value for value in values if re.fullmatch(r"[a-z0-9._-]{1,30}", value)) or None


def _kernel(root: pathlib.Path) -> str | None:
    """The numbers of the kernel's version; what follows them is free text of who built it."""
    found = re.match(r"\d+(\.\d+){1,3}", _read(root / "proc/sys/kernel/osrelease"))
    return found[0] if found else None


def _file(result: Result, model: ModelFiles) -> dict[str, Any]:
    header = read_header(model.path)
    name = header.metadata.get("general.name")
    return {
        "model": _short(name) if isinstance(name, str) and not re.search(r"[/\\@]", name) else None,
        "architecture": header.architecture if re.fullmatch(r"[a-z0-9._-]{1,30}", header.architecture) else None,
        "quantization": header.quantization,
        "sha256": catalog.sha256_of(model.path),
        "adapter_sha256": catalog.sha256_of(model.adapter) if model.adapter else None,
        "size_mb": result.size_bytes // _MB,
        "prefill_per_s": result.prefill_per_s,
        "decode_per_s": result.decode_per_s,
        "decision_p50_ms": result.decision_p50_ms,
        "decision_p95_ms": result.decision_p95_ms,
        "busy_p50_ms": result.busy_p50_ms,
        "n_decisions": result.n_decisions,
        "n_tokens": result.n_tokens,
        "n_forward": result.n_forward,
        "load_ms": result.load_ms,
        "cold_ms": result.cold_ms,
        "restored_ms": result.restored_ms,
        "anonymous_mb": result.anonymous_bytes // _MB if result.anonymous_bytes else None,
        "mapped_mb": result.mapped_bytes // _MB if result.mapped_bytes else None,
    }


def _short(text: str) -> str | None:
    """One short line of printable characters; None if nothing is left."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text.replace("\0", "")).split())
    return line[:_MOST_CHARACTERS] or None


def _read(path: pathlib.Path) -> str:
    try:
        with path.open(errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
