"""Brings a published model to this device: from the Hub, an address or a file, checked before it gets its name.

Owns what `pull` means: what a name refers to, which file is chosen, what is recorded about it. Invariants: every model in the
models folder was opened here once, in a child process; what was pulled before must be the same again, unless an upgrade is
asked for; a file that is here already costs no request; existing settings are never overwritten, and a download never sets
where questions are sent.
"""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from edge_agent.core.errors import DownloadFailed, ModelMissing, ModelRefused
from edge_agent.core.files import not_written, put_in_place, replacing, temporary_folder
from edge_agent.core.question import Question
from edge_agent.core.terminal import Progress
from edge_agent.engine import trial
from edge_agent.fetch import bundle, hub
from edge_agent.fetch.bundle import Bundle
from edge_agent.fetch.checkpoints import local_path
from edge_agent.fetch.download import Refused
from edge_agent.fetch.hub import Hub, Repo
from edge_agent.model import catalog, pulled
from edge_agent.model.catalog import Entry, ModelFiles
from edge_agent.model.gguf import read_header
from edge_agent.model.profile import from_metadata
from edge_agent.model.pulled import Pulled

MODEL_SUFFIX = ".gguf"
SUFFIXES = (MODEL_SUFFIX, bundle.SUFFIX)
_HERE = "file:"  # how the source of a file from this device starts
INSIDE = "!"  # a record calls the model in a bundle BUNDLE!model.gguf
_FIRST_QUESTION = Question("What is 2 + 2?", ("3", "4", "5"))

Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Installed:
    """A model that is here now; `is_new` is False if it was here before. `alias` is its name in the catalogue.

    `settings` came with it in a bundle; `settings_written` says whether they are in force, or there were others already.
    `left_out` are the settings that a bundle from the network may not bring.
    """

    path: pathlib.Path
    sha256: str
    bytes: int
    source: str
    revision: str | None
    alias: str | None
    is_new: bool
    settings: dict[str, Any] = field(default_factory=dict)
    settings_written: bool = False
    left_out: dict[str, Any] = field(default_factory=dict)


class MustBeMade(ModelMissing):
    """Only safetensors are published under this name; `commands` create the file, once, on any computer with a checkout."""

    def __init__(self, name: str, repo: str, commands: tuple[str, ...]) -> None:
        self.commands = commands
        super().__init__(
            f"'{name}' is published only as safetensors ({repo}); create its file once, in a checkout of edge-agent on any computer, "
            "with the commands on stdout, then pull the bundle on every device."
        )


def check(path: pathlib.Path) -> None:
    """Refuse a file that is not a model which runs here: check its header and metadata, and ask it one question in a child process."""
    from_metadata(read_header(path).metadata)
    trial.run(ModelFiles(path), [_FIRST_QUESTION])


