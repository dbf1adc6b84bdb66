"""Model names and files: which file a name means, and what is known of a file.

Owns the way from `demo`, the name of a pulled model or a path to a GGUF, and a file's identity (its sha256). Never runs
a model, never asks the network. Invariant: a name never falls back to another model; what is not there is `ModelMissing`.
"""

from __future__ import annotations

import hashlib
import pathlib
import tomllib
from dataclasses import dataclass, field
from typing import Any

from edge_agent.core.errors import ModelMissing
from edge_agent.core.records import ModelFacts
from edge_agent.model import gguf, pulled
from edge_agent.model.profile import from_metadata

UNPINNED = "unpinned"
_PACKAGE = pathlib.Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the catalogue: one with a `bundled_file` is here, the others are published in the Hub's `repo`.

    `revision` (a commit) and `sha256` (file in the repo to hash) are None and empty while they are unpinned;
    `architecture`, `answer_kind` and `tau` are what a GGUF of it says, `file_name` and `quantization` how to make one.
    """

    name: str
    summary: str
    licence: str
    architecture: str
    repo: str | None = None
    bundled_file: str | None = None
    answer_kind: str = "letter"
    tau: float = 0.5
    file_name: str | None = None
    quantization: str | None = None
    revision: str | None = None
    sha256: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files that make a model: a GGUF and, if there is one, the adapter on it."""

    path: pathlib.Path
    adapter: pathlib.Path | None = None

    @property
    def size_bytes(self) -> int:
        """What they take on the disk."""
        return self.path.stat().st_size + (self.adapter.stat().st_size if self.adapter else 0)

    def __str__(self) -> str:
        return f"{self.path}" + (f" with {self.adapter}" if self.adapter else "")


def entries() -> dict[str, Entry]:
    """The catalogue, by name."""
    tables: dict[str, dict[str, Any]] = tomllib.loads(_bundled("catalog.toml").read_text(encoding="utf-8"))
    return {name: Entry(name=name, **{k: v for k, v in table.items() if v != UNPINNED}) for name, table in tables.items()}


def resolve(model: str, folder: pathlib.Path | None = None) -> pathlib.Path:
    """The GGUF file of a catalogue name, a path, or a model in `folder`, where pulled ones lie; raises `ModelMissing`."""
    known = entries()
    if model in known:
        return _file_of(known[model], folder)
    try:
        path = pathlib.Path(model).expanduser()
        if path.is_file():
            return path
        if folder and path.name == model and (folder / f"{model}.gguf").is_file():
            return folder / f"{model}.gguf"
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelMissing(f"The model path '{model:.200}' cannot be used ({error}); check the path.") from error
    if path.suffix == ".gguf" or len(path.parts) > 1:
        raise ModelMissing(f"There is no model file '{model}'; check the path.")
    raise ModelMissing(f"There is no model '{model}'; give the path of a .gguf file, or one of: {', '.join(known)}.")


def identify(path: pathlib.Path) -> ModelFacts:
    """What is to be known of a GGUF: its name, sha256, quantization and profile. Reads the whole file once."""
    header = gguf.read_header(path)
    return ModelFacts(
        name=path.stem,
        sha256=sha256_of(path),
        quantization=header.quantization,
        architecture=header.architecture,
        profile=from_metadata(header.metadata).to_json(),
    )


def sha256_of(path: pathlib.Path) -> str:
    """The sha256 of a file, in hexadecimal; raises `ModelMissing` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelMissing(f"The file '{path}' cannot be read ({error.strerror}); check the path.") from error


def recorded(path: pathlib.Path, folder: pathlib.Path) -> pulled.Pulled | None:
    """What was recorded when the model file at `path` was pulled, if it is one of those in `folder`."""
    if path.parent.resolve() != folder.resolve():
        return None
    return next((record for record in pulled.load(folder) if record.file == path.name), None)


def alias_of(file: str) -> str | None:
    """The catalogue name of the model that a GGUF of this name would be: "FogGen-0.6B-Q4_K_M.gguf" is `foggen`."""
    names = {f"{entry.file_name}-{_quantization(file)}.gguf": entry.name for entry in entries().values() if entry.file_name}
    return names.get(file)


def _quantization(file: str) -> str:
    return next((q for q in gguf.QUANTIZATIONS.values() if file.endswith(f"-{q}.gguf")), "")


def _file_of(entry: Entry, folder: pathlib.Path | None) -> pathlib.Path:
    if entry.bundled_file:
        return _bundled(entry.bundled_file)
    records = [record for record in pulled.load(folder) if record.alias == entry.name] if folder else []
    for record in reversed(records):
        assert folder is not None and record.file is not None
        if (folder / record.file).is_file():
            return folder / record.file
    raise ModelMissing(
        f"The model '{entry.name}' is not on this device; `edge-agent pull {entry.name}` fetches it, or says how to make it."
    )


def _bundled(name: str) -> pathlib.Path:
    """A file that comes with edge-agent: in the installed package, or in the checkout that it runs from."""
    for folder in (_PACKAGE / "bundled", _PACKAGE.parent / "models", _PACKAGE.parent / "models" / "demo"):
        if (folder / name).is_file():
            return folder / name
    raise ModelMissing(f"The file '{name}' that comes with edge-agent is missing; install edge-agent again.")
