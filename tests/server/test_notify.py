"""What systemd hears from the server, over real datagram sockets."""

import os
import pathlib
import secrets
import socket
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.server import notify


class Systemd:
    """The socket that systemd listens on, and what came in."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address[0] == "@" else address)
        self.socket.setblocking(False)

    def heard(self) -> list[bytes]:
        found = []
        while True:
            try:
                found.append(self.socket.recv(65_536))
            except BlockingIOError:
                return found


@pytest.fixture(params=["path", "path with spaces, % and жол", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    if request.param == "abstract" and sys.platform != "linux":
        pytest.skip("abstract sockets are Linux's")
    monkeypatch.chdir(tmp_path)
    folder = pathlib.Path("/tmp") / f"edge-agent-{secrets.token_hex(4)}"  # a socket's path has at most 107 bytes
    folder.mkdir()
    address = f"@edge-agent-{secrets.token_hex(8)}" if request.param == "abstract" else str(folder / request.param)
    listening = Systemd(address)
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    yield listening
    listening.socket.close()
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def test_each_message_is_one_datagram(systemd: Systemd) -> None:
    assert notify.ready() and notify.beat() and notify.status("12 answers") and notify.stopping()
    assert systemd.heard() == [b"READY=1", b"WATCHDOG=1", b"STATUS=12 answers", b"STOPPING=1"]


def test_a_status_cannot_be_another_message(systemd: Systemd) -> None:
    for text in ("loading\nSTOPPING=1", "a\r\nb", "a\u2028b\x1b[31m", "ж" * 5000, "\ud800"):
        assert notify.status(text)
    for message in systemd.heard():
        assert message.startswith(b"STATUS=") and len(message.decode().splitlines()) == 1 and len(message) < 450


@given(st.text(max_size=300))
def test_every_text_is_one_line_of_status(text: str) -> None:
    address = f"@edge-agent-{secrets.token_hex(8)}"
    listening = Systemd(address)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOTIFY_SOCKET", address)
        assert notify.status(text)
    (message,) = listening.heard()
    listening.socket.close()
    assert b"\n" not in message and message.startswith(b"STATUS=")


@pytest.mark.parametrize("address", ["", "/nobody/listens", "@nobody-listens", "relative", "vsock:2:1", "/" + "x" * 300, "@" + "x" * 300])
def test_without_systemd_nothing_happens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not (notify.ready() or notify.beat() or notify.status("x") or notify.stopping())
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not notify.ready()


def test_a_full_socket_does_not_make_the_server_wait(systemd: Systemd) -> None:
    sent = 0
    while notify.beat():
        sent += 1
        assert sent < 100_000
    assert len(systemd.heard()) == sent


@pytest.mark.parametrize(
    ("within_us", "watched", "every_s"),
    [("30000000", "me", 15.0), ("30000000", None, 15.0), ("30000000", "1", None), ("0", None, None), ("-5", None, None),
     (None, None, None), ("soon", None, None), ("30000000", "who", None)],
)  # fmt: skip
def test_the_watchdog_is_beaten_twice_in_its_time(
    within_us: str | None, watched: str | None, every_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WATCHDOG_USEC", within_us), ("WATCHDOG_PID", str(os.getpid()) if watched == "me" else watched)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert notify.watchdog_every_s() == every_s
