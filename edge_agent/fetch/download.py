"""Fetches bytes over HTTP: resumed after a drop or a kill, and checked before they get a name.

Owns requests for files; knows nothing of the Hub or of models. Invariants: a file appears under its name only when its size and
hash are right and the caller's own check passed; a file without a known hash is continued only if the server says that it is
still the same version; the token goes to the host that it is meant for and no other; no address is logged.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, TypeVar

import httpx2

from edge_agent.core.errors import DownloadFailed, StorageError
from edge_agent.core.files import not_written, put_in_place, try_lock
from edge_agent.core.terminal import Progress
from edge_agent.fetch.connection import MAX_REDIRECTS, NetworkSettings, is_encoded
from edge_agent.fetch.unfinished import TryLock, begin, load_version, start_of, unfinished, version_of

MAX_BYTES = 64 << 30
TRIES = 5  # in a row without one new byte
RESTARTS = 5  # from the first byte, because the server has another version or does not send the rest
SPARE_BYTES = 64 << 20  # disk space that a download leaves free
BLOCK_BYTES = 16 << 20  # size of one request to another source: a kill loses at most one block
HEAD_BYTES = 256 << 10  # what the caller may look at before the rest is fetched
BUSY = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses of a server that may answer later

Blocks = Callable[[int, int], bytes]
Result = TypeVar("Result")


class Refused(Exception):
    """The server refused. `response` has its status and the headers in which the Hub gives the reason, but no body."""

    def __init__(self, response: httpx2.Response) -> None:
        kept = [(name, value) for name, value in response.headers.items() if name in ("x-error-code", "x-error-message")]
        self.response = httpx2.Response(response.status_code, headers=kept, request=response.request)
        self.status = response.status_code
        super().__init__(f"HTTP {self.status}")


class BlocksFailed(Exception):
    """A source other than plain HTTP failed; the message says why in a few words."""


class ServerBusy(Exception):
    """The server may answer later; `seconds` is how long it asks to wait, if it says so in seconds and the number is not too large."""

    def __init__(self, response: httpx2.Response) -> None:
        text = response.headers.get("retry-after", "")
        self.seconds = min(60.0, float(text)) if text.isascii() and text.isdigit() else None
        super().__init__(f"HTTP {response.status_code}")


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known about a file before the download; `git_sha1` is git's name for it (the hash of "blob LENGTH\\0" and the bytes)."""

    bytes: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None


