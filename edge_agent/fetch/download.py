"""Fetches bytes over HTTP: resumed after a drop, checked before they have a name.

Owns the request, its redirects and the unfinished file; knows nothing of the Hub or of models. Invariants: a file appears
under its name only when its size and hash are right and the caller's own check passed; the token is sent to the host that
it was given for and no other; nothing of an address is logged.

An unfinished file lies in a folder beside its target (`.KEY.part`), which one process at a time holds by a lock.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import httpx

from edge_agent import __version__
from edge_agent.core.errors import DownloadFailed, StorageError
from edge_agent.core.files import not_written, put_in_place, try_lock
from edge_agent.core.terminal import Progress

MAX_JSON_BYTES = 32 << 20
MAX_BYTES = 64 << 30
MAX_REDIRECTS = 5
TRIES = 5  # in a row without one new byte
SPARE_BYTES = 64 << 20  # of disk that a download leaves free
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_AGAIN = (408, 425, 429, 500, 502, 503, 504)  # the server may answer later

logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it writes full URLs, which may be signed


class Refused(Exception):
    """The server said no; `code` and `message` are the Hub's words (X-Error-Code, X-Error-Message), if it said any."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.code = response.headers.get("x-error-code", "")
        self.message = response.headers.get("x-error-message", "")
        super().__init__(f"HTTP {self.status}")


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known of a file beforehand; `git_sha1` is git's name for it (the hash of "blob LENGTH\\0" and the bytes)."""

    bytes: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None


