"""What makes replies late without a reason."""

import pathlib
import socket
import statistics
import time

from tests.support.serving import serving


def test_reply_on_an_open_connection_does_not_wait_for_an_acknowledgement(tmp_path: pathlib.Path) -> None:
    """A reply is sent in two pieces. Without TCP_NODELAY the second one waits for the client's delayed acknowledgement, 40 ms."""
    with serving(tmp_path / "home") as server, socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        waited = []
        for _ in range(30):
            began = time.perf_counter()
            connection.sendall(f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
            data = b""
            while not data.endswith(b"}"):
                data += connection.recv(1 << 16)
            waited.append(time.perf_counter() - began)
    assert statistics.median(waited) < 0.03
