"""Xet storage on loopback, as `hf_xet` asks it: which chunks make a file, and the chunks themselves.

A file is one block ("xorb") of chunks that are stored as they are, each behind a header of 8 bytes: version, 3 bytes of stored
length, compression (0: none), 3 bytes of length. `/v1/reconstructions/HASH` says which chunks cover the bytes of a Range and
where they lie; nothing is deduplicated here. https://huggingface.co/docs/xet
"""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler

from tests.support.hub_server import LoopbackServer, reply

CHUNK_BYTES = 1 << 16


class XetStore(LoopbackServer):
    """`files` by Xet hash. `sent` counts the bytes of files that went out; after `stop_after` of them it is silent until `go_on`.

    `status` answers every request instead, if it is set.
    """

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.sent = 0
        self.stop_after: int | None = None
        self.go_on = threading.Event()
        self.status: int | None = None

    def add(self, data: bytes) -> str:
        """Keep a file; returns its Xet hash (any 64 hex digits do for a download)."""
        name = hashlib.sha256(b"xet" + data).hexdigest()
        self.files[name] = data
        return name

    def stop(self) -> None:
        self.go_on.set()
        super().stop()

    def route(self, request: BaseHTTPRequestHandler) -> None:
        parts = request.path.strip("/").split("/")
        if self.status is not None:
            reply(request, self.status)
        elif parts[:2] == ["v1", "reconstructions"] and parts[2] in self.files:
            self._reconstruction(request, parts[2])
        elif parts[0] == "xorbs":
            self._chunks(request, self.files[parts[1]])
        else:
            reply(request, 404)  # among them: version 2 of the reconstructions, which falls back to version 1

    def _reconstruction(self, request: BaseHTTPRequestHandler, name: str) -> None:
        data = self.files[name]
        first, last = (int(n) for n in request.headers.get("Range", f"bytes=0-{len(data) - 1}").removeprefix("bytes=").split("-"))
        if first >= len(data):
            reply(request, 416)
            return
        chunks = {"start": first // CHUNK_BYTES, "end": min(last, len(data) - 1) // CHUNK_BYTES + 1}
        length = min(chunks["end"] * CHUNK_BYTES, len(data)) - chunks["start"] * CHUNK_BYTES
        stored = {"start": chunks["start"] * (CHUNK_BYTES + 8), "end": min(chunks["end"] * (CHUNK_BYTES + 8), _stored_bytes(data)) - 1}
        answer = {
            "offset_into_first_range": first % CHUNK_BYTES,
            "terms": [{"hash": name, "unpacked_length": length, "range": chunks}],
            "fetch_info": {name: [{"range": chunks, "url": f"{self.url}/xorbs/{name}", "url_range": stored}]},
        }
        reply(request, 200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def _chunks(self, request: BaseHTTPRequestHandler, data: bytes) -> None:
        first, last = (int(n) for n in request.headers["Range"].removeprefix("bytes=").split("-"))
        wanted = range(first // (CHUNK_BYTES + 8), last // (CHUNK_BYTES + 8) + 1)  # whole chunks, as the reconstruction says
        body = b"".join(
            b"\0" + len(chunk).to_bytes(3, "little") + b"\0" + len(chunk).to_bytes(3, "little") + chunk
            for chunk in (data[n * CHUNK_BYTES : (n + 1) * CHUNK_BYTES] for n in wanted)
        )
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {first}-{last}/{_stored_bytes(data)}")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        for at in range(0, len(body), CHUNK_BYTES):
            if self.stop_after is not None and self.sent >= self.stop_after:
                request.wfile.flush()
                self.go_on.wait(60)
            piece = body[at : at + CHUNK_BYTES]
            request.wfile.write(piece)
            self.sent += len(piece)


def _stored_bytes(data: bytes) -> int:
    return len(data) + 8 * -(-len(data) // CHUNK_BYTES)
