"""A server on loopback whose first replies never end, each in its own way; then it answers as it should."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
GOOD = json.dumps({"choices": [{"message": {"role": "assistant", "content": "B"}, "finish_reason": "stop"}]}).encode()
ANSWER = HEAD + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD


def _drip(first: bytes, again: bytes) -> Callable[[], Iterator[bytes]]:
    def pieces() -> Iterator[bytes]:
        yield first
        while True:
            yield again

    return pieces


# What each kind sends, a piece every 50 ms (in life a second); an empty piece is silence.
KINDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "body that drips": _drip(HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
    "chunks that never end": _drip(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "endless 100 Continue": _drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "headers that drip": _drip(HEAD, b"X-A: b\r\n"),
    "one header that drips": _drip(HEAD + b"X-A: ", b"b"),
    "silence": _drip(b"", b""),
    "half a TLS handshake": _drip(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03", b"\x00"),
    "silence in the TLS handshake": _drip(b"", b""),
    "proxy that never connects": _drip(b"", b""),
    "proxy that drips": _drip(b"HTTP/1.1 200 ", b"O"),
    "proxy with a TLS handshake that hangs": _drip(b"HTTP/1.1 200 OK\r\n\r\n", b""),
}


class DrippingServer:
    """The first `n` connections get replies of one kind, the others an answer at once; `open` are the connections that still live."""

    def __init__(self, kind: str, n: int) -> None:
        self.kind, self.left = kind, n
        self.open: set[socket.socket] = set()
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.left -= 1
            self.open.add(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection, self.left >= 0), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket, is_bad: bool) -> None:
        with contextlib.suppress(OSError), connection:
            connection.recv(1 << 16)
            if not is_bad:
                connection.sendall(ANSWER)
                return
            connection.setblocking(False)
            for piece in KINDS[self.kind]():
                if piece:
                    connection.send(piece)
                with contextlib.suppress(BlockingIOError):
                    if not connection.recv(1 << 16):
                        break  # the client has gone
                if self._stopped.wait(0.05):
                    break
        self.open.discard(connection)

    def stop(self) -> None:
        self._stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)
