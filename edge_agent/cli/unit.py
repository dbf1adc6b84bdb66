"""The text of the systemd unit that runs `edge-agent serve`.

Owns what the service may do and how a path is written in a unit. Writes no file and asks no system. Invariants: whatever a path
contains, systemd reads the same path back, or `BadSetting` is raised; a secret is never in the text, only the path of its file.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_agent.core.errors import BadSetting

NAME = "edge-agent.service"
MARK = "# Written by `edge-agent service install`."
STATE = "edge-agent"  # the folder in /var/lib
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108  # what ProtectHome= and PrivateTmp= hide

_SERVICE = """\
Type=notify
NotifyAccess=main
WatchdogSec=60
TimeoutStartSec=300
TimeoutStopSec=90
Restart=on-failure
RestartSec=5
# A wrong call, a missing model and a wrong setting do not mend themselves.
RestartPreventExitStatus=2 66 78
"""

# What needs no mount of its own, so that a user's manager can do it, too. llama.cpp and Python need no memory that is both
# writable and executable.
_EVERYWHERE = """\
UMask=0077
LimitCORE=0
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
# Asking whether the clock is right needs these; without CAP_SYS_TIME they cannot set it. ProtectClock= would forbid them.
SystemCallFilter=adjtimex clock_adjtime clock_adjtime64
SystemCallErrorNumber=EPERM
"""

_SYSTEM_ONLY = """\
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=tmpfs
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
PrivateMounts=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
ProtectProc=invisible
RemoveIPC=yes
DevicePolicy=closed
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """A service: what it runs, as whom, and what it may see.

    `command` begins with an absolute path. `user` is None in the manager of a user, who it runs as. `credentials` are the files of
    secrets by the name of the credential. `readable` are the files and folders that it must read, wherever they are.
    """

    command: tuple[str, ...]
    memory_max_bytes: int
    user: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    credentials: Mapping[str, pathlib.Path] = field(default_factory=dict)
    readable: tuple[pathlib.Path, ...] = ()

    @property
    def text(self) -> str:
        """The unit, ready to be written. Raises `BadSetting` for a path or value that no unit can hold."""
        parts = [MARK, "# Your own changes: systemctl edit edge-agent", "", "[Unit]", "Description=edge-agent: decisions over HTTP"]
        parts += ["After=network.target", "", "[Service]", _SERVICE.rstrip()]
        parts += [f"ExecStart={' '.join([_program(self.command[0]), *map(_quoted, self.command[1:])])}"]
        if self.user is not None:
            parts += [f"User={_user(self.user)}", f"StateDirectory={STATE}", "StateDirectoryMode=0700"]
            parts += [f"Environment=EDGE_AGENT_HOME=%S/{STATE}"]
        parts += [f"Environment={_quoted(f'{name}={value}')}" for name, value in self.environment.items()]
        parts += [f"LoadCredential={name}:{_credential(path)}" for name, path in self.credentials.items()]
        parts += [f"MemoryMax={self.memory_max_bytes >> 20}M", "", _EVERYWHERE.rstrip()]
        if self.user is not None:
            parts += [_SYSTEM_ONLY.rstrip(), *(f"BindReadOnlyPaths={_bound(path)}" for path in hidden(self.readable))]
        wanted_by = "multi-user.target" if self.user is not None else "default.target"
        return "\n".join([*parts, "", "[Install]", f"WantedBy={wanted_by}", ""])


def hidden(paths: tuple[pathlib.Path, ...]) -> list[pathlib.Path]:
    """Those that ProtectHome= and PrivateTmp= would hide, sorted, without what lies inside another one."""
    inside = sorted({path for path in paths if any(path.is_relative_to(folder) for folder in _HIDDEN)})
    return [path for path in inside if not any(path != other and path.is_relative_to(other) for other in inside)]


def _quoted(word: str) -> str:
    """One word of ExecStart= or Environment=: in double quotes, with C's escapes, and % for systemd's own specifiers doubled."""
    return '"' + _printable(word).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def _program(path: str) -> str:
    """The first word of ExecStart=; the colon says that $ stands for nothing but itself in the whole line."""
    if any(c in path for c in "'\"\\"):
        raise BadSetting(f"A systemd unit cannot start '{path}', which has a quotation mark or a backslash in its path; rename it.")
    return _quoted(f":{path}")


def _credential(path: pathlib.Path) -> str:
    """The path in LoadCredential=: the rest of the line as it is, so a space or a backslash at its end would be lost."""
    text = _printable(str(path))
    if text != text.rstrip().rstrip("\\"):
        raise BadSetting(f"A systemd unit cannot hold the path '{path}', which ends in a space or a backslash; rename it.")
    return text.replace("%", "%%")


def _bound(path: pathlib.Path) -> str:
    """The path in BindReadOnlyPaths=, in quotes; a colon would begin the place where it is mounted."""
    text = _printable(str(path))
    if '"' in text or "\\" in text:
        raise BadSetting(f"A systemd unit cannot mount the path '{path}', which has a quotation mark or a backslash; rename it.")
    return '"' + text.replace("%", "%%").replace(":", "\\:") + '"'


def _user(name: str) -> str:
    if not name or not name.replace("-", "").replace("_", "").isalnum() or not name.isascii() or name[0] in "-0123456789":
        raise BadSetting(f"'{name:.80}' is no name of a user; give one of letters, digits, - and _.")
    return name


def _printable(text: str) -> str:
    """The text, if it is one line of printable characters."""
    try:
        os.fsencode(text).decode()
    except UnicodeDecodeError:
        printable = False
    else:
        printable = all(c.isprintable() or c == " " for c in text)
    if not printable:
        raise BadSetting(f"A systemd unit cannot hold {text!r:.200}, which has a control character or is not UTF-8; rename it.")
    return text
