"""A canary key and a canary question must not leak from real processes, whatever goes wrong in them.

The tests search for them in stdout, stderr, every file of the device's folder (database, journal, marker, locks, caches, damaged
copies), backups and exports, what the cloud received, and the command lines and environments of child processes.
"""

import base64
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from edge_agent.store.store import Store
from tests.support.damage import damage
from tests.support.mutation import catches
from tests.support.paths import DEMO, ROOT

KEY = "sk-canary/4711+Zq="
SPELLINGS = [KEY.encode(), base64.b64encode(KEY.encode()), KEY.replace("/", "%2F").replace("+", "%2B").replace("=", "%3D").encode()]
QUESTION = "Who is the canary of Secret Street 4711?"
OPTIONS = ("--option", "canary A", "--option", "canary B")
PLAIN = ("ask", "What is 12 + 7?", "--option", "18", "--option", "19", "--policy", "prefer_cloud")


class EchoingCloud:
    """A server that repeats the key wherever HTTP allows it, as `mode` says; `received` is all that it received."""

    def __init__(self) -> None:
        self.mode, self.received, self.calls = "refused", b"", 0
        self.hold = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            data = b""
            while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < _length(data):
                part = connection.recv(65536)
                data += part
                if not part or data.startswith(b"\x16"):  # a TLS handshake, but this server has no TLS
                    break
            self.received += data
            self.calls += 1
            if self.mode == "silent":
                self.hold.wait(60)
            connection.sendall(REPLIES.get(self.mode, b""))


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)


def reply(status: str, body: str, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"X-Echo: Bearer {KEY}", f"Content-Length: {len(body.encode())}", *headers]
    return "\r\n".join([*lines, "", body]).encode()


def chat(content: str) -> str:
    return json.dumps({"choices": [{"message": {"content": content}}], "usage": {"prompt_tokens": KEY}})


REPLIES = {
    "refused": reply(
        f"401 {KEY}", json.dumps({"error": {"message": f"Incorrect API key: {KEY}", "code": KEY}}), f"WWW-Authenticate: {KEY}"
    ),
    "no credit": reply("402 Payment", json.dumps({"error": {"message": KEY, "code": KEY}})),
    "rate limit": reply("429 Wait", KEY, f"Retry-After: {KEY}"),
    "failed": reply("500 Oops", f"Traceback: key={KEY}"),
    "rejected": reply("400 Bad", json.dumps({"error": {"message": KEY}})),
    "redirect": reply("302 Found", KEY, f"Location: http://127.0.0.1:9/?key={KEY}"),
    "page": reply("200 OK", f"<html>{KEY}"),
    "malformed": reply("200 OK", '{"choices": [{"message": {"content": "' + KEY),
    "not HTTP": f"{KEY}\r\n{KEY}: {KEY}\r\n\r\n".encode(),
    "packed": reply("200 OK", KEY, f"Content-Encoding: {KEY}"),
    "cut off": reply("200 OK", chat("B"))[:-20],
    "repeats it": reply("200 OK", chat(f"B. Your key is {KEY}")),
    "repeats only it": reply("200 OK", chat(KEY)),
}


@pytest.fixture
def cloud() -> Iterator[EchoingCloud]:
    server = EchoingCloud()
    yield server
    server.hold.set()
    server.socket.close()


class Device:
    """A device with its own home folder, whose processes know the key."""

    def __init__(self, home: pathlib.Path, url: str, way: str = "environment") -> None:
        self.home, self.said = home, b""
        self.environment = {**os.environ, "EDGE_AGENT_HOME": str(home), "EDGE_AGENT_CLOUD_URL": url, "PYTHONPATH": str(ROOT)}
        secrets = home.with_name(f"{home.name}-secrets")
        secrets.mkdir()
        if way == "environment":
            self.environment["EDGE_AGENT_CLOUD_KEY"] = KEY
        elif way == "file":
            self.environment["EDGE_AGENT_CLOUD_KEY_FILE"] = str(secrets / "key")
        else:
            self.environment["CREDENTIALS_DIRECTORY"] = str(secrets)
        for name in ("key", "edge-agent-cloud-key"):
            (secrets / name).write_text(KEY + "\n")
            (secrets / name).chmod(0o600)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "edge_agent", *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment, cwd=ROOT)

    def end(self, process: subprocess.Popen[bytes]) -> int:
        out, errors = process.communicate(timeout=300)
        self.said += out + errors
        return process.returncode

    def run(self, *arguments: str) -> int:
        return self.end(self.start(*arguments))

    def everything(self) -> bytes:
        return self.said + b"".join(file.read_bytes() + os.fsencode(file) for file in self.home.rglob("*") if file.is_file())

    def leaks(self) -> list[bytes]:
        """The encodings in which the key is found where it must not be."""
        found = self.everything()
        return [spelling for spelling in SPELLINGS if spelling in found]

    def look(self) -> None:
        """Read, export and back up all that this device stores, and check that no key is in it."""
        for command in (["log", "--json"], ["queue", "list", "--json"], ["queue", "list"], ["doctor"], ["replay", "--json"], ["export"]):
            assert self.run(*command) in (0, 74), self.said[-2000:]
        self.run("backup", str(self.home / f"backup-{time.monotonic_ns()}"))
        assert not self.leaks()


