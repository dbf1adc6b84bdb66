"""Unpacks the body of a request that a client has compressed: gzip, and zstd, which typesafe-sdk uses by itself.

Owns which encodings are read. Invariant: no more than the limit is ever unpacked, whatever the compressed bytes say.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from edge_agent.server.faults import Refusal

ENCODINGS = ("zstd", "gzip")
_MAX_WINDOW_BITS = 20  # of zstd: 1 MiB of memory for a request; what is at most 64 KiB long needs no more


def encoding(named: Sequence[str]) -> str | None:
    """The one encoding of a body, None if it is as it is. Raises `Refusal` for others, and for several."""
    found = [one.strip().lower() for value in named for one in value.split(",") if one.strip().lower() not in ("", "identity")]
    if not found:
        return None
    if len(found) > 1 or found[0] not in ENCODINGS:
        raise Refusal(
            415, "unknown_encoding", "The body is compressed in an unknown way; send it as it is, or with gzip or zstd.",
            headers={"Accept-Encoding": ", ".join(ENCODINGS)},
        )  # fmt: skip
    return found[0]


def unpacked(data: bytes, packed: str, most: int) -> bytes | None:
    """The unpacked body; None if it has more than `most` bytes. Raises `Refusal` if it is damaged or not complete."""
    try:
        if packed == "gzip":
            stream = zlib.decompressobj(wbits=31)
            found = stream.decompress(data, most + 1)
            is_whole = stream.eof and not stream.unused_data
        else:
            decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_BITS})
            found = decompressor.decompress(data, most + 1)
            is_whole = decompressor.eof and not decompressor.unused_data
    except (zlib.error, zstd.ZstdError, EOFError) as error:
        raise _damaged(packed) from error
    if len(found) > most:
        return None
    if not is_whole:
        raise _damaged(packed)
    return found


def _damaged(packed: str) -> Refusal:
    return Refusal(400, "damaged_body", f"The body cannot be unpacked with {packed}; send it again, or as it is.")
