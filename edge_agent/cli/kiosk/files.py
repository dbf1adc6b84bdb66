"""The files that make a device show the visitor's page: their places, their texts and their modes.

Owns what is in them, apart from the session's own code and the page that stands in. Writes nothing and asks no system. Invariant: a
text depends on the arguments alone, so the same installation is the same everywhere.
"""

from __future__ import annotations

import json
import pathlib
import re
import struct
from typing import NamedTuple

from edge_agent.cli.kiosk import standing_in

MARK = "Written by `edge-agent service install --kiosk`."
UNIT = "edge-agent-kiosk.service"
USER = "edge-agent-kiosk"  # who is logged in on the screen
FOLDER = pathlib.PurePosixPath("/usr/local/lib/edge-agent-kiosk")
SYSTEM_FOLDER = pathlib.PurePosixPath("/etc/systemd/system")
LINKS = ("display-manager.service", f"graphical.target.wants/{UNIT}")  # what `systemctl enable` makes in SYSTEM_FOLDER
POLICY_FOLDERS = ("/etc/chromium/policies/managed", "/etc/chromium-browser/policies/managed")  # the second is that of older Raspberry Pi OS
PACKAGES = ("greetd", "cage", "xwayland", "wlr-randr", "chromium", "python3", "libpam-systemd")
OWN_SETTINGS = "/etc/default/edge-agent-kiosk"
_SESSION = pathlib.Path(__file__).parent / "session"
_VT = 7  # the first one without a login


class File(NamedTuple):
    """One file, where it lies on the device, and what is in it."""

    path: pathlib.PurePosixPath
    content: bytes

    @property
    def shown(self) -> str:
        """What a person is shown of it: the text, without what the page that stands in embeds of a font."""
        try:
            return re.sub(r"base64,[\w+/=]{80,}", "base64,...", self.content.decode())
        except UnicodeDecodeError:
            return f"({len(self.content)} bytes)"


def all_files(port: int, language: str) -> list[File]:
    """Every file for a server at this port of loopback, whose page starts in this language."""
    address = f"http://127.0.0.1:{port}/"
    own = sorted(path for path in _SESSION.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    found = [File(FOLDER / "session" / path.relative_to(_SESSION).as_posix(), path.read_bytes()) for path in own]
    found += [File(FOLDER / "session/starting.html", standing_in.page(language).encode())]
    found += [File(FOLDER / "session/cursors/empty/cursors" / name, _empty_cursor()) for name in ("default", "left_ptr")]
    found += [File(FOLDER / "greetd.toml", _greetd(address).encode()), File(SYSTEM_FOLDER / UNIT, _unit().encode())]
    return found + [File(pathlib.PurePosixPath(folder, "edge-agent-kiosk.json"), _policy(address)) for folder in POLICY_FOLDERS]


def command(address: str) -> str:
    """The session's command."""
    return f"/usr/bin/env --chdir={FOLDER} /usr/bin/python3 -s -B -m session {address}"


def _greetd(address: str) -> str:
    # As the default session, because greetd starts that one each time, and an initial session only once after the start of the system.
    return f"""\
# {MARK}
[terminal]
vt = {_VT}

[general]
source_profile = false

[default_session]
command = "{command(address)}"
user = "{USER}"
"""


def _unit() -> str:
    """The unit. It waits for no network and not for the server: our own page stands in until that answers."""
    return f"""\
# {MARK}
# Your own changes: systemctl edit edge-agent-kiosk

[Unit]
Description=edge-agent: the visitor's page on the screen
After=systemd-user-sessions.service plymouth-quit-wait.service getty@tty{_VT}.service
Conflicts=getty@tty{_VT}.service
# A kiosk tries again for ever.
StartLimitIntervalSec=0

[Service]
Type=simple
ExecStart=greetd --config {FOLDER}/greetd.toml
IgnoreSIGPIPE=no
SendSIGHUP=yes
TimeoutStopSec=30
KeyringMode=shared
Restart=always
RestartSec=1

[Install]
Alias=display-manager.service
WantedBy=graphical.target
"""


def _policy(address: str) -> bytes:
    """What Chromium may do on this device, for all its users: show the two pages of the kiosk, and nothing else."""
    server = address.rstrip("/")
    pages = [f"{server}", (FOLDER / "session/starting.html").as_uri()]
    rules = {
        "URLBlocklist": ["*", f"{server}/operator", f"{server}/openapi.json"],
        "URLAllowlist": pages,
        "NewTabPageLocation": address,
        "HomepageIsNewTabPage": True,
        "AllowFileSelectionDialogs": False,
        "DownloadRestrictions": 3,
        "PrintingEnabled": False,
        "IncognitoModeAvailability": 1,
        "BrowserGuestModeEnabled": False,
        "BrowserAddPersonEnabled": False,
        "BrowserSignin": 0,
        "SyncDisabled": True,
        "ExtensionInstallBlocklist": ["*"],
        "TaskManagerEndProcessEnabled": False,
        "TranslateEnabled": False,
        "SpellcheckEnabled": False,
        "PasswordManagerEnabled": False,
        "AutofillAddressEnabled": False,
        "AutofillCreditCardEnabled": False,
        "SearchSuggestEnabled": False,
        "DefaultSearchProviderEnabled": False,
        "EnableMediaRouter": False,
        "MetricsReportingEnabled": False,
        "BackgroundModeEnabled": False,
        "PromotionsEnabled": False,
        "BookmarkBarEnabled": False,
        "EditBookmarksEnabled": False,
        "DefaultGeolocationSetting": 2,
        "DefaultNotificationsSetting": 2,
        "DefaultPopupsSetting": 2,
        "AudioCaptureAllowed": False,
        "VideoCaptureAllowed": False,
        "ScreenCaptureAllowed": False,
    }
    return (json.dumps({"_": MARK, **rules}, indent=2) + "\n").encode()


def _empty_cursor() -> bytes:
    """A cursor in Xcursor's format: one transparent pixel, for a nominal size of 24."""
    image, size, head, toc = 0xFFFD0002, 24, 16, 12
    start = struct.pack("<4sIII", b"Xcur", head, 0x10000, 1) + struct.pack("<III", image, size, head + toc)
    return start + struct.pack("<IIIIIIIII", 36, image, size, 1, 1, 1, 0, 0, 0) + bytes(4)