class Downloader:
    """Downloads with one HTTP client. Tests replace `pause` (between tries) and `take_lock`. Close it when done."""

    def __init__(
        self,
        connection: NetworkSettings | None = None,
        pause: Callable[[float], None] = time.sleep,
        take_lock: TryLock = try_lock,
    ) -> None:
        self.connection = connection or NetworkSettings()
        self._pause, self._take_lock = pause, take_lock
        self._open_client: httpx2.Client | None = None

    def __enter__(self) -> Downloader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open_client is not None:
            self._open_client.close()
            self._open_client = None

    @property
    def _client(self) -> httpx2.Client:
        if self._open_client is None:  # made late: to read the certificates takes longer than to find a file that is already here
            self._open_client = self.connection.client()
        return self._open_client

    def fetch(
        self,
        url: str,
        target: pathlib.Path,
        expected: Expected | None = None,
        token: str | None = None,
        check: Callable[[pathlib.Path, str], None] = lambda path, sha256: None,
        report: Callable[[Progress], None] = lambda progress: None,
        blocks: Blocks | None = None,
        look: Callable[[bytes], None] = lambda head: None,
    ) -> str:
        """Fetch `url` to `target`, from where an earlier attempt stopped; returns its sha256.

        `blocks` is another source of the same bytes, from START up to END. It is asked first, if size and hash are known; when
        it fails, plain HTTP continues from there. `look` gets the first `HEAD_BYTES` as soon as they are here, unless the file is
        shorter; `check` gets the whole file and its sha256 before it gets its name: what they raise refuses the file. Raises
        `DownloadFailed` when the network fails (what came is kept for the next time) or the bytes are not the expected ones (nothing
        is kept); `Refused`; `StorageError`.
        """
        expected = expected or Expected()
        try:
            with unfinished(target, _key(url, expected), self._take_lock) as folder:
                part = folder / target.name
                came = _Came(part, look, report)
                with _cleaned_when_full(folder):
                    if blocks and expected.bytes and (expected.sha256 or expected.git_sha1):
                        self._fill_from_blocks(blocks, part, expected.bytes, came)
                    self._fill(url, part, expected, token, came)
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

    def retry(
        self,
        host: str,
        request: Callable[[], Result],
        trouble: Callable[[str], None] = lambda words: None,
        n_bytes: Callable[[], int] = lambda: 0,
        tries: int = TRIES,
    ) -> Result:
        """The result of a request that is repeated after a drop, until so many `tries` in a row brought no new byte.

        `trouble` gets the reason before each pause; `n_bytes` counts what came. Raises `DownloadFailed`, and what `request` raises
        besides errors of the network and `ServerBusy`.
        """
        failures, before = 0, n_bytes()
        while True:
            try:
                return request()
            except (httpx2.RequestError, httpx2.InvalidURL, UnicodeError, ServerBusy) as error:  # UnicodeError: no name for DNS
                if isinstance(error, httpx2.TooManyRedirects):
                    raise DownloadFailed(f"{host} redirects over {MAX_REDIRECTS} times; the download was refused.") from error
                words = str(error).split("\n")[0][:120] or type(error).__name__
                words = "that is not the name of a host" if isinstance(error, UnicodeError) else words
                failures = 0 if n_bytes() > before else failures + 1
                before = n_bytes()
                if failures >= tries or isinstance(error, httpx2.InvalidURL | httpx2.UnsupportedProtocol | UnicodeError):
                    kept = "; what came is kept, and the same command continues from there" if before else ""
                    raise DownloadFailed(f"{host} cannot be reached ({words}); {self.connection.advice}{kept}.") from error
                trouble(words)
                self._pause(error.seconds if isinstance(error, ServerBusy) and error.seconds else min(30.0, 0.5 * 2**failures))

    def _fill_from_blocks(self, blocks: Blocks, part: pathlib.Path, size_bytes: int, came: _Came) -> None:
        """Append what `blocks` returns, until the file is complete or the source fails."""
        done = _size(part)
        with part.open("ab") as file:
            while done < size_bytes:
                _check_room(part, size_bytes, done)
                try:
                    block = blocks(done, min(done + BLOCK_BYTES if done else HEAD_BYTES, size_bytes))
                except BlocksFailed as error:
                    came.report(Progress(part.name, done, size_bytes, f"{error} (now over plain HTTP)"))
                    return
                file.write(block)
                file.flush()
                done += len(block)
                came(done, size_bytes)

    def _fill(self, url: str, part: pathlib.Path, expected: Expected, token: str | None, came: _Came) -> None:
        """Make requests until the file is as long as it should be."""

        def read() -> None:
            done, size = _size(part), expected.bytes
            if size is None and done and (version := load_version(part)):
                size = version.bytes  # an earlier process may have fetched everything
            if size is None or done != size:
                self._append(url, part, done, expected, token, came)

        def trouble(words: str) -> None:
            came.report(Progress(part.name, _size(part), expected.bytes, words))

        self.retry(_host(url), read, trouble, lambda: _size(part))

    def _append(self, url: str, part: pathlib.Path, done: int, expected: Expected, token: str | None, came: _Came) -> None:
        """Make one request for the bytes after the first `done`."""
        known = expected.sha256 or expected.git_sha1
        here = None if known or not done else load_version(part)
        headers = {"Accept-Encoding": "identity"}
        if done and (known or (here and here.condition)):
            headers |= {"Range": f"bytes={done}-"} | ({"If-Range": here.condition} if here and here.condition else {})
        try:
            opened = self._open(url, headers, token)
            with opened as response, part.open("ab") as file:
                if is_encoded(response.headers):
                    raise DownloadFailed(
                        f"{_host(url)} sends the file compressed, although we did not ask for it; download it in another way."
                    )
                version = version_of(response.status_code, response.headers)
                if response.status_code == 206 and ("Range" not in headers or start_of(response.headers) != done):
                    raise httpx2.RemoteProtocolError("the server sent a different range")
                if response.status_code == 206 and not known and not (here and here.is_continued_by(version)):
                    came.starts_again(_host(url), done)
                    part.unlink()
                    raise httpx2.RemoteProtocolError("the file on the server may have changed, so it is fetched from its start")
                if response.status_code != 206:
                    came.starts_again(_host(url), done)
                    done = 0
                    begin(part, file, version)
                total = version.bytes or (here.bytes if here else None)
                if expected.bytes and total not in (None, expected.bytes):
                    hint = " (a Git LFS pointer, perhaps)" if (total or 0) < 1024 else ""
                    raise _Changed(f"{_host(url)} announces '{part.name}' with {total} bytes{hint}, but {expected.bytes} were expected")
                _check_room(part, expected.bytes or total, done)
                self._copy(response, file, part, done, expected.bytes or total, came)
        except Refused as error:
            if error.status != 416:
                raise
            came.starts_again(_host(url), done)
            part.unlink(missing_ok=True)  # longer than the file is now, so start again
            raise httpx2.RemoteProtocolError("the server does not have the rest of the file") from error
        except _Changed as error:
            part.unlink(missing_ok=True)
            raise DownloadFailed(f"{error}; nothing was kept; try again, or use another source.") from error

    def _copy(self, response: httpx2.Response, file: IO[bytes], part: pathlib.Path, done: int, size: int | None, came: _Came) -> None:
        """Append what comes after the first `done` bytes. Raises `_Changed` if it is more than `size`."""
        check_at = done + BLOCK_BYTES
        for chunk in response.iter_raw():
            done += len(chunk)
            if done > (size or MAX_BYTES):
                raise _Changed(f"{response.request.url.host} sends more than the expected {size or MAX_BYTES} bytes")
            if size is None and done >= check_at:  # there was nothing to check before
                file.flush()
                _check_room(part, None, done)
                check_at = done + BLOCK_BYTES
            file.write(chunk)
            came(done, size, file)
        if done < (size or 0):
            raise httpx2.RemoteProtocolError("the connection ended early")

    @contextlib.contextmanager
    def _open(self, url: str, headers: dict[str, str], token: str | None) -> Iterator[httpx2.Response]:
        """The response to a GET after its redirects; the client drops the token if a redirect leads to another host."""
        if token:
            headers = headers | {"Authorization": f"Bearer {token}"}
        request = self._client.build_request("GET", url, headers=headers)
        for _ in range(MAX_REDIRECTS + 1):
            response = self._client.send(request, stream=True, follow_redirects=False)
            try:
                if response.next_request is None:
                    if response.status_code in BUSY:
                        raise ServerBusy(response)
                    if response.status_code not in (200, 206):
                        raise Refused(response)
                    yield response
                    return
                request = response.next_request  # the body of a redirect is not read: packed, it could fill the memory
            finally:
                response.close()
        raise httpx2.TooManyRedirects("too many redirects", request=request)


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
        raise DownloadFailed(f"'{path.name}' from {origin} has {size} bytes, but {expected.bytes} were expected; nothing was kept.")
    if wanted and found != wanted:
        raise DownloadFailed(
            f"'{path.name}' from {origin} is not the file that was expected (hash {found[:16]}…, not {wanted[:16]}…); nothing was kept; "
            "try again, or ask its publisher."
        )
    return sha256.hexdigest()


