"""What a person types after `service install --kiosk` and `service remove`, and what `service status` says about the screen.

Owns these lines. Starts nothing.
"""

from __future__ import annotations

import pathlib
import shutil
from typing import Any

from edge_agent.cli.kiosk.files import PACKAGES, SYSTEM_FOLDER, UNIT, USER

TO_STOP = [
    "sudo systemctl stop edge-agent-kiosk",
    "sudo systemctl set-default multi-user.target",
    f"sudo userdel {USER}",
]
_PROGRAMS = {"greetd": ("greetd",), "cage": ("cage", "labwc"), "xwayland": ("Xwayland",), "chromium": ("chromium", "chromium-browser")}
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"  # where greetd lies, and where a user's PATH does not look


def to_start(root: pathlib.Path | None) -> list[str]:
    """The commands that put the page on the screen, after those of the service."""
    make = f"useradd --system --groups video,render --home-dir / --shell /usr/sbin/nologin {USER}"
    if root:
        return [f"chroot {root} apt-get install {' '.join(PACKAGES)}", f"chroot {root} {make}", *_enabled(f"systemctl --root {root}")]
    needed = [name for name in PACKAGES if name in _PROGRAMS and not any(map(_find, _PROGRAMS[name]))]
    packages = " ".join(name for name in PACKAGES if name in needed or name not in _PROGRAMS)
    other = _other_display_manager()
    return [
        *([f"sudo apt install {packages}"] if needed else []),
        *([] if _is_user() else [f"sudo {make}"]),
        *([f"sudo systemctl disable {other}    # it has the screen now"] if other else []),
        *_enabled("sudo systemctl"),
        "sudo reboot",
    ]


def told(kiosk: dict[str, Any]) -> list[str]:
    """The lines of `service status` for an installed kiosk."""
    lines = [f"screen   {kiosk['unit']}"]
    if kiosk["missing"]:
        lines.append(f"screen   is not whole, {kiosk['missing'][0]} is missing; `edge-agent service install --kiosk` writes it again")
    if (state := kiosk["systemd"]) is not None:
        lines.append(f"screen   {state['ActiveState']} ({state['SubState']}), at boot {state['UnitFileState'] or 'unknown'}")
    return lines


def _enabled(systemctl: str) -> list[str]:
    return [f"{systemctl} enable edge-agent-kiosk", f"{systemctl} set-default graphical.target"]


def _find(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path=_SBIN)


def _is_user() -> bool:
    import pwd

    return any(one.pw_name == USER for one in pwd.getpwall())


def _other_display_manager() -> str | None:
    """The name of the display manager that is enabled and is not ours, such as lightdm on a desktop."""
    link = pathlib.Path(SYSTEM_FOLDER / "display-manager.service")
    name = link.readlink().name if link.is_symlink() else UNIT
    return None if name == UNIT else name.removesuffix(".service")
