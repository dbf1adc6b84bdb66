"""Files that the Hub keeps in Xet storage: the real hf_xet reads them from a storage on loopback, and plain HTTP when it fails."""

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from edge_agent.core.errors import DownloadFailed
from edge_agent.fetch.connection import NetworkSettings
from edge_agent.fetch.download import BLOCK_BYTES, HEAD_BYTES, BlocksFailed, Downloader, Expected
from edge_agent.fetch.xet import XetBlocks
from tests.support.command_line import run
from tests.support.hub_server import LoopbackHub
from tests.support.pulls import MODEL, NAME, SHA256, Pulls, left_over
from tests.support.xet_server import XetStore

CONNECTION = ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
LARGE = b"GGUF" + bytes(range(256)) * (3 * BLOCK_BYTES // 256)  # three blocks and four bytes


@pytest.fixture
def store(server: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[XetStore]:
    """A storage that has the model of `pulls`, on a machine with a plain connection."""
    for name in CONNECTION:
        monkeypatch.delenv(name, raising=False)
    made = XetStore()
    server.xet[SHA256], server.storage = made.add(MODEL), made.url
    yield made
    made.stop()


def test_file_in_xet_is_read_from_there(server: LoopbackHub, store: XetStore, folder: pathlib.Path) -> None:
    server.tokens.add("hf_canary")
    pulls = Pulls(server, folder, HF_TOKEN="hf_canary")
    server.publish("a/b", {NAME: MODEL})
    assert pulls().path.read_bytes() == MODEL and pulls.checked == [NAME]
    assert store.sent > len(MODEL) and server.large.requests == []
    assert {request.headers.get("Authorization") for request in store.requests} <= {"Bearer xet", None}
    assert all("hf_canary" not in str(request.headers) and "python" not in str(request.headers).lower() for request in store.requests)
    assert all("telemetry" not in request.path for request in store.requests)
    assert pulls.seen[-1].n_bytes == len(MODEL)


@pytest.mark.parametrize("failure", ["no storage", "storage refuses", "no such file", "another host", "broken host"])
def test_plain_http_takes_over_when_xet_fails(server: LoopbackHub, store: XetStore, pulls: Pulls, failure: str) -> None:
    if failure == "no storage":
        server.storage = "http://127.0.0.1:9"
    elif failure == "storage refuses":
        store.status = 403
    elif failure == "no such file":
        store.files.clear()
    else:  # the token would go to another server
        server.token_host = "http://localhost:9" if failure == "another host" else "http://[::1"
    assert pulls().path.read_bytes() == MODEL and server.large.sent == len(MODEL)
    troubles = [step.trouble for step in pulls.seen if step.trouble]
    assert failure.endswith("host") or any("now over plain HTTP" in words for words in troubles)
    assert not any("://" in words for words in troubles)  # an address may be signed


def test_plain_http_continues_where_xet_stopped(server: LoopbackHub, folder: pathlib.Path) -> None:
    sha256 = server.publish_file(LARGE)

    def blocks(start: int, end: int) -> bytes:
        if start > HEAD_BYTES:
            raise BlocksFailed("Xet: it stopped")
        return LARGE[start:end]

    with Downloader(NetworkSettings({}), lambda seconds: None) as downloader:
        url = f"{server.large.url}/{sha256}?signature=1"
        downloader.fetch(url, folder / NAME, Expected(len(LARGE), sha256), blocks=blocks)
    assert (folder / NAME).read_bytes() == LARGE and server.large.sent == len(LARGE) - HEAD_BYTES - BLOCK_BYTES


def started(server: LoopbackHub, store: XetStore) -> subprocess.Popen:
    """A command that waits for a storage that sends nothing."""
    command = [sys.executable, "-m", "edge_agent", "pull", "a/b"]
    environment = {**os.environ, "HF_ENDPOINT": server.url}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while store.sent < store.stop_after and time.monotonic() < deadline:
        time.sleep(0.01)
    assert store.sent >= store.stop_after
    return process


def test_killed_download_from_xet_is_resumed_by_the_next_command(
    server: LoopbackHub, store: XetStore, home: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    server.publish("a/b", {NAME: LARGE})
    server.xet[server.publish_file(LARGE)] = store.add(LARGE)
    store.stop_after = len(LARGE) * 6 // 10
    process = started(server, store)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (home / "models" / NAME).exists()
    store.stop_after, sent = None, store.sent
    store.go_on.set()
    done = run("pull", "a/b", HF_ENDPOINT=server.url, HOME=str(tmp_path))  # not a model: complete, and refused by the check
    assert done.returncode == 66 and "GGUF" in done.stderr and left_over(home / "models") == []
    assert not (tmp_path / ".cache").exists()  # hf_xet would write a log there
    assert store.sent - sent < len(LARGE) - BLOCK_BYTES + 200_000 and server.large.requests == []


def test_interrupt_ends_a_wait_for_xet_at_once(server: LoopbackHub, store: XetStore) -> None:
    server.publish("a/b", {NAME: MODEL})
    store.stop_after = 500_000
    process = started(server, store)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130


def test_wrong_bytes_from_xet_are_refused(server: LoopbackHub, store: XetStore, pulls: Pulls, folder: pathlib.Path) -> None:
    store.files = {name: data[:-1] + b"?" for name, data in store.files.items()}
    with pytest.raises(DownloadFailed, match="not the file that was expected"):
        pulls()
    assert left_over(folder) == [] and pulls.checked == []


@pytest.mark.parametrize("variable", [{"HF_HUB_DISABLE_XET": "1"}, {"HTTPS_PROXY": "http://127.0.0.1:9"}])
def test_xet_is_not_used_if_it_is_disabled_or_behind_a_proxy(
    server: LoopbackHub, store: XetStore, folder: pathlib.Path, variable: dict[str, str]
) -> None:
    server.publish("a/b", {NAME: MODEL})
    assert Pulls(server, folder, **variable)().is_new
    assert store.requests == [] and server.large.sent == len(MODEL)


def blocks_of(server: LoopbackHub, block_s: float = 30.0) -> XetBlocks:
    file = SimpleNamespace(file_hash=server.xet[SHA256], refresh_route="/api/models/a/b/xet-read-token/main")
    server.publish("a/b", {NAME: MODEL})
    return XetBlocks(file, len(MODEL), server.url, {}, block_s)


def test_any_range_can_be_read(server: LoopbackHub, store: XetStore) -> None:
    blocks = blocks_of(server)
    for start, end in ((0, len(MODEL)), (100_000, 300_001), (65_536, 131_072), (len(MODEL) - 1, len(MODEL))):
        assert blocks(start, end) == MODEL[start:end]


def test_silent_storage_is_given_up(server: LoopbackHub, store: XetStore) -> None:
    store.stop_after = 100_000
    with pytest.raises(BlocksFailed, match=r"no block within 0\.5 s"):
        blocks_of(server, 0.5)(0, len(MODEL))


def test_storage_that_is_a_folder_of_this_device_is_refused(server: LoopbackHub, store: XetStore, tmp_path: pathlib.Path) -> None:
    server.storage = f"local://{tmp_path}"
    with pytest.raises(BlocksFailed, match="not on the network"):
        blocks_of(server)(0, 10)
