"""Model names and files: which file a name stands for, and what is known about a file.

Owns the lookup (`demo`, the name of a pulled model, or a path to a GGUF) and the identity of a file (its sha256).
Never runs a model and never uses the network. Invariant: a name never falls back to another model; a missing file
raises `ModelMissing`.
"""

from __future__ import annotations

import hashlib
import pathlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edge_agent.core.errors import ModelMissing
from edge_agent.core.records import ModelFacts
from edge_agent.model.profile import LETTER, Way, from_metadata, held_adapters, is_known

if TYPE_CHECKING:  # `gguf` and `pulled` are imported where they are used: a remembered answer needs neither
    from edge_agent.core.config.settings import Settings
    from edge_agent.model.pulled import Pulled
    from edge_agent.model.ways import Ways

UNPINNED = "unpinned"
_PACKAGE = pathlib.Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the catalogue. With a `bundled_file` it comes with edge-agent; otherwise the Hub's `repo` publishes it.

    `revision` (a commit) is None and `sha256` (from file to hash) is empty while the model is unpinned. `architecture`,
    `answer_kind` and `tau` are what its GGUF states; `file_name` and `quantization` say how to make that GGUF.
    `holds` has the hashes of the `adapters` that its `files` (by their sha256) hold but do not name.
    """

    name: str
    summary: str
    licence: str
    architecture: str
    repo: str | None = None
    bundled_file: str | None = None
    answer_kind: str = LETTER
    tau: float = 0.5
    file_name: str | None = None
    quantization: str | None = None
    revision: str | None = None
    sha256: dict[str, str] = field(default_factory=dict)
    holds: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a model: a GGUF and, optionally, an adapter to load on top of it. Without `ways` it is read as it says itself."""

    path: pathlib.Path
    adapter: pathlib.Path | None = None
    ways: Ways | None = None

    @property
    def size_bytes(self) -> int:
        """Their size on disk."""
        return self.path.stat().st_size + (self.adapter.stat().st_size if self.adapter else 0)

    def __str__(self) -> str:
        return f"{self.path}" + (f" with {self.adapter}" if self.adapter else "")


def entries() -> dict[str, Entry]:
    """The catalogue, by name."""
    return parse(_bundled("catalog.toml").read_text(encoding="utf-8"))


def parse(text: str) -> dict[str, Entry]:
    """The entries in the text of a catalog.toml, by name."""
    return {name: _entry(name, table) for name, table in tomllib.loads(text).items()}


def resolve(model: str, folder: pathlib.Path | None = None) -> pathlib.Path:
    """The GGUF for a catalogue name, a path, or the name of a pulled model in `folder`. Raises `ModelMissing`."""
    known = entries()
    if model in known:
        return _file_of(known[model], folder)
    if path := _named(model, folder, "model"):
        return path
    raise ModelMissing(f"There is no model '{model}'; give the path of a .gguf file, or one of: {', '.join(_model_names(known, folder))}.")


def resolve_adapter(adapter: str, folder: pathlib.Path | None = None) -> pathlib.Path:
    """The GGUF of an adapter: a path, or the name of one in `folder`. Raises `ModelMissing`."""
    if path := _named(adapter, folder, "adapter"):
        return path
    here = [file.stem for file in _files(folder) if is_adapter(file)]
    names = f", or one of: {', '.join(here)}" if here else "; no adapter is in the models folder yet"
    raise ModelMissing(f"There is no adapter '{adapter}'; give the path of a .gguf file{names}.")


def _named(name: str, folder: pathlib.Path | None, what: str) -> pathlib.Path | None:
    """The file at a path, or of this name in `folder`; None if it is a name that the folder lacks. Raises `ModelMissing` for a path."""
    try:
        path = pathlib.Path(name).expanduser()
        if path.is_file():
            return path
        if folder and path.name == name and (folder / f"{name}.gguf").is_file():
            return folder / f"{name}.gguf"
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelMissing(f"Cannot use the {what} path '{name:.200}' ({error}); check the path.") from error
    if path.suffix == ".gguf" or len(path.parts) > 1:
        raise ModelMissing(f"There is no {what} file '{name}'; check the path.")
    return None


def adapters_in(path: pathlib.Path, metadata: Mapping[str, object]) -> set[str]:
    """The hashes of the adapters in a model file, as its `metadata` or, for a file older than that metadata, the catalogue says."""
    held, name = held_adapters(metadata), metadata.get("general.name")
    for entry in entries().values() if not held and isinstance(name, str) and name else ():
        is_named = entry.holds and str(entry.bundled_file).startswith(f"{name}-")  # most files need not be hashed
        if is_named and sha256_of(path) in entry.holds["files"]:
            held |= set(entry.holds["adapters"])
    return held


