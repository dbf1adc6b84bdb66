"""Quantizes a GGUF with llama.cpp's own `llama_model_quantize`, in a child process.

A child, because the call ignores Ctrl-C and may abort on odd input; `python -m convert.quantize SRC DST TYPE` is it.
Invariant: the output has its name only when it is whole.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import subprocess
import sys

from edge_agent.errors import ConvertError
from edge_agent.gguf_check import QUANTIZATIONS

FILE_TYPES = {name: file_type for file_type, name in QUANTIZATIONS.items()}


def quantize(source: pathlib.Path, target: pathlib.Path, quantization: str) -> list[str]:
    """Write `target` as `quantization` of `source` (F32). Gives the lines in which llama.cpp said that a tensor fell
    back to another type. Raises `ConvertError`; an unfinished file is removed.
    """
    part = target.with_name(target.name + ".part")
    try:
        command = [sys.executable, "-m", "convert.quantize", str(source), str(part), quantization]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
            raise ConvertError(f"llama.cpp failed to write {quantization} (status {done.returncode}: {lines[-1]}).")
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return [line.strip() for line in done.stderr.splitlines() if "fallback" in line.lower() or "falling back" in line.lower()]


def _child(source: str, target: str, quantization: str) -> int:
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = FILE_TYPES[quantization]
    return int(llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params)))


if __name__ == "__main__":
    sys.exit(_child(*sys.argv[1:]))
