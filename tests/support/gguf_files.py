"""Small GGUF files: real metadata, no weights."""

import struct

from tests.support.paths import DEMO


def gguf_with(**metadata: str | int) -> bytes:
    """A GGUF without tensors; `__` in a name stands for a dot."""
    pairs = b""
    for key, value in metadata.items():
        name = key.replace("__", ".").encode()
        data = struct.pack("<IQ", 8, len(value.encode())) + value.encode() if isinstance(value, str) else struct.pack("<II", 4, value)
        pairs += struct.pack("<Q", len(name)) + name + data
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(metadata)) + pairs


def of_architecture(architecture: str) -> bytes:
    """The demo model, as if it were of another architecture, with enough bytes that it is fetched in pieces."""
    data = gguf_with(general__architecture=architecture, general__type="model")
    return data + DEMO.read_bytes()


def adapter_for(architecture: str, base: str = "") -> bytes:
    """An adapter that changes nothing."""
    more = {"general__base_model__0__name": base} if base else {}
    return gguf_with(general__architecture=architecture, general__type="adapter", adapter__type="lora", **more)
