"""The Hugging Face Hub: what a repository has at which commit, and each of its files, checked.

huggingface-hub speaks to the Hub: listing, revisions, tokens, gated repositories, Xet. Owns what it does not do: its answers are
checked, its refusals become sentences that say what to do, and each file's hash is checked before the file
gets its name (the library compares sizes). `download` brings the bytes, since it continues after a kill and the library does not.
Invariants: what is fetched is one commit; no name that the Hub sends is used as a path before it is checked; the token goes
only to the endpoint. Honours HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, HF_HUB_DISABLE_XET, and a token saved by `hf auth login`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edge_agent.core.config import settings
from edge_agent.core.errors import BadSetting, DownloadFailed, ModelError, ModelMissing
from edge_agent.core.terminal import Progress
from edge_agent.fetch import xet
from edge_agent.fetch.connection import NetworkSettings
from edge_agent.fetch.download import BUSY, TRIES, Blocks, BlocksFailed, Downloader, Expected, Refused, ServerBusy
from edge_agent.model import pulled

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

ENDPOINT = "https://huggingface.co"
MAIN = "main"
MAX_LIST_BYTES = 32 << 20
MAX_FILES = 100_000
_TIMEOUT_S = 30.0

_REPO = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(?P<revision>[\w.-]{1,100}))?", re.ASCII)
_COMMIT, _SHA1, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")
_TRUE = ("1", "on", "yes", "true")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository: its path there, and what its bytes must be."""

    path: str
    expected: Expected


@dataclass(frozen=True, slots=True)
class Repo:
    """A repository at one commit; `kind` is `models` or `datasets`.

    `architecture` (of its GGUF files) and `model_type` (of its checkpoint) are what the Hub read there, if it says so.
    """

    name: str
    revision: str
    files: tuple[HubFile, ...]
    kind: str = "models"
    architecture: str | None = None
    model_type: str | None = None

    @property
    def source(self) -> str:
        """Its name in the record of pulls."""
        return f"{pulled.HUB}{self.name}"


