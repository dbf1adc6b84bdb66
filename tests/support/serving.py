"""A real `edge-agent serve` process on a free port of loopback, with its own home."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx

from tests.support.paths import ROOT

START_S = 60


class Serving:
    """The process and a client for it. `home` is its EDGE_AGENT_HOME; `stderr` is where its messages go."""

    def __init__(self, home: pathlib.Path, *flags: str, environment: dict[str, str] | None = None, port: int = 0, n_files: int = 0) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home, self.stderr = home, home / "serve.stderr"
        self._command = [sys.executable, "-m", "edge_agent", "serve", "--port", str(port), *flags]
        if n_files:  # that it may open at most
            self._command = ["sh", "-c", f'ulimit -n {n_files}; exec "$@"', "sh", *self._command]
        self._environment = {**os.environ, "EDGE_AGENT_HOME": str(home), "PYTHONPATH": str(ROOT), **(environment or {})}
        self.start()

    def start_at(self, port: int) -> None:
        """Start the process again, at this port."""
        self._command[self._command.index("--port") + 1] = str(port)
        self.start()

    def start(self) -> None:
        """Start the process and wait until it listens."""
        with self.stderr.open("ab") as output:
            begin = output.tell()
            self.process = subprocess.Popen(self._command, env=self._environment, stdout=output, stderr=output)
        ends = time.monotonic() + START_S
        while not (found := re.search(rb"listening on (http://\S+)", self.stderr.read_bytes()[begin:])):
            assert self.process.poll() is None and time.monotonic() < ends, self.said()
            time.sleep(0.02)
        self.url = found[1].decode().replace("//0.0.0.0", "//127.0.0.1")  # which is no name for a server
        self.port = int(self.url.rpartition(":")[2])

    def wait_ready(self) -> None:
        """Wait until the model is open."""
        ends = time.monotonic() + START_S
        while httpx.get(f"{self.url}/health", trust_env=False, timeout=START_S).status_code != 200:
            assert self.process.poll() is None and time.monotonic() < ends, self.said()
            time.sleep(0.02)

    def client(self, token: str | None = None, **extra: Any) -> httpx.Client:
        """A client with the server's address, and a token if one is given."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, trust_env=False, timeout=60, headers=headers, **extra)

    def said(self) -> str:
        """What the process has written."""
        return self.stderr.read_text(errors="replace")

    def complaints(self) -> list[str]:
        """The lines that it has written beyond those of every start."""
        return [line for line in self.said().splitlines() if not line.startswith(("edge-agent: listening on ", "edge-agent: ready with "))]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)


def token_file(path: pathlib.Path, token: str) -> str:
    """A file with a token, which only its owner can read, as a flag takes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o600)
    path.write_text(token)
    return str(path)


@contextlib.contextmanager
def serving(home: pathlib.Path, *flags: str, environment: dict[str, str] | None = None) -> Iterator[Serving]:
    """A server that is ready, and is stopped at the end."""
    server = Serving(home, *flags, environment=environment)
    try:
        server.wait_ready()
        yield server
    finally:
        if server.stop() not in (0, -signal.SIGKILL):
            raise AssertionError(server.said())
