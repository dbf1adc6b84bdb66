"""Brings a published model to this device: from the Hub, an address or a file, checked before it has its name.

Owns what `pull` means: where a name leads, which file is taken, what is recorded of it. Invariants: nothing appears in the
models folder that was not opened here once, in a process of its own; what was pulled before must be the same again, unless
an upgrade is asked for; a file that is here already costs no request.
"""

from __future__ import annotations

import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit

from edge_agent import catalog, gguf_check, hub, pins, trial
from edge_agent.catalog import Entry
from edge_agent.download import Progress, Refused, not_written, settle
from edge_agent.errors import DownloadFailed, ModelMissing, ModelRefused
from edge_agent.hub import Hub, Repo
from edge_agent.pins import Pulled
from edge_agent.profile import from_metadata
from edge_agent.question import Question

MODEL_SUFFIX = ".gguf"
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,150}\.gguf")
_FIRST_QUESTION = Question("What is 2 + 2?", ("3", "4", "5"))

Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Installed:
    """A model that is here now; `is_new` is False if it had been before. `alias` is its name in the catalogue."""

    path: pathlib.Path
    sha256: str
    bytes: int
    source: str
    revision: str | None
    alias: str | None
    is_new: bool


class MustBeMade(ModelMissing):
    """Only safetensors are published under this name; `commands` make the file, once, on any computer with a checkout."""

    def __init__(self, name: str, repo: str, commands: tuple[str, ...]) -> None:
        self.commands = commands
        super().__init__(
            f"'{name}' is published as safetensors only ({repo}); make its file once, in a checkout of edge-agent on any computer, "
            "with the commands on stdout, and pull the bundle on every device."
        )


def check(path: pathlib.Path) -> None:
    """Refuse a file that is no model which runs here: its bounds, what it says of itself, one question in a child."""
    from_metadata(gguf_check.read_header(path).metadata)
    trial.run(path, [_FIRST_QUESTION])


@dataclass(slots=True)
class Puller:
    """Brings models into `folder`. `hub` is asked for what the Hub has; `report` is told of progress.

    `upgrade` looks for something newer and accepts it; `check_file` opens an unseen file (a child process does).
    """

    folder: pathlib.Path
    hub: Hub
    upgrade: bool = False
    report: Report = lambda progress: None
    check_file: Callable[[pathlib.Path], None] = field(default=check)

    def pull(self, what: str, file: str | None = None) -> Installed:
        """Bring `what`: a catalogue name, `owner/name[@revision]`, an address, or a file here. `file` chooses among several.

        Raises `ModelMissing` (`MustBeMade` where only safetensors are published), `ModelRefused`, `ModelError` for a
        licence, `DownloadFailed` or `StorageError`.
        """
        entry = catalog.entries().get(what)
        if entry and entry.bundled_file:
            path = catalog.resolve(what)
            return Installed(path, catalog.sha256_of(path), path.stat().st_size, "bundled", None, what, is_new=False)
        if entry and entry.repo:
            return self._from_hub(entry.repo, entry.revision, file, entry)
        if _is_address(what):
            return self._from_address(what)
        path = pathlib.Path(what).expanduser()
        if path.is_file():
            return self._from_file(path)
        if path.suffix != MODEL_SUFFIX and (parsed := hub.parse(what)):
            return self._from_hub(parsed[0], parsed[1], file, None)
        raise ModelMissing(
            f"There is nothing to pull as '{what:.200}'; give a name of `edge-agent models`, owner/name on the Hub, an address or a file."
        )

    def _from_hub(self, name: str, revision: str | None, file: str | None, entry: Entry | None) -> Installed:
        source = f"{pins.HUB}{name}" + (f"@{revision}" if revision and not entry else "")
        known = [
            record for record in pins.find(self.folder, source).values() if record.file and (file is None or _means(record.path, file))
        ]
        if not self.upgrade:
            for record in reversed(known):
                if is_here := self._is_here(record):
                    return is_here
        pinned = None if self.upgrade else next((record.revision for record in known), None)
        repo = self.hub.repo(name, revision or pinned or hub.MAIN)
        chosen = _choose(repo, file, entry, self.hub.endpoint)
        must_be = {**(entry.sha256 if entry else {}), **{r.path: r.sha256 for r in known if not self.upgrade}}.get(chosen.path)
        target = self._target(chosen.path.rpartition("/")[2], source)

        def look(path: pathlib.Path, sha256: str) -> None:
            self._look(path, sha256, must_be)

        sha256 = self.hub.fetch(repo, chosen, target, look, self.report)
        return self._record(
            Pulled(source, chosen.path, sha256, target.stat().st_size, repo.revision, target.name, entry.name if entry else None)
        )

    def _from_address(self, url: str) -> Installed:
        source = _without_secrets(url)
        known = pins.find(self.folder, source).get("")
        if known and not self.upgrade and (is_here := self._is_here(known)):
            return is_here
        target = self._target(unquote(urlsplit(url).path).rpartition("/")[2], source)
        must_be = known.sha256 if known and not self.upgrade else None
        try:
            sha256 = self.hub.downloader.fetch(url, target, check=lambda path, found: self._look(path, found, must_be), report=self.report)
        except Refused as refused:
            raise ModelMissing(
                f"{urlsplit(url).hostname} answered HTTP {refused.status} for '{target.name}'; check the address."
            ) from refused
        return self._record(Pulled(source, "", sha256, target.stat().st_size, None, target.name))

    def _from_file(self, path: pathlib.Path) -> Installed:
        sha256, source = catalog.sha256_of(path), f"file:{path.name}"
        target = self._target(path.name, source)
        known = pins.find(self.folder, source).get("")
        if known and known.sha256 == sha256 and (is_here := self._is_here(known)):
            return is_here
        self._look(path, sha256, None)
        if known and not self.upgrade and known.sha256 != sha256:
            raise ModelRefused(f"'{target.name}' in {self.folder} is another file of this name; give --upgrade to replace it.")
        copy(path, target)
        return self._record(Pulled(source, "", sha256, target.stat().st_size, None, target.name, catalog.alias_of(target.name)))

    def _look(self, path: pathlib.Path, sha256: str, must_be: str | None) -> None:
        """What a file has to be before it gets its name."""
        if must_be and sha256 != must_be:
            raise DownloadFailed(
                f"'{path.name}' is not the file that was pulled first (sha256 {sha256[:16]}…, not {must_be[:16]}…); nothing was kept. If "
                "it is meant to be a new one, give --upgrade."
            )
        self.check_file(path)

    def _is_here(self, record: Pulled) -> Installed | None:
        """What was pulled before, if it still is what it was."""
        assert record.file is not None
        path = self.folder / record.file
        if not path.is_file() or path.stat().st_size != record.bytes or catalog.sha256_of(path) != record.sha256:
            return None
        return Installed(path, record.sha256, record.bytes, record.source, record.revision, record.alias, is_new=False)

    def _target(self, name: str, source: str) -> pathlib.Path:
        """The place of a file of this name; a file from elsewhere is replaced only by an upgrade."""
        if not _FILE_NAME.fullmatch(name):
            raise ModelRefused(f"'{name:.160}' is no plain name of a .gguf file; name it like FogGen-0.6B-Q4_K_M.gguf.")
        target = self.folder / name
        if target.exists() and not self.upgrade:
            origin = next((record.source for record in pins.load(self.folder) if record.file == name), "elsewhere")
            if origin != source:
                raise ModelRefused(f"'{name}' in {self.folder} is from {origin}; give --upgrade to replace it.")
        return target

    def _record(self, record: Pulled) -> Installed:
        pins.put(self.folder, [dated(record)])
        assert record.file is not None
        path = self.folder / record.file
        return Installed(path, record.sha256, record.bytes, record.source, record.revision, record.alias, is_new=True)


def copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copy a file; the copy has its name only when it is whole and on the disk. Raises `StorageError`."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".copy-", dir=target.parent) as folder:
            part = pathlib.Path(folder) / target.name
            shutil.copyfile(source, part)
            settle(part, target)
    except OSError as error:
        raise not_written(target, error) from error


def dated(record: Pulled) -> Pulled:
    """The record with the time of now."""
    return replace(record, pulled_at=datetime.now(UTC).isoformat(timespec="seconds"))


def commands(entry: Entry) -> tuple[str, ...]:
    """What makes the file of a model that is published as safetensors."""
    kind = "" if entry.answer_kind == "letter" else f" --answer-kind {entry.answer_kind}"
    made = f"{entry.file_name}-{entry.quantization}"
    return (
        f"python -m convert {entry.repo} --quants {entry.quantization} --name {entry.file_name}{kind} --out .",
        f"edge-agent bundle {made}.gguf --out {made}.bundle",
    )


def checkpoint_folder(
    source: str, folder: pathlib.Path, report: Report = lambda progress: None, the_hub: Hub | None = None
) -> pathlib.Path:
    """The folder of a checkpoint or an adapter: `source` itself if there is such a folder, else what the Hub has of it.

    `source` may be a folder, `owner/name`, `owner/name@revision` or a catalogue name; `folder` keeps what is fetched.
    """
    if pathlib.Path(source).expanduser().is_dir():
        return pathlib.Path(source).expanduser()
    entry = catalog.entries().get(source)
    name, pin = (entry.repo, entry.revision) if entry and entry.repo else (source, None)
    with the_hub or Hub() as opened:
        return hub.checkpoint(name, folder, opened, pin, report)


def _choose(repo: Repo, file: str | None, entry: Entry | None, endpoint: str) -> hub.HubFile:
    """The one file that is meant; raises `ModelMissing` if there is none, or several."""
    models = [one for one in repo.files if one.path.endswith(MODEL_SUFFIX)]
    if not models and any(one.path.endswith(".safetensors") for one in repo.files):
        made = entry or Entry(repo.name, "", "", "", repo.name, file_name=repo.name.rpartition("/")[2], quantization="Q4_K_M")
        raise MustBeMade(made.name, repo.name, commands(made))
    found = [one for one in models if file is None or _means(one.path, file)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(one.path for one in (found or models)[:20])
    if not models:
        raise ModelMissing(f"'{repo.name}' holds no .gguf file on the Hub; see {endpoint}/{repo.name}.")
    if not found:
        raise ModelMissing(f"'{repo.name}' has no file '{file}'; it has {names}.")
    raise ModelMissing(f"'{repo.name}' has several files; choose one with --file, by name or quantization: {names}.")


def _means(path: str, file: str) -> bool:
    """Whether a path in a repository is what a person calls `file`: its path, its name, or its quantization."""
    name = path.rpartition("/")[2]
    return file in (path, name) or name.lower().endswith(f"-{file.lower()}{MODEL_SUFFIX}")


def _is_address(what: str) -> bool:
    return what.startswith(("http://", "https://"))


def _without_secrets(url: str) -> str:
    """The address as it is recorded: without a password, and without a query, which may be signed."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
