"""The Hugging Face Hub's routes: what a repository holds at which commit, and where each file is.

Owns the protocol and the words for its refusals; the bytes are `download`'s. Honours HF_TOKEN, HF_ENDPOINT and
HF_HUB_OFFLINE. Invariant: what is fetched is one commit, each file checked against the hash that the Hub lists for it, and
no name that the Hub sends is used as a path before it was checked.

Routes: `/api/models/OWNER/NAME/revision/REV?blobs=true` lists files with sizes and hashes; `/OWNER/NAME/resolve/COMMIT/PATH`
is a file, which for large ones (Git LFS) leads on to another host. https://huggingface.co/docs/hub/api
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from edge_agent.core import settings
from edge_agent.core.errors import BadSetting, DownloadFailed, ModelError, ModelMissing
from edge_agent.core.terminal import Progress
from edge_agent.fetch.download import Downloader, Expected, Refused, verified
from edge_agent.model import pulled as pins
from edge_agent.model.pulled import Pulled

ENDPOINT = "https://huggingface.co"
MAIN = "main"

_REPO = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(?P<revision>[\w.-]{1,100}))?", re.ASCII)
_COMMIT, _SHA1, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")
_WEIGHTS = re.compile(r"(?:adapter_)?model(?:-\d{5}-of-\d{5})?\.safetensors")
_TRUE = ("1", "on", "yes", "true")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository: its path there, and what its bytes must be."""

    path: str
    expected: Expected


@dataclass(frozen=True, slots=True)
class Repo:
    """A repository at one commit; `kind` is `models` or `datasets`."""

    name: str
    revision: str
    files: tuple[HubFile, ...]
    kind: str = "models"

    @property
    def source(self) -> str:
        """What it is called in the list of what was pulled."""
        return f"{pins.HUB}{self.name}"


class Hub:
    """The Hub of `environment` (the process's own by default); `downloader` is given in tests. Close it when done."""

    def __init__(self, environment: Mapping[str, str] | None = None, downloader: Downloader | None = None) -> None:
        environment = os.environ if environment is None else environment
        self.endpoint = _endpoint(environment.get("HF_ENDPOINT") or ENDPOINT)
        self.is_offline = environment.get("HF_HUB_OFFLINE", "").lower() in _TRUE
        token = environment.get("HF_TOKEN")
        self.has_token = bool(token)
        self.downloader = downloader or Downloader(settings.checked("cloud_key", token, "HF_TOKEN") if token else None)

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self.downloader.__exit__()

    def repo(self, name: str, revision: str = MAIN, kind: str = "models") -> Repo:
        """What a repository holds. Raises `ModelMissing`, `ModelError` for a refusal, or `DownloadFailed`."""
        if self.is_offline:
            raise ModelMissing(f"HF_HUB_OFFLINE is set, and '{name}' is not on this device; unset it, or pull a file or a bundle.")
        try:
            answer = self.downloader.json(
                f"{self.endpoint}/api/{kind}/{name}/revision/{quote(revision, safe='')}?blobs=true", with_token=True
            )
            return _repo(name, kind, answer)
        except Refused as refused:
            raise self._sentence(refused, name, revision, kind) from refused

    def fetch(
        self,
        repo: Repo,
        file: HubFile,
        target: pathlib.Path,
        check: Callable[[pathlib.Path, str], None] = lambda path, sha256: None,
        report: Callable[[Progress], None] = lambda progress: None,
    ) -> str:
        """Fetch one file of a repository to `target`; gives its sha256. Raises as `Downloader.fetch`, and `ModelError`."""
        url = f"{self.endpoint}/{_space(repo.kind)}{repo.name}/resolve/{repo.revision}/{quote(file.path)}"
        try:
            return self.downloader.fetch(url, target, file.expected, with_token=True, check=check, report=report)
        except Refused as refused:
            raise self._sentence(refused, repo.name, repo.revision, repo.kind) from refused

    def _sentence(self, refused: Refused, name: str, revision: str, kind: str) -> Exception:
        """What a person can do about a refusal."""
        page = f"{self.endpoint}/{_space(kind)}{name}"
        if refused.code == "GatedRepo" or "gated" in refused.message.lower():
            if not self.has_token:
                return ModelError(
                    f"'{name}' is given only to those who accept its licence: sign in at {page}, accept it there, make a token that may "
                    f"read at {self.endpoint}/settings/tokens, set it as HF_TOKEN, and run the same command again."
                )
            return ModelError(
                f"The account of your HF_TOKEN has not accepted the licence of '{name}', or waits for its owner: accept it at {page} "
                "(and let a fine-grained token read gated repositories), then run the same command again."
            )
        if refused.status == 401 and self.has_token and "invalid" in refused.message.lower():
            return ModelError(f"The Hub does not know your HF_TOKEN; make a new one at {self.endpoint}/settings/tokens.")
        if refused.code == "RevisionNotFound":
            return ModelMissing(f"'{name}' has no revision '{revision}' on the Hub; check it at {page}.")
        if refused.code == "EntryNotFound":
            return ModelMissing(f"A file of '{name}' is no longer on the Hub; see {page}.")
        if refused.code == "RepoNotFound" or refused.status in (401, 404):
            token = "and whether your HF_TOKEN may read it" if self.has_token else "and set HF_TOKEN if it is private"
            return ModelMissing(f"There is no '{name}' on the Hub for you (HTTP {refused.status}); check the name at {page}, {token}.")
        if refused.status == 403:
            return ModelError(f"The Hub refuses '{name}' (HTTP 403); see {page}, and check what your HF_TOKEN may read.")
        return DownloadFailed(f"The Hub answered HTTP {refused.status} for '{name}'; try again later.")


