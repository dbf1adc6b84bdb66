"""The base of a chain as a checkpoint that transformers loads: a folder, a name on the Hub, or a GGUF, which is dequantized once.

Owns the choice between them. Invariant: the checkpoint that was made of a GGUF is complete, or it is not there.
"""

from __future__ import annotations

import pathlib

from convert.dequantize import dequantize
from models.recipe.progress import say


def opened(base: str, out: pathlib.Path) -> str:
    """The folder or the name of the checkpoint `base`. A GGUF becomes the folder `out`, unless it is there already.

    Raises `ConvertError`, and `ModelRefused` for a file that cannot be read.
    """
    path = pathlib.Path(base)
    if path.suffix != ".gguf":
        return base
    if not (out / "model.safetensors").exists():
        say(f"{path.name} becomes the checkpoint {out}")
        dequantize(path, None, out)
    return str(out)
