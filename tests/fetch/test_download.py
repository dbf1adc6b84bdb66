"""Bytes over HTTP: drops, wrong bytes, full disks and redirects, with a Hub on loopback that fails on command."""

import fcntl
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import httpx2
import pytest

from edge_agent.core.errors import DownloadFailed, StorageError
from edge_agent.fetch.connection import NetworkSettings
from edge_agent.fetch.download import Downloader, Refused
from edge_agent.model import pulled
from tests.support.command_line import run
from tests.support.hub_server import LoopbackHub
from tests.support.pulls import MODEL, NAME, Pulls, left_over


def test_drops_in_the_middle_are_resumed_where_they_happened(server: LoopbackHub, pulls: Pulls) -> None:
    server.large.drops = [300_000, 1, 0, 400_000]
    assert pulls().path.read_bytes() == MODEL
    assert server.large.sent == len(MODEL)  # no byte twice
    assert [r.headers.get("Range") for r in server.large.requests] == [
        None,
        "bytes=300000-",
        "bytes=300001-",
        "bytes=300001-",
        "bytes=700001-",
    ]
    assert sum(bool(step.trouble) for step in pulls.seen) == len(pulls.pauses) == 4


def test_pull_that_gave_up_continues_in_another_process(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    server.large.drops = [500_000, 0, 0, 0, 0, 0]
    with pytest.raises(DownloadFailed, match="continues from there"):
        pulls()
    assert not (folder / NAME).exists() and pulled.load(folder) == []
    assert pulls().path.read_bytes() == MODEL and server.large.sent == len(MODEL)


def test_killed_pull_leaves_nothing_under_the_name_and_is_resumed(server: LoopbackHub, home: pathlib.Path) -> None:
    server.publish("a/b", {NAME: MODEL})
    killed = threading.Event()
    server.large.drops, server.large.before_drop = [614_404], lambda: killed.wait(60)  # 60 %
    command = [sys.executable, "-m", "edge_agent", "pull", "a/b"]
    process = subprocess.Popen(command, env={**os.environ, "HF_ENDPOINT": server.url}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while sum(part.stat().st_size for part in (home / "models").glob(f".*.part/{NAME}")) < 600_000 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed.set()
    assert not (home / "models" / NAME).exists() and server.large.sent == 614_404
    done = run("pull", "a/b", HF_ENDPOINT=server.url)  # not a model: complete, and refused by the check
    assert done.returncode == 66 and "GGUF version" in done.stderr and left_over(home / "models") == []
    start = int(server.large.requests[-1].headers["Range"].removeprefix("bytes=").rstrip("-"))
    assert start >= 600_000 and server.large.sent - 614_404 == len(MODEL) - start  # at most one buffer is sent twice


def test_server_that_ignores_ranges_costs_time_only(server: LoopbackHub, pulls: Pulls) -> None:
    server.large.drops, server.large.ignores_range = [600_000], True
    assert pulls().path.read_bytes() == MODEL


def test_server_that_is_busy_is_asked_again_when_it_says(server: LoopbackHub, pulls: Pulls) -> None:
    server.large.statuses = [503, 429]
    assert pulls().is_new and pulls.pauses == [1.0, 1.0]


def test_unreachable_host_is_reported_after_some_tries(pulls: Pulls, folder: pathlib.Path) -> None:
    pulls.hub.endpoint = "http://127.0.0.1:9"
    with pytest.raises(DownloadFailed, match=r"127\.0\.0\.1 cannot be reached .* check the network"):
        pulls()
    assert left_over(folder) == []


def test_two_pulls_at_once_do_not_write_to_the_same_file(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    server.large.drops = [500_000, 0, 0, 0, 0, 0]
    with pytest.raises(DownloadFailed):
        pulls()
    (lock,) = folder.glob(".*.part/lock")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DownloadFailed, match="Another process"):
            pulls()
    assert pulls().path.read_bytes() == MODEL


def test_lock_of_a_process_that_has_just_finished_is_not_used(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process ends and removes the folder after we open the file and before we lock it."""
    lock = fcntl.flock

    def late(file: object, how: int) -> None:
        for part in folder.glob(".*.part"):
            shutil.rmtree(part)
        lock(file, how)

    monkeypatch.setattr("edge_agent.core.files.fcntl.flock", late)
    with pytest.raises(DownloadFailed, match="has just fetched"):
        Downloader(NetworkSettings({}, respond({}))).fetch("https://a.example/x", folder / "x")


# --- wrong bytes


@pytest.mark.parametrize(
    "change", [lambda data: b"GGUX" + data[4:], lambda data: data[:-1] + b"!", lambda data: data[:500_000] + b"?" + data[500_001:]]
)
def test_wrong_bytes_never_get_the_name(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path, change: object) -> None:
    server.large.change = change
    with pytest.raises(DownloadFailed, match="nothing was kept"):
        pulls()
    assert left_over(folder) == [] and pulls.checked == []
    server.large.change = bytes
    assert pulls().path.read_bytes() == MODEL


def test_pointer_instead_of_the_file_is_recognised(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    server.large.change = lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    with pytest.raises(DownloadFailed, match="LFS pointer"):
        pulls()
    assert left_over(folder) == []


def test_file_longer_than_listed_is_cut_off(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    server.large.change = lambda data: data + b"more"
    with pytest.raises(DownloadFailed, match=r"announces .* 1024008 bytes"):
        pulls()
    assert left_over(folder) == []


def test_part_that_was_damaged_on_the_disk_is_detected(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    server.large.drops = [500_000, 0, 0, 0, 0, 0]
    with pytest.raises(DownloadFailed):
        pulls()
    (part,) = folder.glob(f".*.part/{NAME}")
    part.write_bytes(bytes(500_000))
    with pytest.raises(DownloadFailed, match="not the file that was expected"):
        pulls()
    assert pulls().path.read_bytes() == MODEL


# --- full disks


def test_full_disk_is_reported_before_anything_is_fetched(pulls: Pulls, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("edge_agent.fetch.download.shutil.disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match="free some space"):
        pulls()
    assert left_over(folder) == []


def test_disk_that_fills_up_is_reported_and_cleaned(server: LoopbackHub, home: pathlib.Path) -> None:
    server.publish("a/b", {NAME: MODEL})
    command = f"ulimit -f 400; exec {sys.executable} -m edge_agent pull a/b"  # no file may grow beyond 400 KiB
    environment = {**os.environ, "HF_ENDPOINT": server.url}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 74 and "check the free disk space" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert left_over(home / "models") == []


# --- redirects


def respond(routes: dict[str, httpx2.Response]) -> httpx2.MockTransport:
    return httpx2.MockTransport(lambda request: routes[str(request.url)])


@pytest.mark.parametrize("location", ["http://elsewhere.example/x", "ftp://x/y", "file:///etc/passwd", "//"])
def test_redirect_away_from_https_is_refused(folder: pathlib.Path, location: str) -> None:
    transport = respond({"https://a.example/x": httpx2.Response(302, headers={"Location": location})})
    with pytest.raises(DownloadFailed):
        Downloader(NetworkSettings({}, transport), lambda s: None).fetch("https://a.example/x", folder / "x")
    assert left_over(folder) == []


@pytest.mark.parametrize("location", ["https://[bad/x", "https://a:b/x", "https://\u200b/x"])
def test_redirect_to_an_invalid_address_is_refused(folder: pathlib.Path, location: str) -> None:
    transport = respond({"https://a.example/x": httpx2.Response(302, headers=[(b"Location", location.encode())])})
    with pytest.raises(DownloadFailed, match=r"broken address|Invalid URL"):
        Downloader(NetworkSettings({}, transport), lambda s: None).fetch("https://a.example/x", folder / "x")


@pytest.mark.parametrize("status", [302, 304, 300])
def test_redirect_that_leads_nowhere_is_a_refusal(folder: pathlib.Path, status: int) -> None:
    with pytest.raises(Refused, match=str(status)):
        Downloader(NetworkSettings({}, respond({"https://a.example/x": httpx2.Response(status)}))).fetch(
            "https://a.example/x", folder / "x"
        )
    assert left_over(folder) == []


@pytest.mark.parametrize("host", ["a..b", "a" * 70, "\u200b", "a:bad"])
def test_impossible_host_name_is_reported_at_once(folder: pathlib.Path, host: str) -> None:
    pauses: list[float] = []
    with pytest.raises(DownloadFailed, match="cannot be reached"):
        Downloader(NetworkSettings({}), pauses.append).fetch(f"https://{host}/x", folder / "x")
    assert pauses == [] and left_over(folder) == []


def test_malformed_headers_do_no_harm(folder: pathlib.Path) -> None:
    class Sent(httpx2.SyncByteStream):
        def __init__(self, data: bytes, drops: bool = False) -> None:
            self.data, self.drops = data, drops

        def __iter__(self) -> Iterator[bytes]:
            yield self.data
            if self.drops:
                raise httpx2.ReadError("dropped")

    replies = iter(
        [
            httpx2.Response(206, headers={"Content-Range": "bytes " + "9" * 5000 + "-/5"}, stream=Sent(b"x")),
            httpx2.Response(200, headers=[(b"ETag", b'"\xe9"'), (b"Content-Length", b"9" * 5000)], stream=Sent(b"GGUF", drops=True)),
            httpx2.Response(200, stream=Sent(b"GGUF and more")),
        ]
    )
    transport = httpx2.MockTransport(lambda request: next(replies))
    Downloader(NetworkSettings({}, transport), lambda s: None).fetch("https://a.example/x", folder / "x")
    assert (folder / "x").read_bytes() == b"GGUF and more"


def test_endless_redirects_end(folder: pathlib.Path) -> None:
    transport = respond({"https://a.example/x": httpx2.Response(302, headers={"Location": "/x"})})
    with pytest.raises(DownloadFailed, match="redirects over 5 times"):
        Downloader(NetworkSettings({}, transport)).fetch("https://a.example/x", folder / "x")
