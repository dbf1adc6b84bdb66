"""The client and the questions of the server's benchmarks, and what the kernel says about the server's process.

Owns the bytes on the wire. Knows nothing about what is measured. A plain socket, because an HTTP library costs more than the
server's own work: a request takes this client about 0.03 ms of CPU, where httpx takes about 0.5 ms.
"""

from __future__ import annotations

import json
import pathlib
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).parent.parent
DEMO = ROOT / "models" / "demo" / "FogGen-demo-Q8_0.gguf"
_END = b"\r\n\r\n"


class Reply(NamedTuple):
    """A reply: its status, and its headers and body as they came."""

    status: int
    head: bytes
    body: bytes

    @property
    def retry_after_s(self) -> float:
        """The seconds of its Retry-After header; 0 without one."""
        found = self.head.lower().partition(b"\r\nretry-after:")[2].partition(b"\r\n")[0].strip()
        return float(found or 0)

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


def request(port: int, path: str, body: object = None, method: str | None = None) -> bytes:
    """The bytes of a request; a POST if there is a body."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"{method or ('GET' if body is None else 'POST')} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    return head.encode() + b"\r\n" + data


def whole(data: bytes | bytearray) -> Reply | None:
    """The reply in these bytes; None if some of it is still missing."""
    end = data.find(_END)
    if end < 0:
        return None
    head = bytes(data[:end])
    length = int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0] or 0)
    start = end + len(_END)
    return Reply(int(head[9:12]), head, bytes(data[start : start + length])) if len(data) >= start + length else None


class Connection:
    """One keep-alive connection: `ask` sends a request and waits for its reply."""

    def __init__(self, port: int, timeout_s: float = 120) -> None:
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, sent: bytes) -> Reply:
        """The reply to a request."""
        self.socket.sendall(sent)
        data = bytearray()
        while (reply := whole(data)) is None:
            got = self.socket.recv(1 << 16)
            if not got:
                raise ConnectionError("the server closed the connection")
            data += got
        return reply

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


def questions(first: int = 0) -> Iterator[dict[str, Any]]:
    """Questions that differ from each other, the same in every run. Another `first` begins elsewhere."""
    number = first
    while True:
        a, b = 10 + number % 89, 10 + number // 89
        yield {"question": f"What is {a} + {b}?", "options": [str(a + b + extra) for extra in (number % 3, -1, 7)]}
        number += 1


class Facts(NamedTuple):
    """What the kernel says about a process: memory in bytes, open file handles, threads, CPU time."""

    resident: int
    anonymous: int
    peak: int
    n_files: int
    n_threads: int
    cpu_s: float


def facts(pid: int) -> Facts:
    """The facts of a process, from Linux's /proc."""
    folder = pathlib.Path("/proc") / str(pid)
    fields = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    resident, anonymous, peak = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon", "VmHWM"))
    times = (folder / "stat").read_text().rpartition(")")[2].split()
    cpu_s = (int(times[11]) + int(times[12])) / 100
    return Facts(resident, anonymous, peak, len(list((folder / "fd").iterdir())), int(fields["Threads"]), cpu_s)


def quantile(values: list[float], share: float) -> float:
    """A quantile of at least one value."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
