"""The compositor: cage, or labwc where the system has only that.

Owns how each is started, the keys that a keyboard has, and the rotation of the screen. Invariant: no key of a keyboard reaches the
compositor's or the browser's own commands, because the keyboard has no Ctrl, Alt, Super and F keys (see `xkb/`).
"""

from __future__ import annotations

import os
import pathlib
import shlex
import shutil
import socket
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
KNOWN = ("cage", "labwc")
TURNS = {"": 0, "normal": 0, "90": 1, "180": 2, "270": 3}
IS_ROTATED = "EDGE_AGENT_KIOSK_IS_ROTATED"  # tells the process inside whether the compositor has rotated the screen


def start(inside: list[str], settings: dict[str, str]) -> None:
    """Become the compositor, which runs the command `inside` and ends with it. Raises `ValueError` if there is none."""
    wanted = settings["KIOSK_COMPOSITOR"]
    names = (wanted,) if wanted else KNOWN
    found = next((name for name in names if name in KNOWN and shutil.which(name)), None)
    if found is None:
        raise ValueError(f"there is no compositor ({' or '.join(names)}); apt install cage")
    turns = ["-r"] * _quarter_turns(settings) if found == "cage" and _cage_rotates() else []
    command = {"cage": ["cage", "-d", *turns, "--", *inside], "labwc": ["labwc", "-C", str(HERE / "labwc"), "-s", _then_end(inside)]}[found]
    os.execvpe(found, command, {**os.environ, **environment(settings), IS_ROTATED: "yes" if turns else "no"})  # noqa: S606  # no shell is wanted


def environment(settings: dict[str, str]) -> dict[str, str]:
    """What the compositor must be told about the keyboard and the pointer."""
    layouts = settings["KIOSK_LAYOUT"]
    keys = {"XKB_CONFIG_EXTRA_PATH": str(HERE / "xkb"), "XKB_DEFAULT_RULES": "edge-agent-kiosk", "XKB_DEFAULT_LAYOUT": layouts}
    keys |= {"XKB_DEFAULT_OPTIONS": "kiosk:caps_next" if "," in layouts else "", "XKB_DEFAULT_MODEL": "", "XKB_DEFAULT_VARIANT": ""}
    pointer = {"XCURSOR_PATH": str(HERE / "cursors"), "XCURSOR_THEME": "empty"} if settings["KIOSK_POINTER"] != "show" else {}
    return keys | pointer


def is_there(runtime: pathlib.Path) -> bool:
    """Whether the compositor still answers: without it, this process has no screen and must end, too."""
    with socket.socket(socket.AF_UNIX) as asked:
        try:
            asked.connect(str(runtime / os.environ.get("WAYLAND_DISPLAY", "")))
        except OSError:
            return False
    return True


def rotate(settings: dict[str, str]) -> None:
    """Rotate every output, where that is wanted and the compositor has not done it. Raises `ValueError` if it cannot be done."""
    if not (n_turns := _quarter_turns(settings)) or os.environ.get(IS_ROTATED) == "yes":
        return
    if shutil.which("wlr-randr") is None:
        raise ValueError("KIOSK_ROTATE needs wlr-randr; apt install wlr-randr")
    for output in outputs(subprocess.run(["wlr-randr"], capture_output=True, text=True, check=True, timeout=10).stdout):  # noqa: S607  # from PATH, like all of the session
        subprocess.run(["wlr-randr", "--output", output, "--transform", str(90 * n_turns)], check=True, timeout=10)  # noqa: S607  # from PATH, like all of the session


def outputs(told: str) -> list[str]:
    """The names of the outputs in what `wlr-randr` prints: the first words of the lines that are not indented."""
    return [line.split()[0] for line in told.splitlines() if line and not line[0].isspace()]


def _quarter_turns(settings: dict[str, str]) -> int:
    """How often the screen is turned by 90 degrees, clockwise."""
    wanted = settings["KIOSK_ROTATE"]
    if wanted not in TURNS:
        raise ValueError(f"KIOSK_ROTATE is '{wanted}'; give {', '.join(name for name in TURNS if name)}")
    return TURNS[wanted]


def _cage_rotates() -> bool:
    """Whether this cage rotates by itself: up to 0.1.4 it does, and lets nobody else do it; later ones leave it to wlr-randr."""
    told = subprocess.run(["cage", "-h"], capture_output=True, text=True, check=False, timeout=10)  # noqa: S607  # from PATH, like all of the session
    return " -r" in told.stdout + told.stderr


def _then_end(inside: list[str]) -> str:
    """The command for labwc's `-s`, after which labwc ends, too."""
    return shlex.join(["sh", "-c", f'{shlex.join(inside)}; kill "$LABWC_PID"'])
