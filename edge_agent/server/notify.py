"""Tells systemd how the server is: started, alive, stopping (the protocol of sd_notify(3)).

Owns the datagrams to the socket that NOTIFY_SOCKET names. Decides nothing about the server. Invariant: it never raises and never
waits, and without systemd every function does nothing; a message that is lost is systemd's to notice.
"""

from __future__ import annotations

import os
import socket

from edge_agent.core.terminal import one_line

_MAX_STATUS_BYTES = 400  # `systemctl status` shows it on one line


def ready() -> bool:
    """The server answers from now on. Like the others, returns whether systemd was told."""
    return _send("READY=1")


def beat() -> bool:
    """The server still works. Without a beat within the time of `watchdog_every_s`, twice over, systemd restarts it."""
    return _send("WATCHDOG=1")


def stopping() -> bool:
    """The server finishes its last answers and takes no new ones."""
    return _send("STOPPING=1")


def status(text: str) -> bool:
    """What the server does now, in one line for `systemctl status`. Line ends become spaces: a new line would be a new message."""
    cut = one_line(text).encode(errors="replace")[:_MAX_STATUS_BYTES].decode(errors="ignore")
    return _send(f"STATUS={cut}")


def watchdog_every_s() -> float | None:
    """How often to call `beat`, in seconds: half of what systemd waits for. None if systemd does not watch this process."""
    try:
        within_us = int(os.environ.get("WATCHDOG_USEC", ""))
        watched = int(os.environ.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return None
    return within_us / 2e6 if within_us > 0 and watched == os.getpid() else None


def _send(message: str) -> bool:
    """Send one datagram to systemd; returns whether its socket took it."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@")):
        return False  # no systemd, or a kind of socket that it gives to virtual machines only
    address = b"\0" + os.fsencode(name[1:]) if name[0] == "@" else os.fsencode(name)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            return channel.sendto(message.encode(), address) == len(message.encode())
    except (OSError, ValueError):  # ValueError: a path with a NUL byte, or one that is too long
        return False