def _space(kind: str) -> str:
    """What stands before a repository's name in an address."""
    return "" if kind == "models" else f"{kind}/"


def parse(text: str) -> tuple[str, str | None] | None:
    """`owner/name` or `owner/name@revision` as repository and revision; None if the text is neither."""
    match = _REPO.fullmatch(text)
    return (match["repo"], match["revision"]) if match and ".." not in text else None


def checkpoint(
    source: str, folder: pathlib.Path, hub: Hub, pin: str | None = None, report: Callable[[Progress], None] = lambda progress: None
) -> pathlib.Path:
    """The folder of a checkpoint or an adapter that the Hub has as `source` (owner/name or owner/name@revision).

    Fetched once to `folder`/OWNER/COMMIT/NAME, every file checked. Without a revision or a `pin` (a commit), the first
    fetch records the commit and later ones use the same; what is complete is not asked for again. Files that a conversion
    does not read are left out. Raises `ModelMissing`, `ModelError`, `DownloadFailed` or `StorageError`.
    """
    if not (parsed := parse(source)):
        raise ModelMissing(f"There is no folder '{source:.200}', and it is no repository of the Hub (owner/name); check the name.")
    name, wanted = parsed
    key = f"{pins.HUB}{source}"
    known = pins.find(folder, key)
    commit = next((record.revision for record in known.values()), None)
    owner, _, last = name.partition("/")  # a conversion is called by the folder's name
    if commit and all(_is_whole(folder / owner / commit / last / path, record) for path, record in known.items()):
        return folder / owner / commit / last
    repo = hub.repo(name, wanted or pin or commit or MAIN)
    chosen = [file for file in repo.files if _is_read(file.path)]
    if not any(file.path.endswith(".safetensors") for file in chosen):
        raise ModelMissing(f"'{name}' holds no safetensors on the Hub, so it cannot be converted; see {hub.endpoint}/{name}.")
    here, records = folder / owner / repo.revision / last, []
    for file in chosen:
        target = here / file.path
        sha256 = _already(target, file.expected) or hub.fetch(repo, file, target, report=report)
        records.append(Pulled(key, file.path, sha256, target.stat().st_size, repo.revision))
    pins.put(folder, records)
    return here


def _is_whole(path: pathlib.Path, record: Pulled) -> bool:
    return path.is_file() and path.stat().st_size == record.bytes


def _already(path: pathlib.Path, expected: Expected) -> str | None:
    """The sha256 of a file that an interrupted fetch had finished."""
    with contextlib.suppress(OSError, DownloadFailed):
        if expected.sha256 or expected.git_sha1:
            return verified(path, expected, "the Hub")
    return None


def _is_read(path: str) -> bool:
    """Whether a conversion reads this file of a checkpoint: texts beside the weights, and the weights."""
    if "/" in path:
        return False
    return _WEIGHTS.fullmatch(path) is not None or path.endswith((".json", ".jinja", ".model")) or path in ("merges.txt", "vocab.txt")


def _repo(name: str, kind: str, answer: Any) -> Repo:
    """The repository from the Hub's list, which is a stranger's until it was checked."""
    broken = DownloadFailed(f"What the Hub says of '{name}' is not understood (a captive portal or a proxy, perhaps); check the network.")
    if not isinstance(answer, dict) or not isinstance(commit := answer.get("sha"), str) or not _COMMIT.fullmatch(commit):
        raise broken
    siblings = answer.get("siblings")
    if not isinstance(siblings, list) or len(siblings) > 100_000:
        raise broken
    files = []
    for row in siblings:
        path = row.get("rfilename") if isinstance(row, dict) else None
        if not isinstance(path, str) or not is_safe(path):
            raise DownloadFailed(f"The Hub lists the file {path!r:.100} in '{name}', which is no plain path; refused.")
        files.append(HubFile(path, _expected(row)))
    return Repo(name, commit, tuple(files), kind)


def _expected(row: dict[str, Any]) -> Expected:
    """Size and hash of a listed file: the sha256 of a large one (LFS), git's sha1 of a small one."""
    lfs = row.get("lfs") if isinstance(row.get("lfs"), dict) else {}
    assert isinstance(lfs, dict)
    sha256, sha1, size = lfs.get("sha256"), row.get("blobId"), lfs.get("size", row.get("size"))
    return Expected(
        bytes=size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else None,
        sha256=sha256 if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else None,
        git_sha1=sha1 if not lfs and isinstance(sha1, str) and _SHA1.fullmatch(sha1) else None,
    )


def is_safe(path: str) -> bool:
    """Whether a path from outside stays inside the folder that it is put into, on every system."""
    parts = path.split("/")
    return 0 < len(path) <= 500 and path.isprintable() and not set(path) & set('\\:*?"<>|') and not {"", ".", ".."} & set(parts)


def _endpoint(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
    except ValueError as error:
        raise BadSetting(f"HF_ENDPOINT is no address; give one like {ENDPOINT}.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise BadSetting(f"HF_ENDPOINT is {parts.scheme}://{parts.hostname or ''}…; give an address like {ENDPOINT}.")
    return url.strip().rstrip("/")
