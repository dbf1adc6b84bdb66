"""Reads files that the Hub keeps in Xet storage, a block at a time.

Owns the use of `hf_xet`; the token for the storage comes from huggingface-hub. Knows nothing of files on the disk. Invariants:
whatever goes wrong here ends in `BlocksFailed`, after which the same file can be fetched over plain HTTP; no telemetry is sent;
memory holds a few blocks at most, whatever the size of the file.

Why blocks: huggingface-hub has hf_xet write the whole file, which starts again after a kill, with buffers of up to 1.5 GB.
hf_xet also reads any range of a file, so a download can continue where an earlier process stopped. Measured over loopback with
256 MB: 1.1 s and a peak of 93 to 109 MB in blocks of 16 MiB, 1.0 s and 287 MB for the whole file.
"""

from __future__ import annotations

import importlib.util
import os
import queue
import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

from edge_agent.core.config import loading
from edge_agent.fetch.connection import USER_AGENT
from edge_agent.fetch.download import BlocksFailed

_ADDRESS = re.compile(r"\w+://\S+")  # it may be signed
BLOCK_S = 120.0  # on a slower line plain HTTP is better, because it keeps every byte


def is_installed() -> bool:
    """Whether hf_xet is installed: it has no build for 32-bit systems."""
    return importlib.util.find_spec("hf_xet") is not None


def _hf_xet() -> Any:
    """The library, set up so that it writes no logs or other files under the home folder."""
    os.environ.setdefault("HF_XET_LOG_DEST", os.devnull)  # read when it is imported
    os.environ.setdefault("HF_XET_CACHE", str(loading.load().cache_folder / "xet"))
    import hf_xet

    return hf_xet


class XetBlocks:
    """The blocks of one file. `file` is what huggingface-hub found (`xet_file_data`); `headers` go only to the Hub.

    Raises `BlocksFailed` if the Hub names another host for the token, which would then see ours.
    """

    def __init__(self, file: Any, size_bytes: int, endpoint: str, headers: Mapping[str, str], block_s: float = BLOCK_S) -> None:
        try:
            self._route = urljoin(f"{endpoint}/", file.refresh_route)
            is_endpoint = urlsplit(self._route)[:2] == urlsplit(endpoint)[:2]
        except ValueError as error:
            raise BlocksFailed("the Hub names a broken address for Xet's token") from error
        if not is_endpoint:
            raise BlocksFailed("the Hub names another host for Xet's token")
        self._hash, self._size_bytes, self._headers, self._block_s = file.file_hash, size_bytes, dict(headers), block_s
        self._hf_xet = _hf_xet()
        self._session: Any = None

    def __call__(self, start: int, end: int) -> bytes:
        """The bytes from `start` up to `end`. Raises `BlocksFailed`."""
        done: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()
        # in a thread: hf_xet ignores signals while it waits, and Ctrl-C must end a download at once
        threading.Thread(target=self._read, args=(start, end, done), daemon=True, name="xet").start()
        try:
            found = done.get(timeout=self._block_s)
        except queue.Empty as error:
            self._abort()
            raise BlocksFailed(f"Xet sent no block within {self._block_s:g} s") from error
        except KeyboardInterrupt:
            self._abort()
            raise
        if isinstance(found, BaseException):
            words = str(found).partition("\n")[0] or type(found).__name__
            raise BlocksFailed(f"Xet: {_ADDRESS.sub('(an address)', words):.120}") from found
        if len(found) != end - start:
            raise BlocksFailed("Xet sent a block of another size")
        return found

    def _read(self, start: int, end: int, done: queue.SimpleQueue[bytes | BaseException]) -> None:
        try:
            with self._group() as group:
                stream = group.download_stream(self._hf_xet.XetFileInfo(self._hash, self._size_bytes), start=start, end=end)
                done.put(b"".join(stream))
        except BaseException as error:  # every error goes to the waiting thread
            done.put(error)

    def _group(self) -> Any:
        from huggingface_hub.utils._xet import XetFileData, refresh_xet_connection_info

        if self._session is None:
            quiet = self._hf_xet.XetConfig().with_config("telemetry.enabled", False).with_config("client.retry_max_attempts", 2)
            self._session = self._hf_xet.XetSession(quiet)
        storage = refresh_xet_connection_info(file_data=XetFileData(self._hash, self._route), headers=self._headers)
        if not storage.endpoint.startswith(("https://", "http://")):
            raise BlocksFailed("the Hub names a storage that is not on the network")  # local:// would read this device's files
        return self._session.new_download_stream_group(
            endpoint=storage.endpoint,
            token=storage.access_token,
            token_expiry_unix_secs=storage.expiration_unix_epoch,
            custom_headers={"user-agent": USER_AGENT},
        )

    def _abort(self) -> None:
        if self._session is not None:
            self._session.sigint_abort()
            self._session = None