def _key(url: str, expected: Expected) -> str:
    """The name of an unfinished file: a different address or hash is a different file."""
    return hashlib.sha256(json.dumps([url, expected.sha256 or expected.git_sha1]).encode()).hexdigest()[:16]


class _Came:
    """Called as bytes come: reports the progress, and shows the caller the start of the file once."""

    def __init__(self, part: pathlib.Path, look: Callable[[bytes], None], report: Callable[[Progress], None]) -> None:
        self._part, self._look, self.report = part, look, report
        self._looked = False
        self._restarts = 0

    def starts_again(self, host: str, n_bytes: int) -> None:
        """Count that the `n_bytes` that came are of no use. Raises `DownloadFailed` after `RESTARTS` times: it might never end."""
        self._restarts += n_bytes > 0
        if self._restarts > RESTARTS:
            raise DownloadFailed(
                f"{host} made us fetch '{self._part.name}' from its start {RESTARTS} times, so it never gets complete; "
                "try again later, or use another source."
            )

    def __call__(self, done: int, total: int | None, file: IO[bytes] | None = None) -> None:
        self.report(Progress(self._part.name, done, total))
        if self._looked or done < HEAD_BYTES:
            return
        if file:
            file.flush()
        self._looked = True
        with self._part.open("rb") as opened:
            head = opened.read(HEAD_BYTES)
        try:
            self._look(head)
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):
                shutil.rmtree(self._part.parent, ignore_errors=True)
            raise


@contextlib.contextmanager
def _cleaned_when_full(folder: pathlib.Path) -> Iterator[None]:
    """Remove the unfinished file if the disk is full: a full disk also stops other programs."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _size(path: pathlib.Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check_room(part: pathlib.Path, total: int | None, done: int) -> None:
    """Raises `StorageError` if the rest does not fit. Of a file of unknown size, nothing is kept then: it would hold the room."""
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - done + SPARE_BYTES > free:
        raise StorageError(
            f"'{part.name}' needs {(total - done) / 1e6:,.0f} MB more, but the disk has {free / 1e6:,.0f} MB free; free some space first."
        )
    if total is None and free < SPARE_BYTES:
        shutil.rmtree(part.parent, ignore_errors=True)
        raise StorageError(
            f"'{part.name}', whose size is not known, has over {done / 1e6:,.0f} MB, and the disk has only {free / 1e6:,.0f} MB free; "
            "free some space first."
        )


def _host(url: str) -> str:
    """The host of an address, for a message: no path, no signature, no password."""
    try:
        return httpx2.URL(url).host or "the address"
    except httpx2.InvalidURL:
        return "the address"