def is_adapter(path: pathlib.Path) -> bool:
    """Whether a GGUF says that it is an adapter."""
    from edge_agent.model.gguf import peek

    return peek(path).is_adapter


def _model_names(known: dict[str, Entry], folder: pathlib.Path | None) -> list[str]:
    """The names of the catalogue, then those of the other models in the folder."""
    from edge_agent.model.pulled import load

    named = {record.file for record in load(folder) if record.alias} if folder else set()
    return [*known, *(file.stem for file in _files(folder) if file.name not in named and not is_adapter(file))]


def _files(folder: pathlib.Path | None) -> list[pathlib.Path]:
    return sorted(folder.glob("*.gguf")) if folder else []


def files_of(settings: Settings) -> ModelFiles:
    """The model and the adapter in the settings, and how the model is to be read. Raises `ModelMissing` or `ModelRefused`."""
    adapter = resolve_adapter(settings.adapter, settings.models_folder) if settings.adapter else None
    return ModelFiles(resolve(settings.model, settings.models_folder), adapter, ways_of(settings))


def ways_of(settings: Settings) -> Ways:
    """How a person wants models to be read. Raises `ModelRefused` for an unknown chat shape."""
    from edge_agent.model.ways import Ways

    return Ways(Way(settings.profile or "", settings.answers or "", settings.chat_shape or ""), settings.data_folder)


def ways_for(files: ModelFiles) -> Ways:
    """How these files are to be read; without anything else, as they say themselves."""
    from edge_agent.model.ways import Ways

    return files.ways or Ways()


def identified(files: ModelFiles) -> ModelFacts:
    """The facts of a model file, with the profile by which it is read, and of the adapter on it. Raises `ModelMissing`, `ModelRefused`."""
    facts = identify(files.path)
    facts = ways_for(files).facts(files.path, facts)
    return replace(facts, adapter_sha256=sha256_of(files.adapter)) if files.adapter else facts


def identify(path: pathlib.Path) -> ModelFacts:
    """The name, sha256, quantization and own profile of a GGUF; "" for a profile that a person must name. Reads the whole file once."""
    from edge_agent.model.gguf import read_header

    header = read_header(path)
    return ModelFacts(
        name=path.stem,
        sha256=sha256_of(path),
        quantization=header.quantization,
        architecture=header.architecture,
        profile=from_metadata(header.metadata).to_json() if is_known(header.metadata) else "",
    )


def sha256_of(path: pathlib.Path) -> str:
    """The sha256 of a file, in hexadecimal. Raises `ModelMissing` if the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelMissing(f"Cannot read the file '{path}' ({error.strerror}); check the path.") from error


def recorded(path: pathlib.Path, folder: pathlib.Path) -> Pulled | None:
    """The record of the pull of the model file `path`, or None if it was not pulled into `folder`."""
    from edge_agent.model.pulled import load

    if path.parent.resolve() != folder.resolve():
        return None
    return next((record for record in load(folder) if record.file == path.name), None)


def alias_of(file: str) -> str | None:
    """The catalogue name that a file name belongs to: `foggen` for "FogGen-0.6B-Q4_K_M.gguf"."""
    names = {f"{entry.file_name}-{_quantization(file)}.gguf": entry.name for entry in entries().values() if entry.file_name}
    return names.get(file)


def _quantization(file: str) -> str:
    from edge_agent.model.gguf import QUANTIZATIONS

    return next((q for q in QUANTIZATIONS.values() if file.endswith(f"-{q}.gguf")), "")


def _entry(name: str, table: dict[str, Any]) -> Entry:
    values = {key: value for key, value in table.items() if value != UNPINNED}
    return Entry(name=name, **values)


def _file_of(entry: Entry, folder: pathlib.Path | None) -> pathlib.Path:
    if entry.bundled_file:
        return _bundled(entry.bundled_file)
    from edge_agent.model.pulled import load

    records = [record for record in load(folder) if record.alias == entry.name] if folder else []
    for record in reversed(records):
        assert folder is not None and record.file is not None
        if (folder / record.file).is_file():
            return folder / record.file
    raise ModelMissing(
        f"The model '{entry.name}' is not on this device; run `edge-agent pull {entry.name}` to fetch it or to see how to make it."
    )


def _bundled(name: str) -> pathlib.Path:
    """A file that comes with edge-agent: in the installed package, or in the checkout it runs from."""
    for folder in (_PACKAGE / "bundled", _PACKAGE.parent / "models", _PACKAGE.parent / "models" / "demo"):
        if (folder / name).is_file():
            return folder / name
    raise ModelMissing(f"The file '{name}', which comes with edge-agent, is missing; install edge-agent again.")