class Downloader:
    """Requests with one client. `transport` replaces httpx's own, and `pause` the waiting, in tests. Close it when done."""

    def __init__(
        self, token: str | None = None, transport: httpx.BaseTransport | None = None, pause: Callable[[float], None] = time.sleep
    ) -> None:
        agent = f"edge-agent/{__version__}"
        self._client = httpx.Client(transport=transport, timeout=_TIMEOUT, follow_redirects=False, headers={"User-Agent": agent})
        self._token, self._pause = token, pause

    def __enter__(self) -> Downloader:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def json(self, url: str, with_token: bool = False) -> Any:
        """What the JSON at an address says. Raises `DownloadFailed`, or `Refused`."""

        def read() -> bytes:
            with self._open(url, {}, with_token) as response:
                data = bytearray()
                for chunk in response.iter_bytes():
                    data += chunk
                    if len(data) > MAX_JSON_BYTES:
                        raise DownloadFailed(f"{_host(url)} sent over {MAX_JSON_BYTES} bytes where a list was asked for.")
                return bytes(data)

        data = self._persist(url, read, lambda trouble: None)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise DownloadFailed(f"What {_host(url)} sent is no JSON (a captive portal, perhaps); check the network.") from error

    def fetch(
        self,
        url: str,
        target: pathlib.Path,
        expected: Expected | None = None,
        with_token: bool = False,
        check: Callable[[pathlib.Path, str], None] = lambda path, sha256: None,
        report: Callable[[Progress], None] = lambda progress: None,
    ) -> str:
        """Fetch `url` to `target`, from where an earlier attempt stopped; gives its sha256.

        `check` sees the whole file and its sha256 before it gets its name; what it raises refuses the file. Raises
        `DownloadFailed` when the network gives out (what came is kept for the next time) or the bytes are not the
        expected ones (nothing is kept); `Refused`; `StorageError`.
        """
        expected = expected or Expected()
        try:
            with _staging(target, url, expected) as folder:
                part = folder / target.name
                self._fill(url, part, expected, with_token, report)
                try:
                    sha256 = verified(part, expected, _host(url))
                    check(part, sha256)
                except BaseException as error:
                    if not isinstance(error, KeyboardInterrupt):
                        shutil.rmtree(folder, ignore_errors=True)
                    raise
                put_in_place(part, target)
                shutil.rmtree(folder, ignore_errors=True)
                return sha256
        except OSError as error:
            raise not_written(target, error) from error

    def _fill(self, url: str, part: pathlib.Path, expected: Expected, with_token: bool, report: Callable[[Progress], None]) -> None:
        """Requests until the file is as long as it should be."""

        def read() -> None:
            done = part.stat().st_size if part.exists() else 0
            if expected.bytes is None or done != expected.bytes:
                self._append(url, part, done, expected, with_token, report)

        def trouble(words: str) -> None:
            report(Progress(part.name, part.stat().st_size if part.exists() else 0, expected.bytes, words))

        try:
            self._persist(url, read, trouble, lambda: part.stat().st_size if part.exists() else 0)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                shutil.rmtree(part.parent, ignore_errors=True)  # a full disk stops more than this
            raise

    def _append(
        self, url: str, part: pathlib.Path, done: int, expected: Expected, with_token: bool, report: Callable[[Progress], None]
    ) -> None:
        """One request for what is missing behind the first `done` bytes."""
        known = expected.sha256 or expected.git_sha1
        seen = part.with_name("validator")  # what says that a file without a known hash is still the same one
        validator = None if known else _text(seen)
        headers = {"Accept-Encoding": "identity"}
        if done and (known or validator):
            headers |= {"Range": f"bytes={done}-"} | ({"If-Range": validator} if validator else {})
        try:
            opened = self._open(url, headers, with_token)
            with opened as response, part.open("ab") as file:
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise DownloadFailed(f"{_host(url)} sends the file compressed, against what was asked; fetch it in another way.")
                if response.status_code == 206 and _range_start(response) != done:
                    raise httpx.RemoteProtocolError("another range than asked for")
                if response.status_code != 206:
                    file.truncate(done := 0)
                    file.seek(0)
                total = _total(response, done)
                if expected.bytes and total not in (None, expected.bytes):
                    hint = " (a Git LFS pointer, perhaps)" if (total or 0) < 1024 else ""
                    raise _Changed(f"{_host(url)} announces '{part.name}' with {total} bytes{hint}, and {expected.bytes} were expected")
                if not known:
                    seen.write_text(_validator(response) or "")
                _check_room(part, expected.bytes or total, done)
                limit = expected.bytes or total or MAX_BYTES
                for chunk in response.iter_raw():
                    done += len(chunk)
                    if done > limit:
                        raise _Changed(f"{_host(url)} sends more than the {limit} bytes that the file should have")
                    file.write(chunk)
                    report(Progress(part.name, done, expected.bytes or total))
                if done < (expected.bytes or total or 0):
                    raise httpx.RemoteProtocolError("the connection ended early")
        except Refused as error:
            if error.status != 416:
                raise
            part.unlink(missing_ok=True)  # longer than the file is now: from the start
            raise httpx.RemoteProtocolError("the rest that was asked for is not there") from error
        except _Changed as error:
            part.unlink(missing_ok=True)
            raise DownloadFailed(f"{error}; nothing was kept, so try again, or elsewhere.") from error

    def _persist(self, url: str, request: Callable[[], Any], trouble: Callable[[str], None], n_bytes: Callable[[], int] = lambda: 0) -> Any:
        """The result of a request, tried again after a drop until it succeeds, or `TRIES` in a row brought nothing new."""
        failures, before = 0, n_bytes()
        while True:
            try:
                return request()
            except (httpx.RequestError, httpx.InvalidURL, UnicodeError, _Later) as error:  # UnicodeError: a host that DNS cannot ask for
                words = str(error).split("\n")[0][:120] or type(error).__name__
                words = "no host is called so" if isinstance(error, UnicodeError) else words
                failures = 0 if n_bytes() > before else failures + 1
                before = n_bytes()
                if failures >= TRIES or isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | UnicodeError):
                    kept = "; what came is kept, and the same command goes on from there" if before else ""
                    raise DownloadFailed(f"{_host(url)} cannot be reached ({words}); check the network{kept}.") from error
                trouble(words)
                self._pause(error.seconds if isinstance(error, _Later) and error.seconds else min(30.0, 0.5 * 2**failures))

    @contextlib.contextmanager
    def _open(self, url: str, headers: dict[str, str], with_token: bool) -> Iterator[httpx.Response]:
        """The response to a GET, redirects followed; the token goes to the first host only."""
        first = httpx.URL(url)
        at = first
        for _ in range(MAX_REDIRECTS + 1):
            same_host = (at.scheme, at.host, at.port) == (first.scheme, first.host, first.port)
            secret = {"Authorization": f"Bearer {self._token}"} if with_token and self._token and same_host else {}
            with self._client.stream("GET", at, headers=headers | secret) as response:
                if response.has_redirect_location:
                    at = _following(at, response)
                    continue
                if response.status_code in _AGAIN:
                    raise _Later(response)
                if response.status_code not in (200, 206):
                    raise Refused(response)
                yield response
                return
        raise DownloadFailed(f"{first.host} leads from one address to the next, over {MAX_REDIRECTS} times; refused.")


