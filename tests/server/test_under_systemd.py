"""`edge-agent serve` as `service install` sets it up, under a real systemd in namespaces of its own."""

import json
import os
import pathlib
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from edge_agent.cli.commands.service import _python
from tests.support import systemd
from tests.support.command_line import run
from tests.support.paths import DEMO, ROOT

UNIT = "edge-agent.service"
QUICK = "[Unit]\nDefaultDependencies=no\n[Service]\nStandardOutput=null\nStandardError=file:/run/stderr\nWatchdogSec=3\nRestartSec=200ms\n"
BODY = {"question": "What is 12 + 7?", "options": ["18", "19", "24"]}


class Installed:
    """The service, as it was installed with these flags."""

    def __init__(self, real: systemd.Systemd, port: int) -> None:
        self.real, self.url = real, f"http://127.0.0.1:{port}"

    def call(self, path: str, body: dict | None = None, token: str = "t" * 24) -> dict:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode() if body else None, headers)
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.loads(reply.read())

    @property
    def pid(self) -> int:
        """The server's process, as this machine counts."""
        inside = self.real.shown(UNIT, "MainPID")
        found = [path.parent for path in pathlib.Path("/proc").glob("[0-9]*/status") if is_inside(path, self.real.pid, inside)]
        return int(found[0].name)

    def said(self) -> str:
        return self.real.run("cat", "/run/stderr").stdout

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)


def is_inside(status: pathlib.Path, systemd_pid: int, pid: str) -> bool:
    """Whether a process is number `pid` where `systemd_pid` is number 1."""
    try:
        numbers = next(line for line in status.read_text().splitlines() if line.startswith("NSpid")).split()
        same = (status.parent / "ns" / "pid").readlink() == pathlib.Path(f"/proc/{systemd_pid}/ns/pid").readlink()
    except (OSError, StopIteration):
        return False
    return same and numbers[-1] == pid


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def installed(tmp_path: pathlib.Path) -> Iterator[Installed]:
    secret = tmp_path / "a secret"
    secret.write_text("t" * 24)
    secret.chmod(0o600)
    model = tmp_path / "my 50% model.gguf"
    model.write_bytes(DEMO.read_bytes())
    port = free_port()
    done = run("service", "install", "--print", "--port", str(port), "--token-file", str(secret), "--model", str(model))
    assert done.returncode == 0, done.stderr
    with systemd.running(tmp_path / "systemd", {UNIT: done.stdout, f"{UNIT}.d/quick.conf": QUICK}) as real:
        yield Installed(real, port)


def test_the_service_answers_in_its_sandbox_and_survives_what_it_should(installed: Installed) -> None:
    real = installed.real
    started = real.run("systemctl", "start", UNIT)
    assert started.returncode == 0, f"{real.run('systemctl', 'status', UNIT).stdout}{installed.said()}{real.log.read_text()[-3000:]}"
    assert installed.call("/health") == {"status": "ok"}  # READY means that the model is open
    first = installed.call("/edge/ask", BODY)
    assert (first["answer"], first["persisted"]) == ("B", True)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        installed.call("/edge/ask", BODY, token="x" * 24)

    resident = next(line for line in pathlib.Path(f"/proc/{installed.pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    assert int(resident.split()[1]) * 1024 < int(real.shown(UNIT, "MemoryMax"))

    time.sleep(4)  # longer than the watchdog waits
    assert real.shown(UNIT, "NRestarts") == "0"
    installed.kill(signal.SIGKILL)
    real.until(UNIT, "NRestarts", "1")
    real.until(UNIT, "ActiveState", "active")
    assert installed.call("/edge/ask", BODY)["recalled"] is True
    installed.kill(signal.SIGSTOP)  # a server that hangs
    real.until(UNIT, "NRestarts", "2")
    real.until(UNIT, "ActiveState", "active")
    assert installed.call("/edge/ask", BODY)["answer"] == "B"

    real.control("stop", UNIT)
    assert (real.shown(UNIT, "Result"), real.shown(UNIT, "ActiveState")) == ("success", "inactive")


def test_a_wrong_setting_stops_the_service_and_is_not_tried_again(installed: Installed) -> None:
    real = installed.real
    real.run("mkdir", "-p", "/var/lib/edge-agent")
    real.run("sh", "-c", "echo 'tau = 7' > /var/lib/edge-agent/config.toml")
    assert real.run("systemctl", "start", UNIT).returncode != 0
    time.sleep(1)
    assert (real.shown(UNIT, "NRestarts"), real.shown(UNIT, "ExecMainStatus"), real.shown(UNIT, "ActiveState")) == ("0", "78", "failed")
    assert "tau" in installed.said()


def test_a_users_service_runs_in_the_users_own_systemd(tmp_path: pathlib.Path) -> None:
    """The user's systemd is started by the system's, as a login would, for a user that is nobody special."""
    port, run_at = free_port(), "/run/user/987"
    key = tmp_path / "key"
    key.write_text("k" * 24)
    key.chmod(0o600)
    done = run(
        "service", "install", "--print", "--user", "--port", str(port), "--cloud-key-file", str(key), EDGE_AGENT_HOME="/var/lib/mine"
    )
    assert done.returncode == 0, done.stderr
    _, folders = _python()
    unit = done.stdout.replace(str(key), f"{run_at}/key")
    own = "[Unit]\nDefaultDependencies=no\n[Service]\nStandardOutput=null\nStandardError=file:/run/user/987/stderr\nEnvironment=EDGE_AGENT_CLOUD_URL=http://127.0.0.1:9/v1\n"
    units = {
        "login.service": f"[Unit]\nDefaultDependencies=no\n[Service]\nUser=edge-agent\nDelegate=yes\nType=notify\n"
        f"StateDirectory=mine\nRuntimeDirectory=user/987\nEnvironment=XDG_RUNTIME_DIR={run_at} HOME=/var/lib/mine\n"
        "Environment=SYSTEMD_UNIT_PATH=/run/systemd/system/mine\nStandardOutput=null\nStandardError=file:/run/login\n"
        "ProtectHome=tmpfs\nPrivateTmp=yes\n"
        + "".join(f'BindReadOnlyPaths="{one}"\n' for one in (*folders, ROOT))
        + "ExecStart=/lib/systemd/systemd --user --unit=idle.target --log-target=console\n",
        "mine/idle.target": "[Unit]\nDefaultDependencies=no\n",
        f"mine/{UNIT}": unit,
        f"mine/{UNIT}.d/test.conf": own,
    }
    with systemd.running(tmp_path / "systemd", units) as real:
        real.control("start", "login.service")
        real.run("sh", "-c", f"printf {'k' * 24} > {run_at}/key; chmod 600 {run_at}/key; chown edge-agent {run_at}/key")
        as_user = ("setpriv", "--reuid=987", "--regid=987", "--clear-groups", "env", f"XDG_RUNTIME_DIR={run_at}", "systemctl", "--user")
        started = real.run(*as_user, "start", UNIT)
        said = real.run("cat", f"{run_at}/stderr", "/run/login").stdout
        assert started.returncode == 0, f"{started.stderr}{real.run(*as_user, 'status', UNIT).stdout}{said}"
        installed = Installed(real, port)
        answer = installed.call("/edge/ask", BODY)
        assert answer["answer"] == "B"
        pid = int(real.run(*as_user, "show", UNIT, "--property=MainPID", "--value").stdout)
        environment = real.run("cat", f"/proc/{pid}/environ").stdout
        assert "CREDENTIALS_DIRECTORY=" in environment and "k" * 24 not in environment
        assert real.run(*as_user, "stop", UNIT).returncode == 0