@dataclass(slots=True)
class Puller:
    """Brings models into `folder`. `hub` lists and fetches what the Hub has; `report` gets the progress.

    `upgrade` looks for something newer and accepts it. `check_file` refuses a file that is not a model. The settings of a
    bundle are written to `config_file` if there is none yet.
    """

    folder: pathlib.Path
    hub: Hub
    upgrade: bool = False
    report: Report = lambda progress: None
    check_file: Callable[[pathlib.Path], None] = field(default=check)
    config_file: pathlib.Path | None = None

    def pull(self, what: str, file: str | None = None) -> Installed:
        """Bring `what`: a catalogue name, `owner/name[@revision]`, an address, or a file here. `file` chooses one of several.

        Raises `ModelMissing` (`MustBeMade` where only safetensors are published), `ModelRefused`, `ModelError` for a
        licence, `DownloadFailed` or `StorageError`.
        """
        entry = catalog.entries().get(what)
        if entry and entry.bundled_file:
            path = catalog.resolve(what)
            return Installed(path, catalog.sha256_of(path), path.stat().st_size, "bundled", None, what, is_new=False)
        if entry and entry.repo:
            made = [record for record in pulled.load(self.folder) if record.alias == what and file is None and not self.upgrade]
            for record in reversed(made):  # perhaps from a bundle or a file
                if is_here := self._is_here(record):
                    return is_here
            return self._from_hub(entry.repo, entry.revision, file, entry)
        if _is_address(what):
            return self._from_address(what)
        here = local_path(what)
        if here and here.is_file():
            return self._from_file(here)
        if not what.endswith(SUFFIXES) and (parsed := hub.parse(what)):
            return self._from_hub(parsed[0], parsed[1], file, None)
        raise ModelMissing(
            f"There is nothing to pull as '{what:.200}'; use a name from `edge-agent models`, owner/name on the Hub, an address or a file."
        )

    def _from_hub(self, name: str, revision: str | None, file: str | None, entry: Entry | None) -> Installed:
        source = f"{pulled.HUB}{name}" + (f"@{revision}" if revision and not entry else "")
        known = pulled.find(self.folder, source)
        models = [record for record in known.values() if record.file and (file is None or _means(record.path, file))]
        if not self.upgrade:
            for record in reversed(models):
                if is_here := self._is_here(record):
                    return is_here
        pinned = None if self.upgrade else next((record.revision for record in models), None)
        repo = self.hub.repo(name, revision or pinned or hub.MAIN)
        chosen = _choose(repo, file, entry, self.hub.endpoint)
        record = Pulled(source, chosen.path, "", 0, repo.revision, alias=entry.name if entry else None)

        def fetch(target: pathlib.Path, check: Callable[[pathlib.Path, str], None]) -> str:
            return self.hub.fetch(repo, chosen, target, check, self.report)

        pinned_sha256 = entry.sha256.get(chosen.path) if entry else None
        return self._fetched(record, chosen.path.rpartition("/")[2], known.get(chosen.path), pinned_sha256, fetch)

    def _from_address(self, url: str) -> Installed:
        try:
            source, name = _without_secrets(url), unquote(urlsplit(url).path).rpartition("/")[2]
        except ValueError as error:
            raise ModelMissing("This is not a valid address; check how its host is written.") from error
        known = pulled.find(self.folder, source)
        if not self.upgrade:
            for record in known.values():
                if record.file and (is_here := self._is_here(record)):
                    return is_here

        def fetch(target: pathlib.Path, check: Callable[[pathlib.Path, str], None]) -> str:
            try:
                return self.hub.downloader.fetch(url, target, check=check, report=self.report)
            except Refused as refused:
                raise ModelMissing(f"{urlsplit(url).hostname} answered HTTP {refused.status} for '{name}'; check the address.") from refused

        return self._fetched(Pulled(source, "", "", 0), name, known.get(""), None, fetch)

    def _fetched(
        self, record: Pulled, name: str, known: Pulled | None, pinned_sha256: str | None, fetch: Callable[[pathlib.Path, Any], str]
    ) -> Installed:
        """Fetch a model, or a bundle and what is in it; `record` is its source, `known` what the first pull saw there."""
        pinned_sha256 = pinned_sha256 or (known.sha256 if known and not self.upgrade else None)
        if not name.endswith(bundle.SUFFIX):
            target = self._target(name, record.source, record.alias)
            sha256 = fetch(target, lambda path, found: self._check_model(path, found, pinned_sha256))
            return self._record(replace(record, sha256=sha256, bytes=target.stat().st_size, file=target.name))
        _check_name(name.removesuffix(bundle.SUFFIX))
        carrier = self.folder / name
        sha256 = fetch(carrier, lambda path, found: self._check_bundle(path, found, pinned_sha256))
        try:
            installed = self._unpack(bundle.read(carrier), replace(record, path=f"{record.path}{INSIDE}{bundle.MODEL}"))
            pulled.put(self.folder, [dated(replace(record, sha256=sha256, bytes=carrier.stat().st_size, alias=None))])
        finally:
            carrier.unlink(missing_ok=True)
        return installed

    def _from_file(self, path: pathlib.Path) -> Installed:
        if bundle.is_bundle(path) or path.suffix == bundle.SUFFIX:
            opened = bundle.read(path)
            name = f"{opened.name}{MODEL_SUFFIX}"
            return self._unpack(opened, Pulled(f"{_HERE}{name}", "", "", 0, alias=catalog.alias_of(name)))
        sha256, source = catalog.sha256_of(path), f"{_HERE}{path.name}"
        target = self._target(path.name, source, None)
        if is_here := self._same_file(source, target, sha256):
            return is_here
        self._check_model(path, sha256, None)
        copy(path, target, sha256)
        return self._record(Pulled(source, "", sha256, target.stat().st_size, None, target.name, catalog.alias_of(target.name)))

    def _unpack(self, opened: Bundle, record: Pulled) -> Installed:
        """Write the parts of a bundle: the model, its calibration, then the settings. Safe to repeat."""
        model = opened.parts[bundle.MODEL]
        target = self._target(f"{opened.name}{MODEL_SUFFIX}", record.source, record.alias)
        installed = self._same_file(record.source, target, model.sha256)
        if installed is None:
            self._extract(opened, bundle.MODEL, target, lambda path: self._check_model(path, model.sha256, None))
            installed = self._record(replace(record, sha256=model.sha256, bytes=model.bytes, file=target.name))
        if bundle.CALIBRATION in opened.parts:
            self._extract(opened, bundle.CALIBRATION, self.folder / f"{opened.name}.{bundle.CALIBRATION}", lambda path: None)
        left_out = {} if record.source.startswith(_HERE) else {k: v for k, v in opened.settings.items() if k in bundle.CLOUD}
        opened = replace(opened, settings={k: v for k, v in opened.settings.items() if k not in left_out})
        return replace(installed, settings=opened.settings, settings_written=self._configure(opened), left_out=left_out)

    def _extract(self, opened: Bundle, part: str, target: pathlib.Path, check: Callable[[pathlib.Path], None]) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary_folder(beside=target) as folder:
                path = folder / target.name
                bundle.extract(opened, part, path)
                check(path)
                put_in_place(path, target)
        except OSError as error:
            raise not_written(target, error) from error

    def _configure(self, opened: Bundle) -> bool:
        """Write the settings if there are none yet; returns whether it did."""
        if self.config_file is None or self.config_file.exists():
            return False
        try:
            self.config_file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.config_file, "w", private=False) as file:
                file.write(bundle.config_text(opened))
        except OSError as error:
            raise not_written(self.config_file, error) from error
        return True

    def _check_bundle(self, path: pathlib.Path, sha256: str, pinned_sha256: str | None) -> None:
        """Check a bundle before it is unpacked; the model inside is checked then."""
        self._check_pin(path, sha256, pinned_sha256)
        bundle.read(path)

    def _check_pin(self, path: pathlib.Path, sha256: str, pinned_sha256: str | None) -> None:
        if pinned_sha256 and sha256 != pinned_sha256:
            raise DownloadFailed(
                f"'{path.name}' is not the file that was pulled first (sha256 {sha256[:16]}…, not {pinned_sha256[:16]}…); "
                "nothing was kept. If you want the new file, give --upgrade."
            )

    def _check_model(self, path: pathlib.Path, sha256: str, pinned_sha256: str | None) -> None:
        """Check a model before it gets its name."""
        self._check_pin(path, sha256, pinned_sha256)
        self.check_file(path)

    def _same_file(self, source: str, target: pathlib.Path, sha256: str) -> Installed | None:
        """The file that is here already, if it is the same; a different one is replaced only by an upgrade."""
        record = next((one for one in pulled.find(self.folder, source).values() if one.file == target.name), None)
        if record and record.sha256 == sha256:
            return self._is_here(record)
        if record and target.exists() and not self.upgrade:
            raise ModelRefused(f"'{target.name}' in {self.folder} is a different file with this name; give --upgrade to replace it.")
        return None

    def _is_here(self, record: Pulled) -> Installed | None:
        """What was pulled before, if it is unchanged."""
        assert record.file is not None
        path = self.folder / record.file
        if not path.is_file() or path.stat().st_size != record.bytes or catalog.sha256_of(path) != record.sha256:
            return None
        return Installed(path, record.sha256, record.bytes, record.source, record.revision, record.alias, is_new=False)

    def _target(self, name: str, source: str, alias: str | None) -> pathlib.Path:
        """Where a file of this name goes; a file from another source is replaced only by an upgrade."""
        stem = name.removesuffix(MODEL_SUFFIX) if name.endswith(MODEL_SUFFIX) else ""
        _check_name(stem)
        if stem != alias:
            bundle.check_free(stem)
        target = self.folder / name
        if target.exists() and not self.upgrade:
            origin = next((record.source for record in pulled.load(self.folder) if record.file == name), "another source")
            if origin != source:
                raise ModelRefused(f"'{name}' in {self.folder} came from {origin}; give --upgrade to replace it.")
        return target

    def _record(self, record: Pulled) -> Installed:
        pulled.put(self.folder, [dated(record)])
        assert record.file is not None
        path = self.folder / record.file
        return Installed(path, record.sha256, record.bytes, record.source, record.revision, record.alias, is_new=True)


