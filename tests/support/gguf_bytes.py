"""Changes in the bytes of a GGUF, as damage or an attacker would make them."""

import pathlib
import struct

from tests.support.paths import DEMO

_FORMS = {4: "<I", 5: "<i", 6: "<f"}


def with_value(key: str, value: float, source: pathlib.Path = DEMO) -> bytes:
    """The bytes of the file with another number for a metadata key."""
    data, name = bytearray(source.read_bytes()), key.encode()
    at = data.index(struct.pack("<Q", len(name)) + name) + 8 + len(name)
    (kind,) = struct.unpack_from("<I", data, at)
    struct.pack_into(_FORMS[kind], data, at + 4, value)
    return bytes(data)


def header_bytes(source: pathlib.Path = DEMO) -> tuple[int, int]:
    """The offsets of the tokenizer's metadata (after the hyper-parameters) and of the name of the last tensor."""
    data = source.read_bytes()
    return data.index(b"tokenizer.ggml."), data.rindex(b".weight")
