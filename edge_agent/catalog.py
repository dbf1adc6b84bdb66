"""Model names and files: which file a name means, and what is known of a file.

Owns the way from `demo` or a path to a GGUF, and a file's identity (its sha256). Never runs a model. Invariant: a
name never falls back to another model; what is not there is `ModelMissing`.
"""

from __future__ import annotations

import hashlib
import pathlib
import tomllib
from typing import Any

from edge_agent import gguf_check
from edge_agent.errors import ModelMissing
from edge_agent.profile import from_metadata
from edge_agent.records import ModelFacts

_PACKAGE = pathlib.Path(__file__).parent


def resolve(model: str) -> pathlib.Path:
    """The GGUF file of a catalogue name or a path; raises `ModelMissing`."""
    entries = entries_by_name()
    if model in entries:
        file = entries[model].get("bundled_file")
        if file is None:
            raise ModelMissing(
                f"The model '{model}' is published as safetensors ({entries[model]['repo']}); download that folder, "
                "make a GGUF with `python -m convert FOLDER --out DIR`, and give the file's path."
            )
        return _bundled(file)
    try:
        path = pathlib.Path(model).expanduser()
        if path.is_file():
            return path
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelMissing(f"The model path '{model:.200}' cannot be used ({error}); check the path.") from error
    if path.suffix == ".gguf" or len(path.parts) > 1:
        raise ModelMissing(f"There is no model file '{model}'; check the path.")
    raise ModelMissing(f"There is no model '{model}'; give the path of a .gguf file, or one of: {', '.join(entries)}.")


def identify(path: pathlib.Path) -> ModelFacts:
    """What is to be known of a GGUF: its name, sha256, quantization and profile. Reads the whole file once."""
    header = gguf_check.read_header(path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return ModelFacts(
        name=path.stem,
        sha256=sha256,
        quantization=header.quantization,
        architecture=header.architecture,
        profile=from_metadata(header.metadata).to_json(),
    )


def entries_by_name() -> dict[str, dict[str, Any]]:
    """The catalogue: a name to what is known of the model (`summary`, `licence`, `repo` or `bundled_file`)."""
    entries: dict[str, dict[str, Any]] = tomllib.loads(_bundled("catalog.toml").read_text(encoding="utf-8"))
    return entries


def _bundled(name: str) -> pathlib.Path:
    """A file that comes with edge-agent: in the installed package, or in the checkout that it runs from."""
    for folder in (_PACKAGE / "bundled", _PACKAGE.parent / "models", _PACKAGE.parent / "models" / "demo"):
        if (folder / name).is_file():
            return folder / name
    raise ModelMissing(f"The file '{name}' that comes with edge-agent is missing; install edge-agent again.")