def copy(source: pathlib.Path, target: pathlib.Path, sha256: str) -> None:
    """Copy a file; the copy gets its name only when its hash is `sha256` and its bytes are on the disk.

    Raises `StorageError`, or `ModelRefused` if the copy is different: a stick that fails, or a program that writes to it.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(beside=target) as folder:
            part = folder / target.name
            shutil.copyfile(source, part)
            if catalog.sha256_of(part) != sha256:
                raise ModelRefused(f"'{source}' changed while it was copied, or its disk has errors; nothing was kept, try again.")
            put_in_place(part, target)
    except OSError as error:
        raise not_written(target, error) from error


def dated(record: Pulled) -> Pulled:
    """The record with the current time."""
    return replace(record, pulled_at=datetime.now(UTC).isoformat(timespec="seconds"))


def commands(entry: Entry) -> tuple[str, ...]:
    """The commands that create the file of a model which is published as safetensors."""
    kind = "" if entry.answer_kind == "letter" else f" --answer-kind {entry.answer_kind}"
    made = f"{entry.file_name}-{entry.quantization}"
    return (
        f"python -m convert {entry.repo} --quants {entry.quantization} --name {entry.file_name}{kind} --out .",
        f"edge-agent bundle {made}.gguf --out {made}.bundle",
    )


def _choose(repo: Repo, file: str | None, entry: Entry | None, endpoint: str) -> hub.HubFile:
    """The one file that `file` and `entry` mean; raises `ModelMissing` if there is none, or several."""
    models = [one for one in repo.files if one.path.endswith(SUFFIXES)]
    if not models and any(one.path.endswith(".safetensors") for one in repo.files):
        made = entry or Entry(repo.name, "", "", "", repo.name, file_name=repo.name.rpartition("/")[2], quantization="Q4_K_M")
        raise MustBeMade(made.name, repo.name, commands(made))
    found = [one for one in models if file is None or _means(one.path, file)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(one.path for one in (found or models)[:20])
    if not models:
        raise ModelMissing(f"'{repo.name}' has no .gguf file and no bundle on the Hub; see {endpoint}/{repo.name}.")
    if not found:
        raise ModelMissing(f"'{repo.name}' has no file '{file}'; it has {names}.")
    raise ModelMissing(f"'{repo.name}' has several files; choose one with --file, by name or quantization: {names}.")


def _means(path: str, file: str) -> bool:
    """Whether `file` means this path of a repository: it is the path, the file name, or the quantization."""
    path = path.partition(INSIDE)[0]
    name = path.rpartition("/")[2]
    return file in (path, name) or name.lower().endswith(tuple(f"-{file.lower()}{suffix}" for suffix in SUFFIXES))


def _check_name(stem: str) -> None:
    """Raises `ModelRefused` unless the name, which comes from outside, is plain."""
    if not bundle.NAME.fullmatch(stem):
        raise ModelRefused(f"'{stem:.160}' is not a plain name of a .gguf file; name it like FogGen-0.6B-Q4_K_M.gguf.")


def _is_address(what: str) -> bool:
    return what.startswith(("http://", "https://"))


def _without_secrets(url: str) -> str:
    """The address to record: without a password, and without a query, which may be a signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
