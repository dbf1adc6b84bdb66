"""Brings a published model or adapter to this device: from the Hub, an address or a file, checked before it gets its name.

Owns what `pull` means: what a name refers to, and what is recorded about it. Invariants: every model in the models folder was
opened here once, in a child process, unless it was fetched for another program; what was pulled before must be the same again,
unless an upgrade is asked for; a file that is here already costs no request; existing settings are never overwritten. What comes
over the network never changes who is asked: its settings wait until somebody says `use_settings`, and a cloud never comes with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from edge_agent.core.errors import BadData, BadSetting, DownloadFailed, ModelError, ModelMissing, ModelRefused
from edge_agent.core.files import lock, not_written, put_in_place, replacing, temporary_folder
from edge_agent.core.terminal import Progress
from edge_agent.fetch import bundle, hub
from edge_agent.fetch.bundle import Bundle
from edge_agent.fetch.checkpoints import local_path
from edge_agent.fetch.choice import MODEL_SUFFIX, SUFFIXES, MustBeMade, check_start, choose, commands, means, runs
from edge_agent.fetch.download import TRIES, Refused
from edge_agent.fetch.hub import Hub
from edge_agent.fetch.installed import Installed, check, check_pin, copy, installed, with_calibration
from edge_agent.model import calibration, catalog, gguf, pulled, ways
from edge_agent.model.catalog import Entry
from edge_agent.model.profile import AS_IT_SAYS, Way
from edge_agent.model.pulled import INSIDE, Pulled, TakeLock

_HERE = "file:"  # how the source of a file from this device starts
_CATALOGUE_TRIES = 2  # for a model that can also be made without the Hub

Report = Callable[[Progress], None]
Ready = Callable[[pathlib.Path, str], None]


@dataclass(slots=True)
class Puller:
    """Brings models into `folder`. `hub` lists and fetches what the Hub has; `report` gets the progress.

    `upgrade` looks for something newer from the same source and accepts it. `check_file` refuses a file that does not run here and
    may return a warning; with `any_architecture`, a model that edge-agent cannot ask is kept all the same. The settings of a bundle
    are written to `config_file` if there is none yet and the bundle is a file here, or `use_settings` says so; `check_settings`
    raises `BadSetting` for those that no agent could use. Its calibration goes to the folder `calibrations` under the same condition, and
    waits beside the model otherwise; how its model is read is remembered in the folder `ways`.
    """

    folder: pathlib.Path
    hub: Hub
    upgrade: bool = False
    report: Report = lambda progress: None
    check_file: Callable[..., str | None] = field(default=check)
    config_file: pathlib.Path | None = None
    calibrations: pathlib.Path | None = None
    ways: pathlib.Path | None = None
    any_architecture: bool = False
    use_settings: bool = False
    check_settings: Callable[[dict[str, Any]], None] = lambda settings: None
    take_lock: TakeLock = lock

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
            if is_here := self._first_here(made):  # perhaps from a bundle or a file
                return is_here
            return self._from_hub(entry.repo, entry.revision, file, entry)
        if _is_address(what):
            return self._from_address(what)
        here = local_path(what)
        if here and here.is_file():
            return self._from_file(here)
        if not what.endswith(SUFFIXES) and (parsed := hub.parse(what)) and not (here and here.is_dir()):
            return self._from_hub(parsed[0], parsed[1], file, None)
        folder = " (which is a folder; `python -m convert` makes a file from a checkpoint)" if here and here.is_dir() else ""
        raise ModelMissing(
            f"There is nothing to pull as '{what:.200}'{folder}; use a name from `edge-agent models`, owner/name on the Hub, an address "
            "or a file."
        )

    def _from_hub(self, name: str, revision: str | None, file: str | None, entry: Entry | None) -> Installed:
        source = f"{pulled.HUB}{name}" + (f"@{revision}" if revision and not entry else "")
        known = pulled.find(self.folder, source)
        models = [record for record in known.values() if record.file and (file is None or means(record.path, file))]
        if not self.upgrade and (is_here := self._first_here(models)):
            return is_here
        pinned = None if self.upgrade else next((record.revision for record in models), None)
        try:
            repo = self.hub.repo(name, revision or pinned or hub.MAIN, tries=_CATALOGUE_TRIES if entry else TRIES)
        except (DownloadFailed, ModelMissing) as error:
            if entry is None or models:
                raise
            raise MustBeMade(entry.name, name, commands(entry), str(error)) from error
        chosen = choose(repo, file, entry, self.hub.endpoint)
        record = Pulled(source, chosen.path, chosen.expected.sha256 or "", 0, repo.revision, alias=entry.name if entry else None)

        def fetch(target: pathlib.Path, ready: Ready) -> None:
            self.hub.fetch(repo, chosen, target, ready, self.report, self._look(chosen.path))

        pinned_sha256 = entry.sha256.get(chosen.path) if entry else None
        return self._fetched(record, chosen.path.rpartition("/")[2], known.get(chosen.path), pinned_sha256, fetch)

    def _from_address(self, url: str) -> Installed:
        try:
            source, name = _without_secrets(url), unquote(urlsplit(url).path).rpartition("/")[2]
        except ValueError as error:
            raise ModelMissing("This is not a valid address; check how its host is written.") from error
        known = pulled.find(self.folder, source)
        if not self.upgrade and (is_here := self._first_here([record for record in known.values() if record.file])):
            return is_here

        def fetch(target: pathlib.Path, ready: Ready) -> None:
            try:
                self.hub.downloader.fetch(url, target, check=ready, report=self.report, look=self._look(name))
            except Refused as refused:
                raise ModelMissing(f"{urlsplit(url).hostname} answered HTTP {refused.status} for '{name}'; check the address.") from refused

        return self._fetched(Pulled(source, "", "", 0), name, known.get(""), None, fetch)

    def _fetched(
        self, record: Pulled, name: str, known: Pulled | None, pinned_sha256: str | None, fetch: Callable[[pathlib.Path, Ready], None]
    ) -> Installed:
        """Fetch a model, or a bundle and what is in it; `record` is its source, `known` what the first pull saw there."""
        pinned_sha256 = pinned_sha256 or (known.sha256 if known and not self.upgrade else None)
        if not name.endswith(bundle.SUFFIX):
            target = self._target(name, record.source, record.alias, record.sha256)
            install = _Install(self, record, target, pinned_sha256)
            if record.sha256 and target.is_file() and catalog.sha256_of(target) == record.sha256:
                install(target, record.sha256)  # it is here, only its record is missing
            else:
                fetch(target, install)
            return install.installed
        _check_name(name, bundle.SUFFIX)
        carrier = self.folder / name
        fetch(carrier, lambda path, found: self._check_bundle(path, found, pinned_sha256))
        try:
            opened = bundle.read(carrier)
            settings = json.dumps(opened.settings) if opened.settings else None
            inside = replace(record, path=f"{record.path}{INSIDE}{bundle.MODEL}", settings=settings)
            installed = self._unpack(opened, inside)
            self.put(replace(record, sha256=catalog.sha256_of(carrier), bytes=carrier.stat().st_size, alias=None))
        finally:
            carrier.unlink(missing_ok=True)
        return installed

    def _from_file(self, path: pathlib.Path) -> Installed:
        if bundle.is_bundle(path) or path.suffix == bundle.SUFFIX:
            opened = bundle.read(path)
            name = f"{opened.name}{MODEL_SUFFIX}"
            return self._unpack(opened, Pulled(f"{_HERE}{name}", "", "", 0, alias=catalog.alias_of(name)))
        _check_name(path.name, MODEL_SUFFIX)
        sha256, source = catalog.sha256_of(path), f"{_HERE}{path.name}"
        target = self._target(path.name, source, None, sha256)
        if is_here := self._same_file(source, target, sha256):
            return is_here
        if not self.any_architecture:
            with contextlib.suppress(OSError), path.open("rb") as file:
                check_start(path.name, file.read(1 << 16), "nothing was copied")
        record = Pulled(source, "", sha256, 0, None, target.name, catalog.alias_of(target.name))
        install = _Install(self, record, target, None)
        install.check(path, sha256)
        copy(path, target, sha256, install.note)
        return install.installed

    def _unpack(self, opened: Bundle, record: Pulled) -> Installed:
        """Check everything in a bundle, then write its files and its settings. Safe to repeat.

        A crash in between leaves checked files; the same command does the rest.
        """
        files = {bundle.MODEL: self._target(f"{opened.name}{MODEL_SUFFIX}", record.source, record.alias, opened.parts[bundle.MODEL].sha256)}
        if opened.adapter:
            sha256 = opened.parts[bundle.ADAPTER].sha256
            files[bundle.ADAPTER] = self._target(f"{opened.adapter}{MODEL_SUFFIX}", record.source, None, sha256)
        here = {part: self._same_file(record.source, target, opened.parts[part].sha256) for part, target in files.items()}
        packed, way = None, bundle.way(opened.settings)
        try:
            self.check_settings(opened.settings)
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary_folder(beside=files[bundle.MODEL]) as folder:
                new = {part: folder / target.name for part, target in files.items() if not here.get(part)}
                for part, path in new.items():
                    bundle.extract(opened, part, path)
                at = {part: new.get(part, target) for part, target in files.items()}
                try:
                    bundle.check_together(at[bundle.MODEL], at.get(bundle.ADAPTER), None if self.any_architecture else way)
                    if bundle.CALIBRATION in opened.parts:
                        bundle.extract(opened, bundle.CALIBRATION, path := folder / bundle.CALIBRATION)
                        packed = bundle.checked_calibration(path, at[bundle.MODEL], at.get(bundle.ADAPTER), way)
                    installs = self._checked(opened, record, files, at, new)
                except ModelError as error:
                    raise _renamed(error, folder, f"; nothing of the bundle '{opened.path.name}' was kept") from error
                for part, path in new.items():
                    installs[part].note(path)
                    put_in_place(path, files[part])
            installed = here[bundle.MODEL] or installs[bundle.MODEL].installed
            if packed:
                installed = with_calibration(installed, packed, self._calibrations(record.source))
            if self.ways and way != AS_IT_SAYS and (self.use_settings or record.source.startswith(_HERE)):
                ways.save(self.ways, installed.sha256, way)
        except BadSetting as error:
            raise ModelRefused(f"The bundle '{opened.path.name}' has a wrong setting ({error}); nothing was kept.") from error
        except OSError as error:
            raise not_written(files[bundle.MODEL], error) from error
        return self._with_settings(installed, opened.settings, opened.adapter, record.source.startswith(_HERE))

    def _checked(
        self, opened: Bundle, record: Pulled, files: dict[str, pathlib.Path], at: dict[str, pathlib.Path], new: dict[str, pathlib.Path]
    ) -> dict[str, _Install]:
        """The model and the adapter of a bundle, as far as they are new, after each was tried."""
        inside = replace(record, path=f"{record.path.partition(INSIDE)[0]}{INSIDE}{bundle.ADAPTER}", alias=None, settings=None)
        installs = {bundle.MODEL: _Install(self, record, files[bundle.MODEL], None, way=bundle.way(opened.settings))}
        if bundle.ADAPTER in files:
            installs[bundle.ADAPTER] = _Install(self, inside, files[bundle.ADAPTER], None, base=at[bundle.MODEL])
        installs = {part: install for part, install in installs.items() if part in new}
        for part, install in installs.items():
            install.check(new[part], opened.parts[part].sha256)
        return installs

    def _with_settings(self, installed: Installed, settings: dict[str, Any], adapter: str | None, is_from_here: bool) -> Installed:
        """Use the settings of a bundle, as far as its origin allows."""
        if not is_from_here and not self.use_settings:
            return replace(installed, left_out=settings)
        left_out = {} if is_from_here else {name: value for name, value in settings.items() if name in bundle.CLOUD}
        kept = {name: value for name, value in settings.items() if name not in left_out}
        written = self._configure(bundle.config_text(installed.path.stem, kept, adapter))
        return replace(installed, settings=kept, settings_written=written, left_out=left_out)

    def _calibrations(self, source: str) -> pathlib.Path | None:
        """Where the calibration of a bundle goes that came from there; None if it must wait."""
        return self.calibrations if self.use_settings or source.startswith(_HERE) else None

    def _configure(self, text: str) -> bool:
        """Write the settings if there are none yet; returns whether it did."""
        if self.config_file is None or self.config_file.exists():
            return False
        try:
            self.config_file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.config_file, "w") as file:
                file.write(text)
        except OSError as error:
            raise not_written(self.config_file, error) from error
        return True

    def _look(self, name: str) -> Callable[[bytes], None]:
        """Refuses a file by its first bytes, before the rest is fetched."""
        return lambda start: (
            None if self.any_architecture else check_start(name, start, "only its first bytes were fetched, and nothing was kept")
        )

    def _check_bundle(self, path: pathlib.Path, sha256: str, pinned_sha256: str | None) -> None:
        """Check a bundle before it is unpacked; the model inside is checked then."""
        check_pin(path, sha256, pinned_sha256)
        try:
            bundle.read(path)
        except ModelError as error:
            raise _renamed(error, path.parent) from error

    def _same_file(self, source: str, target: pathlib.Path, sha256: str) -> Installed | None:
        """The file that is here already, if it is the same; a different one is replaced only by an upgrade."""
        record = next((one for one in pulled.find(self.folder, source).values() if one.file == target.name), None)
        if record and record.sha256 == sha256:
            return self._is_here(record)
        if record and target.exists() and not self.upgrade:
            raise ModelRefused(f"'{target.name}' in {self.folder} is a different file with this name; give --upgrade to replace it.")
        return None

    def _first_here(self, records: list[Pulled]) -> Installed | None:
        """The newest of these that is here unchanged, and what its bundle proposed."""
        models = [record for record in reversed(records) if not record.path.endswith(f"{INSIDE}{bundle.ADAPTER}")]
        for record in models:
            if is_here := self._is_here(record):
                adapter = next((pathlib.PurePath(one.file).stem for one in records if one.file and one not in models), None)
                settings = bundle.checked_settings(record.settings) if record.settings else {}
                is_here = self._with_waiting(is_here, record.source)
                return self._with_settings(is_here, settings, adapter, False) if record.settings or adapter else is_here
        return None

    def _with_waiting(self, is_here: Installed, source: str) -> Installed:
        """The same with the calibration that waits beside it, if one does and it is sound; used now if a person wants that."""
        waiting = calibration.waiting_beside(is_here.path)
        if waiting.is_file():
            with contextlib.suppress(BadData):
                found = calibration.decoded(calibration.read(waiting), f"'{waiting}'")
                if found.model_sha256 == is_here.sha256:
                    return with_calibration(is_here, found, self._calibrations(source))
        return is_here

    def _is_here(self, record: Pulled) -> Installed | None:
        """What was pulled before, if it is unchanged."""
        assert record.file is not None
        path = self.folder / record.file
        if not path.is_file() or path.stat().st_size != record.bytes or catalog.sha256_of(path) != record.sha256:
            return None
        return installed(path, record, is_new=False)

    def _target(self, name: str, source: str, alias: str | None, sha256: str) -> pathlib.Path:
        """Where a file of this name goes; a file from another source is never replaced."""
        _check_name(name, MODEL_SUFFIX)
        if (stem := name.removesuffix(MODEL_SUFFIX)) != alias:
            bundle.check_free(stem)
        target = self.folder / name
        if target.exists():
            origin = next((record.source for record in pulled.load(self.folder) if record.file == name), None)
            if origin is None and sha256 and catalog.sha256_of(target) == sha256:
                return target
            is_same = origin is not None and _place(origin) == _place(source)
            if not is_same or (origin != source and not self.upgrade):
                remove = f"edge-agent models rm {stem}" if origin else f"rm {shlex.quote(str(target))}"
                other = f"--upgrade replaces only a file of the same source, so remove it first: {remove}"
                hint = "give --upgrade to replace it" if is_same else other
                raise ModelRefused(f"'{name}' in {self.folder} came from {origin or 'another source'}; {hint}")
        return target

    def put(self, record: Pulled) -> None:
        """Record what was checked, with the time. Raises `StorageError`."""
        pulled.put(self.folder, [replace(record, pulled_at=datetime.now(UTC).isoformat(timespec="seconds"))], self.take_lock)


class _Install:
    """Called with a whole file and its sha256 before the file gets the name `target`: checks it, then records it."""

    def __init__(
        self, puller: Puller, record: Pulled, target: pathlib.Path, pinned_sha256: str | None,
        base: pathlib.Path | None = None, way: Way = AS_IT_SAYS,
    ) -> None:  # fmt: skip
        self._puller, self._record, self._target = puller, record, target
        self._pinned_sha256, self._base, self._way = pinned_sha256, base, way
        self._warning: str | None = None

    def __call__(self, path: pathlib.Path, sha256: str) -> None:
        try:
            self.check(path, sha256)
        except ModelError as error:
            raise _renamed(error, path.parent) from error
        self.note(path)

    def check(self, path: pathlib.Path, sha256: str) -> None:
        check_pin(path, sha256, self._pinned_sha256)
        start = gguf.peek(path)
        if self._puller.any_architecture and not runs(start):
            gguf.read_header(path)
            self._warning = (
                f"It cannot run here: edge-agent does not know how to ask a model of the architecture '{start.architecture:.40}'."
            )
        else:
            read_by = {} if self._way == AS_IT_SAYS else {"way": self._way}
            self._warning = self._puller.check_file(path, *([self._base] if self._base else []), **read_by)
        self._record = replace(self._record, sha256=sha256, file=self._target.name)

    def note(self, path: pathlib.Path) -> None:
        self._record = replace(self._record, bytes=path.stat().st_size)
        self._puller.put(self._record)

    @property
    def installed(self) -> Installed:
        """The file under its name."""
        return replace(installed(self._target, self._record, is_new=True), warning=self._warning)


def _check_name(name: str, suffix: str) -> None:
    """Raises `ModelRefused` unless the name, which comes from outside, is plain and has the suffix."""
    if not name.endswith(suffix) or not bundle.NAME.fullmatch(name.removesuffix(suffix)):
        what = f"'{name:.160}'" if name else "What this address ends with"
        raise ModelRefused(f"{what} is not a plain name of a .gguf file or a bundle; name it like FogGen-0.6B-Q4_K_M.gguf.")


def _place(source: str) -> str:
    """A source without the revision on the Hub: what is published in one place has one publisher."""
    return source.partition("@")[0] if source.startswith(pulled.HUB) else source


def _renamed(error: ModelError, folder: pathlib.Path, done: str = "") -> ModelError:
    """The error without the path of a temporary folder, which is gone when somebody reads it; `done` says what became of the files."""
    words = str(error).replace(f"{folder}{os.sep}", "")
    return type(error)(f"{words.removesuffix('.')}{done}.")


def _is_address(what: str) -> bool:
    return what.startswith(("http://", "https://"))


def _without_secrets(url: str) -> str:
    """The address to record: without a password, and without a query, which may be a signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
