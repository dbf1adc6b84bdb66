"""A command on a real terminal: a pseudo-terminal of a given width."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios

_SILENT_S = 60.0


def on_terminal(columns: int, *arguments: str, typed: str = "", **environment: str) -> tuple[int, str]:
    """The exit code of `edge-agent`, and what the terminal got.

    `typed` is what the person types once a question mark and a space, or a prompt in brackets, is on the screen.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    values = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(  # this process has no threads at work, and Ctrl-C needs the terminal to be theirs
        [sys.executable, "-m", "edge_agent", *arguments],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**values, **environment},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # Ctrl-C needs a terminal of its own
    )  # fmt: skip
    os.close(theirs)
    got = b""
    while chunk := _read(ours):
        got += chunk
        if typed and got.endswith(b"]: "):
            os.write(ours, typed.encode())
            typed = ""
    os.close(ours)
    return process.wait(_SILENT_S), got.decode().replace("\r\n", "\n")


def _read(handle: int) -> bytes:
    try:
        assert select.select([handle], [], [], _SILENT_S)[0], "the command is silent, and does not end"
        return os.read(handle, 65536)
    except OSError:  # Linux says EIO when nobody has the other end open
        return b""
