"""A command on a real terminal: a pseudo-terminal of a given width."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios


def on_terminal(columns: int, *arguments: str, typed: str = "", **environment: str) -> tuple[int, str]:
    """The exit code of `edge-agent`, and what the terminal got; `typed` is what the person types, echoed like on any terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    values = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_agent", *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env={**values, **environment}
    )
    os.close(theirs)
    os.write(ours, typed.encode())
    got = b""
    while chunk := _read(ours):
        got += chunk
    os.close(ours)
    return process.wait(60), got.decode().replace("\r\n", "\n")


def _read(handle: int) -> bytes:
    try:
        return os.read(handle, 65536)
    except OSError:  # Linux says EIO when nobody has the other end open
        return b""