def test_key_does_not_leak_whatever_the_cloud_replies(tmp_path: pathlib.Path, cloud: EchoingCloud) -> None:
    """One question for each reply, asked and then drained by hand, which works even if the breaker is open."""
    device = Device(tmp_path / "home", cloud.url)
    for mode in sorted(REPLIES, key=lambda mode: mode == "rate limit"):  # last, because nothing is sent after it
        cloud.mode, calls = mode, cloud.calls
        assert device.run("ask", f"{mode}: what is 12 + 7?", *PLAIN[2:]) == 0 and device.run("queue", "drain") in (0, 69)
        assert cloud.calls > calls and not device.leaks(), mode
    assert cloud.received.count(f"Bearer {KEY}".encode()) == cloud.calls  # the key was really used
    device.look()


@pytest.mark.parametrize("way", ["file", "credential"])
def test_key_from_a_file_does_not_leak(way: str, tmp_path: pathlib.Path, cloud: EchoingCloud) -> None:
    device = Device(tmp_path / "home", cloud.url, way)
    for mode in ("refused", "repeats it"):
        cloud.mode = mode
        assert device.run(*PLAIN, "--refresh") == 0 and device.run("queue", "drain", "--json") in (0, 69)
    assert f"Bearer {KEY}".encode() in cloud.received
    device.look()


def test_key_does_not_leak_when_tls_fails(tmp_path: pathlib.Path, cloud: EchoingCloud) -> None:
    """A server without TLS, and then a proxy that answers instead of it."""
    device = Device(tmp_path / "home", cloud.url.replace("http:", "https:"))
    assert device.run(*PLAIN) == 0 and device.run("queue", "drain") == 69
    (tmp_path / "home" / "config.toml").write_text(f'cloud_proxy = "{cloud.url.removesuffix("/v1")}"\n')
    assert device.run("queue", "drain") == 69
    assert KEY.encode() not in cloud.received  # a server that has not proved its identity does not get the key
    device.look()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGABRT])
def test_key_does_not_leak_when_a_signal_ends_a_call(number: int, tmp_path: pathlib.Path, cloud: EchoingCloud) -> None:
    """In the middle of a call; faulthandler prints a traceback of every thread if the signal allows it."""
    cloud.mode = "silent"
    device = Device(tmp_path / "home", "http://127.0.0.1:9/v1")
    assert device.run(*PLAIN) == 0
    device.environment |= {"EDGE_AGENT_CLOUD_URL": cloud.url, "PYTHONFAULTHANDLER": "1", "PYTHONDEVMODE": "1"}
    process = device.start("queue", "drain")
    while not cloud.calls and process.poll() is None:
        time.sleep(0.01)
    assert KEY.encode() not in pathlib.Path(f"/proc/{process.pid}/cmdline").read_bytes()
    process.send_signal(number)
    assert device.end(process) != 0
    assert (b"most recent call first" in device.said) == (number == signal.SIGABRT)
    device.environment["EDGE_AGENT_CLOUD_URL"] = "http://127.0.0.1:9/v1"
    device.look()


def test_key_does_not_leak_when_the_store_is_damaged(tmp_path: pathlib.Path, cloud: EchoingCloud) -> None:
    device = Device(tmp_path / "home", cloud.url)
    assert device.run(*PLAIN) == 0
    damage(tmp_path / "home" / "edge-agent.db", "decisions")
    device.run("log")
    assert device.run(*PLAIN, "--refresh") == 0 and list((tmp_path / "home").glob("*damaged*"))
    (tmp_path / "home" / "edge-agent.db").write_bytes(os.urandom(9000))
    device.run(*PLAIN)
    (tmp_path / "home" / "edge-agent.db").unlink()
    device.look()


LOUD = "import logging, sys; logging.basicConfig(level=1); from edge_agent.cli import main; main(sys.argv[1:], prog_name='edge-agent')"
BROKEN = """
import logging, os, pathlib, sys
logging.basicConfig(level=1)
import httpx
from edge_agent.agent.agent import Agent
from edge_agent.cloud.wire.client import CloudModel
from edge_agent.core.question import Question
from edge_agent.core.routing import PolicyName
from edge_agent.core.config.loading import load
from edge_agent.model.catalog import ModelFiles
from edge_agent.store.store import Store

class Broken(httpx.BaseTransport):
    def handle_request(self, request):
        raise RuntimeError(f"a bug that shows everything: {dict(request.headers)}")

settings = load()
cloud = CloudModel("https://cloud.test/v1", "big", settings.cloud_key, transport=Broken())
with Agent(ModelFiles(pathlib.Path(sys.argv[1])), Store(settings.database), PolicyName.PREFER_CLOUD, cloud=cloud) as agent:
    decision = agent.ask(Question("What is 12 + 7?", ("18", "19")))
    assert decision.queue_id and "RuntimeError" in decision.cloud_error
    print(list(agent.drain()), file=sys.stderr)
"""