def _following(at: httpx.URL, response: httpx.Response) -> httpx.URL:
    """Where a redirect leads; raises `DownloadFailed` if that is no address, or less safe than this one."""
    try:
        following = httpx.URL(urljoin(str(at), response.headers["location"]))
    except (httpx.InvalidURL, ValueError) as error:
        raise DownloadFailed(f"{at.host} leads to what is no address; refused.") from error
    if following.scheme != "https" and (following.scheme != "http" or at.scheme == "https"):
        raise DownloadFailed(f"{at.host} leads to an address that is not https; refused.")
    return following


class _Later(Exception):
    """The server may answer later; `seconds` is what it asks to wait, if it says so in seconds and is not asking too much."""

    def __init__(self, response: httpx.Response) -> None:
        text = response.headers.get("retry-after", "")
        self.seconds = min(60.0, float(text)) if text.isascii() and text.isdigit() else None
        super().__init__(f"HTTP {response.status_code}")


class _Changed(Exception):
    """The file is not what was announced."""


def verified(path: pathlib.Path, expected: Expected, origin: str) -> str:
    """The sha256 of a file, whose size and hash are as expected; raises `DownloadFailed`."""
    size = path.stat().st_size
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
            if expected.git_sha1:
                sha1.update(chunk)
    found, wanted = (sha1.hexdigest(), expected.git_sha1) if expected.git_sha1 else (sha256.hexdigest(), expected.sha256)
    if expected.bytes not in (None, size):
        raise DownloadFailed(f"'{path.name}' from {origin} has {size} bytes, and {expected.bytes} were expected; nothing was kept.")
    if wanted and found != wanted:
        raise DownloadFailed(
            f"'{path.name}' from {origin} is not the file that was expected (hash {found[:16]}…, not {wanted[:16]}…); nothing was kept, so "
            "try again, or ask who publishes it."
        )
    return sha256.hexdigest()


@contextlib.contextmanager
def _staging(target: pathlib.Path, url: str, expected: Expected) -> Iterator[pathlib.Path]:
    """The folder of the unfinished file, for this process alone: another address or hash has another one."""
    key = hashlib.sha256(json.dumps([url, expected.sha256 or expected.git_sha1]).encode()).hexdigest()[:16]
    folder = target.parent / f".{key}.part"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        if not try_lock(lock):
            raise DownloadFailed(f"Another process is fetching '{target.name}' right now; wait for it.")
        if not os.fstat(lock.fileno()).st_nlink:  # it has finished in the moment before, and removed the folder with the lock
            raise DownloadFailed(f"Another process has fetched '{target.name}' just now; run the same command again.")
        try:
            yield folder
        finally:
            part = folder / target.name
            if not part.exists() or part.stat().st_size == 0:
                shutil.rmtree(folder, ignore_errors=True)


def _check_room(part: pathlib.Path, total: int | None, done: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - done + SPARE_BYTES > free:
        raise StorageError(
            f"'{part.name}' needs {(total - done) / 1e6:,.0f} MB more and the disk has {free / 1e6:,.0f} MB free; make room for it first."
        )


def _range_start(response: httpx.Response) -> int | None:
    """Where the bytes of a 206 begin."""
    unit, _, rest = response.headers.get("content-range", "").partition(" ")
    return _number(rest.partition("-")[0]) if unit == "bytes" else None


def _total(response: httpx.Response, done: int) -> int | None:
    """How long the whole file is, as the response says."""
    length = _number(response.headers.get("content-length", ""))
    return None if length is None else done + length


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _validator(response: httpx.Response) -> str | None:
    """What may stand in If-Range: a strong ETag, or the time of the last change."""
    etag = str(response.headers.get("etag", ""))
    found = etag if etag.startswith('"') else response.headers.get("last-modified")
    return found if found and found.isascii() else None


def _text(path: pathlib.Path) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text() or None
    return None


def _host(url: str) -> str:
    """The host of an address, for a message: no path, no signature, no password."""
    try:
        return httpx.URL(url).host or "the address"
    except httpx.InvalidURL:
        return "the address"
