"""Two versions of a file, file systems without locks, and replies that would fill the memory."""

import contextlib
import email.utils
import errno
import gzip
import json
import os
import pathlib
import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from edge_agent.core.errors import DownloadFailed, StorageError
from edge_agent.core.files import try_lock
from edge_agent.fetch.connection import NetworkSettings
from edge_agent.fetch.download import Downloader
from edge_agent.fetch.hub import Hub
from edge_agent.fetch.unfinished import TryLock, Version
from tests.support.hub_server import LoopbackHub, LoopbackServer, reply
from tests.support.pulls import MODEL, NAME, left_over

OTHER = bytes(reversed(MODEL))


def fetch(server: LoopbackHub, folder: pathlib.Path, take_lock: TryLock = try_lock, name: str = NAME) -> bytes:
    with Downloader(NetworkSettings({}), lambda seconds: None, take_lock) as downloader:
        downloader.fetch(f"{server.large.url}/x?signature=1", folder / name)
    return (folder / name).read_bytes()


def dated(age_s: float) -> dict[str, str]:
    return {"Last-Modified": email.utils.formatdate(time.time() - age_s, usegmt=True)}


@pytest.mark.parametrize("validators", ["strong tag", "weak tag", "date", "date of now", "none", "same tag, other size"])
def test_versions_are_never_spliced(validators: str, server: LoopbackHub, folder: pathlib.Path) -> None:
    """The file is replaced while it is fetched, at a server that ignores If-Range and sends the rest of the new one."""
    new = OTHER + b"longer" if validators == "same tag, other size" else OTHER
    server.large.blobs["x"], server.large.drops = MODEL, [500_000]
    server.large.before_drop = lambda: server.large.blobs.update(x=new)
    server.large.validators = {
        "strong tag": server.large.validators,
        "weak tag": lambda data: {"ETag": f'W/"{data[:1].hex()}"'},
        "date": lambda data: dated(1000 if data == MODEL else 500),
        "date of now": lambda data: dated(0),
        "none": lambda data: {},
        "same tag, other size": lambda data: {"ETag": '"same"'},
    }[validators]
    assert fetch(server, folder) == new
    assert left_over(folder) == [NAME]


@pytest.mark.parametrize("validators", [{"ETag": '"a"'}, dated(60)])
def test_same_version_is_continued_and_the_condition_is_sent(validators: dict, server: LoopbackHub, folder: pathlib.Path) -> None:
    server.large.blobs["x"], server.large.drops, server.large.validators = MODEL, [500_000], lambda data: validators
    assert fetch(server, folder) == MODEL and server.large.sent == len(MODEL)
    assert server.large.requests[-1].headers["If-Range"] in validators.values()


def test_new_version_in_another_process_begins_again(server: LoopbackHub, folder: pathlib.Path) -> None:
    server.large.blobs["x"], server.large.drops = MODEL, [500_000, 0, 0, 0, 0, 0]
    with pytest.raises(DownloadFailed):
        fetch(server, folder)
    server.large.blobs["x"] = OTHER
    assert fetch(server, folder) == OTHER


class Partial(LoopbackServer):
    """Sends a part first, although nobody asked for one, then the file."""

    def route(self, request: object) -> None:
        if len(self.requests) == 1:
            reply(request, 206, {"Content-Range": "bytes 0-3/9"}, b"GGUF")
        else:
            reply(request, 200, {"ETag": '"a"'}, b"GGUF-DATA")


def test_part_of_a_file_that_was_not_asked_for_is_not_taken_for_the_file(folder: pathlib.Path) -> None:
    server = Partial()
    try:
        Downloader(NetworkSettings({}), lambda seconds: None).fetch(f"{server.url}/x", folder / "x")
        assert (folder / "x").read_bytes() == b"GGUF-DATA"
    finally:
        server.stop()


class Scripted(LoopbackServer):
    """Calls `answer_to` with each request and its number."""

    def __init__(self, answer_to: Callable[[object, int], None]) -> None:
        self.answer_to = answer_to
        super().__init__()

    def route(self, request: object) -> None:
        self.answer_to(request, len(self.requests))