def test_key_does_not_leak_into_logs_of_libraries_or_the_message_of_a_bug(tmp_path: pathlib.Path, cloud: EchoingCloud) -> None:
    """With every logger at its lowest level."""
    device = Device(tmp_path / "home", cloud.url)

    def run(program: str, *arguments: str) -> None:
        command = [sys.executable, "-c", program, *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=device.environment, cwd=ROOT)
        assert device.end(process) == 0, device.said

    for mode in ("refused", "repeats it"):
        cloud.mode = mode
        run(LOUD, *PLAIN, "--refresh")
    assert cloud.calls > 0
    run(BROKEN, str(DEMO))
    device.look()


def test_key_does_not_leak_into_the_command_line_or_environment_of_a_child(tmp_path: pathlib.Path) -> None:
    """Of every process that a command starts, as /proc shows it to the same user."""
    for command in (["verify", str(DEMO)], ["bench", str(DEMO), "--repeats", "1", "--limit", "3", "--threads", "1"]):
        for way in ("environment", "credential"):
            device = Device(tmp_path / f"{command[0]}-{way}", "http://127.0.0.1:9/v1", way)
            process = device.start(*command)
            seen: dict[int, bytes] = {}
            while process.poll() is None:
                with contextlib.suppress(OSError):  # a child has just ended
                    for child in pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                        parts = [pathlib.Path(f"/proc/{child}/{name}").read_bytes() for name in ("cmdline", "environ")]
                        if b"edge_agent." in parts[0] and b"PYTHONPATH" in parts[1]:  # after exec
                            seen[int(child)] = b"".join(parts)
                time.sleep(0.005)
            assert device.end(process) == 0, device.said
            assert seen and not [1 for shown in seen.values() if KEY.encode() in shown or b"CREDENTIALS_DIRECTORY" in shown]


def rules_of(device: Device, careless: bool) -> None:
    (device.home / "config.toml").write_text("" if careless else 'never_send = ["secret street"]\n')


def careful(device: Device) -> None:
    """A pattern forbids the question."""
    rules_of(device, careless=False)


def careless(device: Device) -> None:
    """Mutant: no pattern is set."""
    rules_of(device, careless=True)


@catches(careful, careless)
def test_forbidden_question_is_never_sent_queued_or_printed(part, tmp_path: pathlib.Path, cloud: EchoingCloud) -> None:
    """Forbidden by the flag or by a pattern, asked under each policy, drained, exported and purged: it stays on the device."""
    cloud.mode = "repeats it"
    device = Device(tmp_path / "home", cloud.url)
    device.home.mkdir()
    part(device)
    for policy in ("prefer_cloud", "only_cloud", "prefer_local"):
        assert device.run("ask", QUESTION, *OPTIONS, "--policy", policy, "--tau", "1") == 0
    assert device.run("ask", f"{QUESTION} flagged", *OPTIONS, "--policy", "prefer_cloud", "--never-send") == 0
    assert device.run("queue", "drain") == 0 and device.run("queue", "list") == 0
    assert b"anary" not in cloud.received and b"Secret Street" not in device.said
    assert device.run(*PLAIN) == 0 and b"12 + 7" in cloud.received  # an allowed question is sent
    device.said = b""
    assert device.run("export") == 0 and b"Secret Street" in device.said  # the device itself remembers it
    assert (
        device.run("purge", "--yes", "--question", QUESTION) == 0 and device.run("purge", "--yes", "--question", f"{QUESTION} flagged") == 0
    )
    device.said = b""
    assert b"Secret Street" not in device.everything()


def test_question_that_is_forbidden_later_is_erased_from_the_queue(tmp_path: pathlib.Path, cloud: EchoingCloud) -> None:
    """It is queued first, then a pattern forbids it, and then the queue is drained."""
    cloud.mode = "repeats it"
    device = Device(tmp_path / "home", "http://127.0.0.1:9/v1")
    assert device.run("ask", QUESTION, *OPTIONS, "--policy", "prefer_cloud") == 0
    careful(device)
    device.environment["EDGE_AGENT_CLOUD_URL"] = cloud.url
    assert device.run("queue", "drain") in (0, 69) and cloud.calls == 0
    with Store(device.home / "edge-agent.db") as store:
        (row,) = store.database.rows("SELECT state, payload, last_error FROM outbox")
    assert row == {"state": "cancelled", "payload": None, "last_error": "never_send"}
    assert cloud.received == b""
