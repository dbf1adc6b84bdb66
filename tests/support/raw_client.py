"""A client that sends exactly the bytes it is told to a server on loopback, well-formed or not, and reads what comes back."""

from __future__ import annotations

import http.client
import io
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


class _Wire:
    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)

    def makefile(self, mode: str) -> io.BytesIO:
        return self.file


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
    """The answers in what a server sent."""
    wire, found = _Wire(data), []
    while wire.file.tell() < len(data):
        reply = http.client.HTTPResponse(wire, method=method)  # type: ignore[arg-type]
        rest, reply.fp = wire.file, wire.file  # type: ignore[assignment]
        reply.begin()
        length = reply.getheader("content-length")
        body = b"" if method == "HEAD" else rest.read(int(length)) if length is not None else reply.read()
        found.append(Answer(reply.status, {name.lower(): value for name, value in reply.getheaders()}, body))
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