@contextlib.contextmanager
def scripted(answer_to: Callable[[object, int], None]) -> Iterator[Scripted]:
    server = Scripted(answer_to)
    try:
        yield server
    finally:
        server.stop()


def test_weak_tags_that_differ_are_two_versions_even_with_the_same_date(folder: pathlib.Path) -> None:
    """A server that ignores If-Range; the file is replaced after the first reply, within its second or with its old date."""
    date = dated(1000)

    def answer(request: object, number: int) -> None:
        if number == 1:
            reply(request, 200, {"ETag": 'W/"x"', **date}, MODEL, 500_000)
        elif request.headers.get("Range"):
            reply(request, 206, {"ETag": 'W/"y"', "Content-Range": f"bytes 500000-{len(OTHER) - 1}/{len(OTHER)}", **date}, OTHER[500_000:])
        else:
            reply(request, 200, {"ETag": 'W/"y"', **date}, OTHER)

    with scripted(answer) as server, Downloader(NetworkSettings({}), lambda seconds: None) as downloader:
        downloader.fetch(f"{server.url}/x", folder / NAME)
        assert (folder / NAME).read_bytes() == OTHER and len(server.requests) == 3


@pytest.mark.parametrize("restart", ["other version", "no rest", "no ranges", "a byte more each time"])
def test_server_that_never_sends_the_rest_is_given_up(restart: str, folder: pathlib.Path) -> None:
    def answer(request: object, number: int) -> None:
        if number > 60:
            reply(request, 200, {"ETag": '"x"'}, MODEL)  # so that a test that fails ends
        elif request.headers.get("Range") and restart == "other version":
            reply(request, 206, {"ETag": '"y"', "Content-Range": f"bytes 500000-{len(MODEL) - 1}/{len(MODEL)}"}, MODEL[500_000:])
        elif request.headers.get("Range") and restart == "no rest":
            reply(request, 416)
        else:
            reply(request, 200, {"ETag": '"x"'}, MODEL, 500_000 + (number if restart == "a byte more each time" else 0))

    with scripted(answer) as server, Downloader(NetworkSettings({}), lambda seconds: None) as downloader:
        with pytest.raises(DownloadFailed):
            downloader.fetch(f"{server.url}/x", folder / NAME)
        assert len(server.requests) < 20 and not (folder / NAME).exists()


@pytest.mark.parametrize("coding", ["Identity", "", "identity, IDENTITY"])
def test_coding_that_changes_nothing_is_accepted(coding: str, folder: pathlib.Path) -> None:
    listed = {"id": "a/b", "sha": "0" * 40, "siblings": [{"rfilename": NAME, "size": 4}]}

    def answer(request: object, number: int) -> None:
        body = json.dumps(listed).encode() if "/api/" in request.path else MODEL
        reply(request, 200, {"Content-Encoding": coding, "Content-Type": "application/json"}, body)

    with scripted(answer) as server, Downloader(NetworkSettings({}), lambda seconds: None) as downloader:
        downloader.fetch(f"{server.url}/x", folder / NAME)
        assert (folder / NAME).read_bytes() == MODEL
        assert Hub({"HF_ENDPOINT": server.url}, downloader).repo("a/b").files


