"""A file that is on this device: what is known of it, and what it must pass before it gets its name.

Owns the checks of a model, an adapter and a copy. Fetches and records nothing. Invariant: a file that fails a check leaves
nothing behind.
"""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from edge_agent.core.errors import DownloadFailed, ModelRefused
from edge_agent.core.files import not_written, put_in_place, replacing, temporary_folder
from edge_agent.core.question import Question
from edge_agent.core.routing import has_no_confidence
from edge_agent.engine import trial
from edge_agent.model import catalog, gguf
from edge_agent.model.calibration import Calibration, save, waiting_beside
from edge_agent.model.catalog import ModelFiles
from edge_agent.model.profile import AS_IT_SAYS, IF_PLAIN, PLAIN_MEANS, Way, check_architecture, from_metadata
from edge_agent.model.pulled import Pulled

_FIRST_QUESTION = Question("What is 2 + 2?", ("3", "4", "5"))


@dataclass(frozen=True, slots=True)
class Installed:
    """A model or an adapter that is here now; `is_new` is False if it was here before. `alias` is its name in the catalogue.

    `base` is the model that an adapter says it is for. `settings` came with it in a bundle; `settings_written` says whether they
    are in force, or there were others already. `left_out` are the settings that came over the network and are not used.
    `calibration` came with it, too: its sha256, and what it promises in words; `calibration_used` says whether it applies from now on,
    or it waits beside the model because it came over the network. `warning` says why the answers may be of no use.
    """

    path: pathlib.Path
    sha256: str
    bytes: int
    source: str
    revision: str | None
    alias: str | None
    is_new: bool
    is_adapter: bool = False
    base: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    settings_written: bool = False
    left_out: dict[str, Any] = field(default_factory=dict)
    warning: str | None = None
    calibration: str | None = None
    calibration_used: bool = False


def check(path: pathlib.Path, base: pathlib.Path | None = None, way: Way = AS_IT_SAYS) -> str | None:
    """Refuse a file that does not run here: check its header, and ask a model one question in a child process, read this `way`.

    An adapter is tried on its `base`; without one, only its header is checked. Returns a warning if a model runs but does not
    print a confidence. Raises `ModelMissing` or `ModelRefused`.
    """
    header = gguf.read_header(path)
    if header.is_adapter:
        check_architecture(header.architecture)
        gguf.read_adapter(path, gguf.read_header(base) if base else None)
        if base:
            trial.run(ModelFiles(base, path), [_FIRST_QUESTION])
        return None
    profile = from_metadata(header.metadata, way)
    (reading,) = trial.run(ModelFiles(path), [_FIRST_QUESTION], profile=profile).readings
    if profile.is_plain:
        return f"It is a plain model: {PLAIN_MEANS}."
    if reading is not None and has_no_confidence(reading, profile.format_mass_min):
        return f"It runs, but it did not print a confidence as FogGen models do, so its answers will count as unsure; {IF_PLAIN}."
    return None


def installed(path: pathlib.Path, record: Pulled, is_new: bool) -> Installed:
    """What is known of a file that is here."""
    start = gguf.peek(path)
    base = start.base_model if start.is_adapter else None
    return Installed(path, record.sha256, record.bytes, record.source, record.revision, record.alias, is_new, start.is_adapter, base)


def with_calibration(found: Installed, calibration: Calibration, folder: pathlib.Path | None) -> Installed:
    """Keep the calibration that came with a model: in the `folder` of those that apply, or beside the model. Raises `StorageError`."""
    waiting = waiting_beside(found.path)
    if folder is not None:
        save(folder, calibration)
        waiting.unlink(missing_ok=True)
    else:
        with replacing(waiting, "w", private=False) as file:
            file.write(calibration.to_json())
    return replace(found, calibration=calibration.in_words(), calibration_used=folder is not None)


def check_pin(path: pathlib.Path, sha256: str, pinned_sha256: str | None) -> None:
    """Raises `DownloadFailed` unless the file is the one that was pulled first."""
    if pinned_sha256 and sha256 != pinned_sha256:
        raise DownloadFailed(
            f"'{path.name}' is not the file that was pulled first (sha256 {sha256[:16]}…, not {pinned_sha256[:16]}…); "
            "nothing was kept. If you want the new file, give --upgrade."
        )


def copy(source: pathlib.Path, target: pathlib.Path, sha256: str, ready: Callable[[pathlib.Path], None] = lambda path: None) -> None:
    """Copy a file; the copy gets its name only when its hash is `sha256`, its bytes are on the disk and `ready` was called with it.

    Raises `StorageError`, or `ModelRefused` if the copy is different: a stick that fails, or a program that writes to it.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(beside=target) as folder:
            part = folder / target.name
            shutil.copyfile(source, part)
            if catalog.sha256_of(part) != sha256:
                raise ModelRefused(f"'{source}' changed while it was copied, or its disk has errors; nothing was kept, try again.")
            ready(part)
            put_in_place(part, target)
    except OSError as error:
        raise not_written(target, error) from error
