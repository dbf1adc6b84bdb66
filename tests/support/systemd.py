"""A real systemd that runs only the units of a test, as process 1 of its own namespaces; and its analyzer.

The machine's own systemd, if it has one, and its files are not touched: /run, /var/lib, /var/tmp and the list of users are the
test's own. It needs root and Linux; where these are missing, or namespaces are not allowed, tests that ask for it are skipped.
Memory limits are not enforced, because the control groups that limit it stay with the machine.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping

import pytest

ANALYZER = shutil.which("systemd-analyze")
needs_analyzer = pytest.mark.skipif(ANALYZER is None, reason="needs systemd-analyze: apt-get install systemd")
_PROGRAM = pathlib.Path("/lib/systemd/systemd")
_SETUP = """\
set -e
mount --make-rprivate /
for folder in /run /var/lib /var/tmp; do mount -t tmpfs tmpfs $folder; done
mkdir -p /run/systemd/system && cp -r "$1"/units/. /run/systemd/system/
mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/group" /etc/group
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --make-rshared /  # systemd mounts the credentials of a service in a child, and expects to see them
exec env -i container=lxc PATH="$PATH" SYSTEMD_UNIT_PATH=/run/systemd/system \
    /lib/systemd/systemd --system --unit=idle.target --log-target=console --log-level=warning
"""


class Systemd:
    """A running systemd."""

    def __init__(self, pid: int, log: pathlib.Path) -> None:
        self.pid, self.log = pid, log

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command where this systemd is process 1."""
        inside = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--cgroup", *command]
        return subprocess.run(inside, capture_output=True, text=True, timeout=60, check=False)

    def control(self, *arguments: str) -> str:
        """What `systemctl` prints. It must succeed."""
        done = self.run("systemctl", "--no-pager", *arguments)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}{self.log.read_text()[-4000:]}"
        return done.stdout

    def shown(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.control("show", unit, f"--property={name}", "--value").strip()

    def until(self, unit: str, name: str, value: str, timeout_s: float = 60) -> None:
        """Wait until a property of a unit has a value."""
        ends = time.monotonic() + timeout_s
        while (found := self.shown(unit, name)) != value:
            assert time.monotonic() < ends, (
                f"{name} is {found}; {self.run('systemctl', 'status', unit).stdout}{self.log.read_text()[-4000:]}"
            )
            time.sleep(0.1)


@contextlib.contextmanager
def running(folder: pathlib.Path, units: Mapping[str, str]) -> Iterator[Systemd]:
    """A systemd with these units, by their file names (`name.service.d/x.conf` for an addition); `folder` must be new."""
    if sys.platform != "linux" or os.geteuid() != 0 or not _PROGRAM.exists() or not shutil.which("unshare"):
        pytest.skip("needs root, Linux and systemd: apt-get install systemd util-linux")
    folder.mkdir()
    for name, text in {"idle.target": "[Unit]\nDefaultDependencies=no\n", **units}.items():
        path = folder / "units" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name, line in (("passwd", "edge-agent:x:987:987::/var/lib/edge-agent:/usr/sbin/nologin\n"), ("group", "edge-agent:x:987:\n")):
        (folder / name).write_text(pathlib.Path("/etc", name).read_text() + line)
    log = folder / "log"
    with log.open("w") as output:
        start = [
            "unshare",
            "--pid",
            "--fork",
            "--mount",
            "--cgroup",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
            _SETUP,
            "setup",
            str(folder),
        ]
        outer = subprocess.Popen(start, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        yield _when_up(outer, log)
    finally:
        outer.kill()
        outer.wait()


def _when_up(outer: subprocess.Popen[bytes], log: pathlib.Path) -> Systemd:
    ends = time.monotonic() + 30
    while time.monotonic() < ends and outer.poll() is None:
        children = pathlib.Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        if children:
            found = Systemd(int(children[0]), log)
            if "running" in (done := found.run("systemctl", "is-system-running")).stdout or "degraded" in done.stdout:
                return found
        time.sleep(0.1)
    pytest.skip(f"systemd does not start here: {log.read_text()[-300:]}")
