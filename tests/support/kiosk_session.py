"""The installed session of a kiosk on a screen that exists in memory only: the very command that `service install --kiosk` writes.

It runs as an ordinary user, with the installed files at their places in a mount namespace of its own, so that the machine's own
browser and its policies are not touched. It needs root, cage (or labwc), grim, xwayland and Chromium; without them it skips.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.support.command_line import run

PLACE = "usr/local/lib/edge-agent-kiosk"
WAIT_S = 120.0  # a browser starts slowly on a busy machine
_USER = "nobody"  # who is there everywhere; on a device it is edge-agent-kiosk
_SETUP = """\
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /usr/local/lib
mkdir /usr/local/lib/edge-agent-kiosk
mount --bind "$1/usr/local/lib/edge-agent-kiosk" /usr/local/lib/edge-agent-kiosk
mkdir -p /etc/chromium
mount --bind "$1/etc/chromium" /etc/chromium
shift
exec "$@"
"""


class Session:
    """A running session. `debug_port` is open in tests alone, to look at what the browser shows."""

    def __init__(self, root: pathlib.Path, compositor: str, debug_port: int, **settings: str) -> None:
        self.root, self._debug_port = root, debug_port
        self.runtime = pathlib.Path(tempfile.mkdtemp(prefix="kiosk-runtime-"))
        owner = pwd.getpwnam(_USER)
        os.chown(self.runtime, owner.pw_uid, owner.pw_gid)
        self.command: str = tomllib.loads((root / PLACE / "greetd.toml").read_text())["default_session"]["command"]
        # A user of a container may make no namespaces, which Chromium's sandbox needs. Something must be rotated: otherwise cage shows
        # the browser's own buffer without copying it, and grim finds nothing in the screen's.
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/games", "LANG": "C.UTF-8", "HOME": "/", "XDG_RUNTIME_DIR": str(self.runtime),
            "WLR_BACKENDS": "headless", "WLR_LIBINPUT_NO_DEVICES": "1", "WLR_RENDERER": "pixman", "KIOSK_COMPOSITOR": compositor,
            "KIOSK_ROTATE": "180", "KIOSK_FLAGS": f"--no-sandbox --remote-debugging-port={debug_port}", **settings,
        }  # fmt: skip
        user = [
            "setpriv",
            f"--reuid={owner.pw_uid}",
            f"--regid={owner.pw_gid}",
            "--clear-groups",
            "--pdeathsig=TERM",
        ]  # it ends with the tests
        shell = ["env", "-i", *(f"{name}={value}" for name, value in environment.items()), "sh", "-c", f"exec {self.command}"]  # as greetd
        self.log = root / "session.log"
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", _SETUP, "setup", str(root), *user, *shell],
                stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True, cwd="/",
            )  # fmt: skip

    def pictured(self) -> Any:
        """What is on the screen now, as a picture of PIL."""
        from PIL import Image

        display = next(path.name for path in self.runtime.glob("wayland-*") if path.suffix != ".lock")
        owner = pwd.getpwnam(_USER)
        environment = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(self.runtime), "WAYLAND_DISPLAY": display}
        done = subprocess.run(
            ["grim", "-"], capture_output=True, check=True, timeout=30, user=owner.pw_uid, group=owner.pw_gid, env=environment
        )
        return Image.open(io.BytesIO(done.stdout)).convert("RGB")

    def pages(self) -> list[dict[str, Any]]:
        """The windows and tabs of the browser; none while it is not there."""
        try:
            found = httpx.get(f"http://127.0.0.1:{self._debug_port}/json/list", trust_env=False, timeout=10).json()
        except (httpx.HTTPError, ValueError):
            return []
        return [one for one in found if one["type"] == "page"]

    def url(self) -> str:
        """The address of the one page, or nothing."""
        return next((str(one["url"]) for one in self.pages()), "")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command of the DevTools protocol to the page, as a visitor's hand or a fault would act on it."""
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        ends = time.monotonic() + WAIT_S
        while True:
            try:
                with connect(self.pages()[0]["webSocketDebuggerUrl"], proxy=None, max_size=None, open_timeout=WAIT_S) as socket:
                    socket.send(json.dumps({"id": 1, "method": method, "params": params}))
                    while (message := json.loads(socket.recv(WAIT_S))).get("id") != 1:
                        pass
                return dict(message.get("result", message))
            except (OSError, WebSocketException, IndexError):  # the page is on its way
                if time.monotonic() > ends:
                    raise
                time.sleep(0.2)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True).get("result", {}).get("value")

    def text(self) -> str:
        """The text that the page shows."""
        return str(self.evaluate("document.body.innerText"))

    def until(self, is_so: Callable[[], object], what: str, timeout_s: float = WAIT_S) -> None:
        """Wait until something is so."""
        ends = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(IndexError, KeyError, OSError):  # the page is on its way
                if is_so():
                    return
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < ends, f"not within {timeout_s:.0f} s: {what}; at {self.pages()}\n{self.said()}"
            time.sleep(0.2)

    def browsers(self) -> list[int]:
        """The processes of this session's browser, the main one first; its children do not name the profile."""
        parents, mains = {}, []
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                words = (path / "cmdline").read_bytes().split(b"\0")
                if any(word.startswith(f"--user-data-dir={self.runtime}".encode()) for word in words):
                    mains.append(int(path.name))
        found = sorted(pid for pid in mains if parents[pid] not in mains)
        for pid in found:  # grows while it is read
            found += sorted(child for child, parent in parents.items() if parent == pid and child not in found)
        return found

    def profiles(self) -> list[str]:
        """The profiles that are there."""
        return sorted(path.name for path in self.runtime.glob("edge-agent-chromium-*"))

    def said(self) -> str:
        """The end of what it has written."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if "dbus" not in line]
        return "\n".join(lines[-25:])

    def stop(self) -> None:
        """End it as greetd does, and what is left by force."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        finally:
            for pid in self.browsers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(self.runtime, ignore_errors=True)


@contextlib.contextmanager
def session(folder: pathlib.Path, port: int, debug_port: int, compositor: str = "cage", **settings: str) -> Iterator[Session]:
    """The installed session for a server at `port`."""
    needed = {"cage": "cage", "labwc": "labwc", "grim": "grim", "Xwayland": "xwayland", "setpriv": "util-linux", "unshare": "util-linux"}
    for program, package in needed.items():
        if (program == compositor or program not in ("cage", "labwc")) and shutil.which(program) is None:
            pytest.skip(f"needs {program}: apt-get install {package}")
    if shutil.which("chromium") is None:
        pytest.skip("Chromium is missing: apt-get install chromium")
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root, to run as another user")
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("needs mount namespaces")
    root = folder / "root"
    done = run("service", "install", "--kiosk", "--root", str(root), "--port", str(port))
    assert done.returncode == 0, done.stderr
    running = Session(root, compositor, debug_port, **settings)
    try:
        yield running
    finally:
        running.stop()