def test_room_is_checked_while_a_file_of_unknown_size_comes(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def usage(path: pathlib.Path) -> object:
        there = sum(one.stat().st_size for one in path.iterdir())
        return type("Usage", (), {"free": (100 << 20) - there})

    monkeypatch.setattr("edge_agent.fetch.download.shutil.disk_usage", usage)

    def answer(request: object, number: int) -> None:
        request.send_response(200)
        request.end_headers()
        for _ in range(200):
            request.wfile.write(bytes(1 << 20))

    with scripted(answer) as server, Downloader(NetworkSettings({}), lambda seconds: None) as downloader:
        with pytest.raises(StorageError, match="size is not known"):
            downloader.fetch(f"{server.url}/x", folder / NAME)
        assert left_over(folder) == []


def test_which_version_continues_which() -> None:
    assert Version(None, "then", 5, "x").is_continued_by(Version(None, "then", 5, "x"))
    assert not Version(None, "then", 5, "x").is_continued_by(Version(None, "then", 5, "y"))
    assert Version('"a"', "then", 5).is_continued_by(Version('"a"', None, 5))
    assert Version(None, "then", 5).is_continued_by(Version('"b"', "then", None))
    for other in (Version('"b"', "then", 5), Version(None, "then", 5), Version('"a"', "then", 6)):
        assert not Version('"a"', "then", 5).is_continued_by(other)
    assert not Version(None, None, 5).is_continued_by(Version(None, None, 5))


# --- without locks


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_locks_the_file_is_fetched_and_continued(code: int, server: LoopbackHub, folder: pathlib.Path) -> None:
    def no_locks(file: object) -> bool:
        raise OSError(code, os.strerror(code))

    server.large.blobs["x"], server.large.drops = MODEL, [500_000, 0, 0, 0, 0, 0]
    with pytest.raises(DownloadFailed, match="continues from there"):
        fetch(server, folder, no_locks)
    (left,) = folder.glob(".*.part")
    alive, dead = left.name.replace(str(os.getpid()), "1"), left.name.replace(str(os.getpid()), str((1 << 22) + 1))
    left.rename(folder / alive)
    server.large.drops = [100_000, 0, 0, 0, 0, 0]
    with pytest.raises(DownloadFailed):
        fetch(server, folder, no_locks)  # a process that lives keeps its own
    assert (folder / alive / NAME).stat().st_size == 500_000
    (folder / left.name / NAME).unlink()
    (folder / left.name / "version").unlink()
    (folder / left.name).rmdir()
    (folder / alive).rename(folder / dead)
    sent = server.large.sent
    assert fetch(server, folder, no_locks) == MODEL and server.large.sent == sent + len(MODEL) - 500_000
    assert left_over(folder) == [NAME]


def test_lock_that_fails_for_another_reason_is_reported(server: LoopbackHub, folder: pathlib.Path) -> None:
    def broken(file: object) -> bool:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(Exception, match="Input/output error"):
        fetch(server, folder, broken)


# --- replies that grow in the memory


def bomb(n_layers: int) -> bytes:
    data = bytes(64 << 20)
    for _ in range(n_layers):
        data = gzip.compress(data, 1)
    return data


class Bomber(LoopbackServer):
    """Redirects with a packed body, or answers a list with one."""

    def __init__(self, status: int, n_layers: int) -> None:
        self.status, self.body = status, bomb(n_layers)
        self.encoding = ", ".join(["gzip"] * n_layers)
        super().__init__()

    def route(self, request: object) -> None:
        if request.path == "/there":
            reply(request, 200, {"ETag": '"a"'}, MODEL)
        else:
            reply(request, self.status, {"Content-Encoding": self.encoding, "Location": "/there"}, self.body)


@pytest.mark.parametrize("n_layers", [1, 2])
def test_packed_body_of_a_redirect_is_not_unpacked(n_layers: int, folder: pathlib.Path) -> None:
    bomber = Bomber(302, n_layers)
    tracemalloc.start()
    try:
        with Downloader(NetworkSettings({}), lambda seconds: None) as downloader:
            downloader.fetch(f"{bomber.url}/x", folder / NAME)
        assert (folder / NAME).read_bytes() == MODEL and tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
        bomber.stop()


@pytest.mark.parametrize("status", [200, 302, 404, 500])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_packed_list_is_refused_before_it_is_unpacked(status: int, n_layers: int) -> None:
    bomber = Bomber(status, n_layers)
    tracemalloc.start()
    try:
        with Hub({"HF_ENDPOINT": bomber.url}, Downloader(NetworkSettings({}), lambda seconds: None)) as hub:
            with pytest.raises(DownloadFailed, match="compressed list"):
                hub.repo("a/b")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
        bomber.stop()
