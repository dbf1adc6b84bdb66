"""Converts base + adapter to a GGUF, and compares with the usual way: time, memory and disk of whole processes.

    python -m benchmarks.shape /tmp/shape --adapter [--tokenizer QWEN]
    make .venv/llama.cpp
    python -m benchmarks.convert /tmp/shape /tmp/shape-adapter [--quant Q4_K_M] [--runs 3] [--out results.jsonl]

The usual way is a merge by peft in bfloat16, llama.cpp's own converter and `llama_model_quantize`, each in its own process.
Time is from the start to the end of a process. Memory is the largest resident size of the process or of one that it starts.
Disk is the size of all files in its folder. The time without quantizing is measured here as a conversion to BF16, and there as
the first two processes. The ways run in a new random order each time.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from convert.quantize import FILE_TYPES
from edge_agent.measure.bench import machine

ROOT = pathlib.Path(__file__).parent.parent

MERGE = """
import sys, torch, peft
from transformers import AutoModelForCausalLM, AutoTokenizer
base, adapter, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
peft.PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out)
AutoTokenizer.from_pretrained(base).save_pretrained(out)
"""
QUANTIZE = """
import ctypes, os, sys, llama_cpp
source, out, level = sys.argv[1:]
params = llama_cpp.llama_model_quantize_default_params()
params.ftype = int(level)
sys.exit(llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(out), ctypes.byref(params)))
"""


class Cost(NamedTuple):
    """Time and memory of one process."""

    seconds: float
    peak_mb: float


def cost(command: list[str]) -> Cost:
    """Run a command to its end. `wait4` returns the largest resident size of the process and of those it waited for."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            sys.exit(f"{command[:4]} ended with {process.returncode}:\n{log.read()[-2000:].decode(errors='replace')}")
    return Cost(time.perf_counter() - started, usage.ru_maxrss / 1e3 if sys.platform != "darwin" else usage.ru_maxrss / 1e6)


def ours(arguments: argparse.Namespace, folder: pathlib.Path, quant: str) -> dict[str, float]:
    """One process of `python -m convert`."""
    command = [sys.executable, "-m", "convert", str(arguments.base), "--adapter", str(arguments.adapter), "--quants", quant]
    run = cost([*command, "--out", str(folder), "--name", "ours"])
    return {"seconds": run.seconds, "peak_mb": run.peak_mb, "disk_mb": on_disk(folder)}


def theirs(arguments: argparse.Namespace, folder: pathlib.Path) -> dict[str, float]:
    """The three processes of the usual way."""
    merged, bf16, out = folder / "merged", folder / "bf16.gguf", folder / "theirs.gguf"
    runs = [
        cost([sys.executable, "-c", MERGE, str(arguments.base), str(arguments.adapter), str(merged)]),
        cost(
            [sys.executable, str(arguments.llama_cpp / "convert_hf_to_gguf.py"), str(merged), "--outtype", "bf16", "--outfile", str(bf16)]
        ),
        cost([sys.executable, "-c", QUANTIZE, str(bf16), str(out), str(FILE_TYPES[arguments.quant])]),
    ]
    names = ("merge", "convert", "quantize")
    found = {f"{name}_seconds": run.seconds for name, run in zip(names, runs, strict=True)}
    return {**found, "seconds": sum(r.seconds for r in runs), "peak_mb": max(r.peak_mb for r in runs), "disk_mb": on_disk(folder)}


def on_disk(folder: pathlib.Path) -> float:
    """Megabytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main() -> None:
    """Measure in turns, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=lambda text: pathlib.Path(text).resolve())
    parser.add_argument("adapter", type=lambda text: pathlib.Path(text).resolve())
    parser.add_argument("--quant", default="Q4_K_M", choices=sorted(FILE_TYPES))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--llama-cpp", type=lambda text: pathlib.Path(text).resolve(), default=ROOT / ".venv" / "llama.cpp")
    parser.add_argument("--out", type=pathlib.Path, help="Append one JSON line for each run to this file.")
    arguments = parser.parse_args()
    ways = {
        "ours": lambda folder: ours(arguments, folder, arguments.quant),
        "ours, BF16": lambda folder: ours(arguments, folder, "BF16"),
        "theirs": lambda folder: theirs(arguments, folder),
    }
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for number in range(arguments.runs):
        for name in random.sample(list(ways), len(ways)):
            folder = pathlib.Path(tempfile.mkdtemp(prefix="convert-benchmark-"))
            try:
                rows[name].append(ways[name](folder))
            finally:
                shutil.rmtree(folder)
            if arguments.out:
                with arguments.out.open("a") as file:
                    file.write(
                        json.dumps({"way": name, "run": number, "quant": arguments.quant, "base": arguments.base.name, **rows[name][-1]})
                        + "\n"
                    )
    show(rows)


def show(rows: dict[str, list[dict[str, float]]]) -> None:
    """Print the medians and their ratios."""
    medians = {name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in rows.items()}
    print(machine.describe(os.cpu_count() or 1))
    for name, median in medians.items():
        print(f"{name:12}", "  ".join(f"{key} {value:.1f}" for key, value in median.items()))
    here, there, rest = medians["ours"], medians["theirs"], medians["ours, BF16"]
    besides = rest["seconds"] / (there["merge_seconds"] + there["convert_seconds"])
    print(f"time {here['seconds'] / there['seconds']:.2f} x, without quantizing {besides:.2f} x, "
          f"memory {here['peak_mb'] / there['peak_mb']:.2f} x, disk {here['disk_mb'] / there['disk_mb']:.2f} x")  # fmt: skip


if __name__ == "__main__":
    main()
