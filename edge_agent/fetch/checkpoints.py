"""The folder of a checkpoint or an adapter, for the converter: a local folder, or files that are fetched once from the Hub.

Owns which files a conversion reads, and where they are kept. Knows nothing of what they hold. Invariants: every file was
checked before it got its name; the first fetch of a source records its commit and hashes, and later ones use the same commit.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
from collections.abc import Callable

from edge_agent.core.config import loading
from edge_agent.core.errors import DownloadFailed, ModelMissing, ModelRefused
from edge_agent.core.terminal import Progress
from edge_agent.fetch import hub
from edge_agent.fetch.download import Expected, verified
from edge_agent.fetch.hub import Hub
from edge_agent.model import catalog, pulled
from edge_agent.model.pulled import Pulled

Report = Callable[[Progress], None]

_WEIGHTS = re.compile(r"(?:adapter_)?model(?:-\d{5}-of-\d{5})?\.safetensors")
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def checkpoint_folder(
    source: str, report: Report = lambda progress: None, folder: pathlib.Path | None = None, the_hub: Hub | None = None
) -> pathlib.Path:
    """The folder of a checkpoint or an adapter: `source` itself if it is a folder, otherwise its files from the Hub.

    `source` may be a folder, `owner/name`, `owner/name@revision` or a catalogue name; `folder` (by default in the cache)
    keeps what is fetched. Raises `ModelMissing`, `ModelRefused`, `ModelError`, `DownloadFailed` or `StorageError`.
    """
    local = local_path(source)
    if local and local.is_dir():
        if pointers := [path for path in local.glob("*.safetensors") if _is_lfs_pointer(path)]:
            raise ModelRefused(f"'{pointers[0]}' is a Git LFS pointer, not the weights; run `git lfs pull` in {local}.")
        return local
    entry = catalog.entries().get(source)
    name, pin = (entry.repo, entry.revision) if entry and entry.repo else (source, None)
    with the_hub or Hub() as opened:
        return _from_hub(name, folder or loading.load().cache_folder / "checkpoints", opened, pin, report)


def local_path(text: str) -> pathlib.Path | None:
    """The path that a text names; None if it cannot be a path here (unknown home folder, or too long)."""
    try:
        path = pathlib.Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError):
        return None
    return path


def _from_hub(source: str, folder: pathlib.Path, the_hub: Hub, pin: str | None, report: Report) -> pathlib.Path:
    """The folder `folder`/OWNER/COMMIT/NAME with the files of `source` (owner/name or owner/name@revision) that are read.

    The commit is the revision's, else `pin`, else the recorded one, else the newest. A complete folder costs no request.
    """
    if not (parsed := hub.parse(source)):
        raise ModelMissing(f"'{source:.200}' is neither a folder on this device nor a repository on the Hub (owner/name); check the name.")
    name, wanted = parsed
    key = f"{pulled.HUB}{source}"
    known = pulled.find(folder, key)
    commit = next((record.revision for record in known.values()), None)
    owner, _, last = name.partition("/")  # a conversion is named after its folder
    if commit and all(_is_complete(folder / owner / commit / last / path, record) for path, record in known.items()):
        return folder / owner / commit / last
    repo = the_hub.repo(name, wanted or pin or commit or hub.MAIN)
    chosen = [file for file in repo.files if _is_read(file.path)]
    if not any(file.path.endswith(".safetensors") for file in chosen):
        raise ModelMissing(f"'{name}' has no safetensors on the Hub, so it cannot be converted; see {the_hub.endpoint}/{name}.")
    here, records = folder / owner / repo.revision / last, []
    for file in chosen:
        target = here / file.path
        sha256 = _already_fetched(target, file.expected) or the_hub.fetch(repo, file, target, report=report)
        records.append(Pulled(key, file.path, sha256, target.stat().st_size, repo.revision))
    pulled.put(folder, records)
    return here


def _is_complete(path: pathlib.Path, record: Pulled) -> bool:
    return path.is_file() and path.stat().st_size == record.bytes


def _already_fetched(path: pathlib.Path, expected: Expected) -> str | None:
    """The sha256 of a file that an interrupted fetch had finished."""
    with contextlib.suppress(OSError, DownloadFailed):
        if expected.sha256 or expected.git_sha1:
            return verified(path, expected, "the Hub")
    return None


def _is_read(path: str) -> bool:
    """Whether a conversion reads this file of a checkpoint: the weights, and the text files next to them."""
    if "/" in path:
        return False
    return _WEIGHTS.fullmatch(path) is not None or path.endswith((".json", ".jinja", ".model")) or path in ("merges.txt", "vocab.txt")


def _is_lfs_pointer(path: pathlib.Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_LFS_POINTER)) == _LFS_POINTER
