"""The demo checkpoint, and checkpoints that tests write."""

import json
import pathlib
import struct

import gguf
import numpy as np

from tests.support.paths import ROOT

BASE, ADAPTER = ROOT / "models" / "demo" / "base", ROOT / "models" / "demo" / "adapter"


def write_safetensors(path: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
    header, data = {}, b""
    for name, array in ((name, array.astype("<f4")) for name, array in tensors.items()):
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)


def tensors(path: pathlib.Path) -> dict[str, tuple[int, bytes]]:
    """Type and bytes of every tensor of a GGUF."""
    return {t.name: (int(t.tensor_type), t.data.tobytes()) for t in gguf.GGUFReader(path).tensors}
