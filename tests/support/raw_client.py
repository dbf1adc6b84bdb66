"""A client that sends exactly the bytes it is told to a server on loopback, well-formed or not, and reads what comes back."""

from __future__ import annotations

import json
import socket
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """One answer of a server; status 0 if it closed the connection without one."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def exchange(port: int, *parts: bytes, timeout_s: float = 20, host: str = "127.0.0.1") -> bytes:
    """Send bytes and read until the server closes the connection. What cannot be sent any more is dropped."""
    with socket.create_connection((host, port), timeout=timeout_s) as connection:
        data = b""
        try:
            for part in parts:
                connection.sendall(part)
            while found := connection.recv(65536):
                data += found
        except (ConnectionResetError, BrokenPipeError):
            pass
        return data


def answers(data: bytes, method: str = "GET") -> list[Answer]:
    """The final answers in what a server sent."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        n_bytes = 0 if method == "HEAD" else int(headers.get("content-length", len(data)))
        if (status := int(first.split()[1])) >= 200:
            found.append(Answer(status, headers, data[:n_bytes]))
            data = data[n_bytes:]
    return found


def ask(port: int, raw: bytes, method: str = "GET", **extra: Any) -> Answer:
    """The first answer to these bytes."""
    found = answers(exchange(port, raw, **extra), method)
    return found[0] if found else Answer(0, {}, b"")


def request(
    port: int, target: str = "/health", method: str = "GET", headers: list[tuple[str, str]] | None = None, body: bytes = b"", **extra: Any
) -> Answer:
    """Send one request with these headers, a Host unless there is one, a Content-Length for a body, and `Connection: close`."""
    lines = list(headers or [])
    names = {name.lower() for name, _ in lines}
    if "host" not in names:
        lines.insert(0, ("Host", f"127.0.0.1:{port}"))
    if body and not names & {"content-length", "transfer-encoding"}:
        lines.append(("Content-Length", str(len(body))))
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in [*lines, ("Connection", "close")])
    return ask(port, head.encode("latin-1") + b"\r\n" + body, method, **extra)