class Hub:
    """The Hub of `environment` (by default the process's own). Tests pass a `downloader`. Close it when done.

    huggingface-hub has one HTTP client a process, so with several Hubs the one that was used first last decides the proxies.
    """

    def __init__(self, environment: Mapping[str, str] | None = None, downloader: Downloader | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        self._is_own = environment is None
        self.endpoint = _endpoint(self._environment.get("HF_ENDPOINT") or ENDPOINT)
        self.is_offline = self._is_true("HF_HUB_OFFLINE")
        token = self._environment.get("HF_TOKEN")
        self._given_token = settings.checked("cloud_key", token.strip(), "HF_TOKEN") if token and token.strip() else None
        self.downloader = downloader or Downloader(NetworkSettings(self._environment))

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self.downloader.__exit__()
        if "_library" in self.__dict__:
            self._library.close_session()

    @property
    def has_token(self) -> bool:
        """Whether requests carry a token."""
        return self._token is not None

    def repo(self, name: str, revision: str = MAIN, kind: str = "models", tries: int = TRIES) -> Repo:
        """What a repository has. Raises `ModelMissing`, `ModelError` for a refusal, or `DownloadFailed` after so many tries."""
        if self.is_offline:
            raise ModelMissing(f"HF_HUB_OFFLINE is set, but '{name}' is not on this device; unset it, or pull a file or a bundle.")
        with self._translated(name, revision, kind):
            api = self._library.HfApi(self.endpoint, token=self._token or False)
            asked = {"revision": revision, "repo_type": kind.removesuffix("s"), "files_metadata": True, "timeout": _TIMEOUT_S}
            info = self._ask(name, lambda: api.repo_info(name, **asked), tries)
        return _repo(name, kind, info)

    def fetch(
        self,
        repo: Repo,
        file: HubFile,
        target: pathlib.Path,
        check: Callable[[pathlib.Path, str], None] = lambda path, sha256: None,
        report: Callable[[Progress], None] = lambda progress: None,
        look: Callable[[bytes], None] = lambda head: None,
    ) -> str:
        """Fetch one file of a repository to `target`; returns its sha256. Raises as `Downloader.fetch`, and `ModelError`."""
        kind = repo.kind.removesuffix("s")
        url = self._library.hf_hub_url(repo.name, file.path, repo_type=kind, revision=repo.revision, endpoint=self.endpoint)
        with self._translated(repo.name, repo.revision, repo.kind):
            blocks = self._xet_blocks(repo.name, url, file.expected)
            return self.downloader.fetch(url, target, file.expected, self._token, check, report, blocks, look)

    @functools.cached_property
    def _library(self) -> ModuleType:
        """huggingface-hub with our HTTP client, without telemetry and without logs, which would show full addresses and replies."""
        import huggingface_hub
        from huggingface_hub import constants

        constants.HF_HUB_DISABLE_TELEMETRY = True  # otherwise it asks the Hub which coding agent may run us
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        huggingface_hub.set_client_factory(lambda: self.downloader.connection.client(MAX_LIST_BYTES))
        return huggingface_hub

    @functools.cached_property
    def _token(self) -> str | None:
        """HF_TOKEN, or else what `hf auth login` saved, if this Hub is the process's own."""
        if self._given_token or not self._is_own or self._is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN"):
            return self._given_token
        try:
            saved = self._library.get_token()
        except (self._library.errors.OIDCError, OSError, ValueError) as error:
            raise BadSetting(f"The saved token of the Hub cannot be read ({error!s:.120}); run `hf auth login` again.") from error
        return settings.checked("cloud_key", saved, "The token that `hf auth login` saved") if saved else None

    def _ask(self, name: str, request: Callable[[], Any], tries: int = TRIES) -> Any:
        """The answer to a request of the library about a repository; repeats the request if the network fails or the Hub is busy."""
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        def once() -> Any:
            try:
                return request()
            except HfHubHTTPError as error:
                if error.response.status_code in BUSY:
                    raise ServerBusy(error.response) from error
                raise
            except HFValidationError as error:
                raise ModelMissing(f"'{name}' cannot be the name of a repository on the Hub; check its spelling.") from error
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                if isinstance(error, UnicodeError) and not isinstance(error, UnicodeDecodeError):
                    raise  # of the host's name
                raise _not_understood(name) from error

        return self.downloader.retry(urlsplit(self.endpoint).hostname or self.endpoint, once, tries=tries)

    def _xet_blocks(self, name: str, url: str, expected: Expected) -> Blocks | None:
        """How to read a file from Xet, if the Hub keeps it there.

        Only on a plain connection: hf_xet has its own rules for proxies and certificates.
        """
        if expected.sha256 is None or not expected.bytes or self._is_true("HF_HUB_DISABLE_XET"):
            return None
        if not self.downloader.connection.is_plain or not xet.is_installed():
            return None
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        asked = {"token": False, "headers": headers, "endpoint": self.endpoint, "timeout": _TIMEOUT_S}
        with contextlib.suppress(BlocksFailed, self._library.errors.HfHubHTTPError):  # a refusal is reported when the bytes are requested
            found = self._ask(name, lambda: self._library.get_hf_file_metadata(url, **asked))
            if found.xet_file_data is not None:
                return xet.XetBlocks(found.xet_file_data, expected.bytes, self.endpoint, headers)
        return None

    @contextlib.contextmanager
    def _translated(self, name: str, revision: str, kind: str) -> Iterator[None]:
        """Turn the library's refusals, and those of a plain download, into sentences."""
        from huggingface_hub.errors import HfHubHTTPError

        try:
            try:
                yield
            except Refused as refused:
                self._library.utils.hf_raise_for_status(refused.response)
                raise DownloadFailed(f"The Hub answered HTTP {refused.status} for '{name}'; try again later.") from refused
        except HfHubHTTPError as error:
            raise self._sentence(error, name, revision, kind) from error

    def _sentence(self, error: HfHubHTTPError, name: str, revision: str, kind: str) -> Exception:
        """What a person can do about a refusal."""
        from huggingface_hub import errors

        page, status = f"{self.endpoint}/{'' if kind == 'models' else f'{kind}/'}{name}", error.response.status_code
        says = (error.server_message or "").lower()
        if isinstance(error, errors.GatedRepoError):
            if not self.has_token:
                return ModelError(
                    f"'{name}' is only for people who accept its licence: sign in at {page} and accept it, create a token that can "
                    f"read at {self.endpoint}/settings/tokens, set it as HF_TOKEN, and run the same command again."
                )
            return ModelError(
                f"The account of your token has not accepted the licence of '{name}', or its owner has not approved it yet: accept it "
                f"at {page} (and let a fine-grained token read gated repositories), then run the same command again."
            )
        if status == 401 and self.has_token and "invalid" in says:
            return ModelError(f"The Hub does not know your token; create a new one at {self.endpoint}/settings/tokens and set HF_TOKEN.")
        if isinstance(error, errors.RevisionNotFoundError):
            return ModelMissing(f"'{name}' has no revision '{revision}' on the Hub; check it at {page}.")
        if isinstance(error, errors.EntryNotFoundError):
            return ModelMissing(f"A file of '{name}' is no longer on the Hub; see {page}.")
        if isinstance(error, errors.DisabledRepoError):
            return ModelError(f"'{name}' was disabled on the Hub; see {page}.")
        if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
            token = "and whether your token may read it" if self.has_token else "and set HF_TOKEN if it is private"
            return ModelMissing(f"The Hub has no '{name}' that you can read (HTTP {status}); check the name at {page}, {token}.")
        if status == 403:
            return ModelError(f"The Hub refuses '{name}' (HTTP 403); see {page}, and check what your token may read.")
        return DownloadFailed(f"The Hub answered HTTP {status} for '{name}'; try again later.")

    def _is_true(self, name: str) -> bool:
        return self._environment.get(name, "").lower() in _TRUE


def parse(text: str) -> tuple[str, str | None] | None:
    """`owner/name` or `owner/name@revision` as repository and revision; None if the text is neither."""
    match = _REPO.fullmatch(text)
    return (match["repo"], match["revision"]) if match and ".." not in text else None


def is_safe(path: str) -> bool:
    """Whether a path from outside stays inside the folder that it is put into, on every system."""
    parts = path.split("/")
    return 0 < len(path) <= 500 and path.isprintable() and not set(path) & set('\\:*?"<>|') and not {"", ".", ".."} & set(parts)


def _repo(name: str, kind: str, info: Any) -> Repo:
    """The repository, from what the library read; its fields have whatever the server sent."""
    if not isinstance(info.sha, str) or not _COMMIT.fullmatch(info.sha):
        raise _not_understood(name)
    if info.siblings is None or len(info.siblings) > MAX_FILES:
        raise _not_understood(name)
    files = []
    for row in info.siblings:
        if not isinstance(row.rfilename, str) or not is_safe(row.rfilename):
            raise DownloadFailed(f"The Hub lists a file {row.rfilename!r:.100} in '{name}', which is not a plain path; it was refused.")
        files.append(HubFile(row.rfilename, _expected(row)))
    about = [getattr(info, field, None) for field in ("gguf", "config")]
    found = [part.get(key) if isinstance(part, dict) else None for part, key in zip(about, ("architecture", "model_type"), strict=True)]
    architecture, model_type = (text if isinstance(text, str) and 0 < len(text) <= 40 and text.isprintable() else None for text in found)
    return Repo(name, info.sha, tuple(files), kind, architecture, model_type)


def _expected(row: Any) -> Expected:
    """Size and hash of a listed file: the sha256 of a large one (LFS), git's sha1 of a small one."""
    size, sha256 = (row.lfs.size, row.lfs.sha256) if row.lfs else (row.size, None)
    return Expected(
        bytes=size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else None,
        sha256=sha256 if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else None,
        git_sha1=row.blob_id if not row.lfs and isinstance(row.blob_id, str) and _SHA1.fullmatch(row.blob_id) else None,
    )


def _not_understood(name: str) -> DownloadFailed:
    return DownloadFailed(
        f"The Hub's answer about '{name}' makes no sense (it may come from a captive portal or a proxy); check the network."
    )


def _endpoint(text: str) -> str:
    """The address of the Hub, checked; raises `BadSetting`, without repeating a password."""
    url = text.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        is_plain = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_plain = False
    if not is_plain or "@" in url or "?" in url or "#" in url:
        shown = "" if "@" in url else f" is '{url:.100}', and that"
        raise BadSetting(f"HF_ENDPOINT{shown} is not a plain http or https address; write it like {ENDPOINT}.")
    return url
