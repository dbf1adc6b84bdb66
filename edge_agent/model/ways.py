"""How each model file of this device is read, where a person or a measurement decided that: as FogGen or plain, and by which answers.

Owns `ways.json` in the data folder. Knows no question. Invariants: what is remembered belongs to one file, by its sha256; what cannot be
understood there counts as not remembered, for that file alone.
"""

from __future__ import annotations

import contextlib
import logging
import pathlib
from dataclasses import asdict, dataclass, replace

from edge_agent.core.errors import ModelRefused, StorageError
from edge_agent.core.records import ModelFacts
from edge_agent.model import entries, gguf
from edge_agent.model.profile import AS_IT_SAYS, Profile, Way, from_metadata
from edge_agent.model.shapes import SHAPES

FILE = "ways.json"
_log = logging.getLogger("edge_agent")


@dataclass(frozen=True, slots=True)
class Ways:
    """What a person `wanted` for this command, and the `folder` that remembers it; None: nothing is remembered."""

    wanted: Way = AS_IT_SAYS
    folder: pathlib.Path | None = None

    def facts(self, path: pathlib.Path, facts: ModelFacts) -> ModelFacts:
        """The facts of the file at `path` with the profile by which it is read. Remembers what a person wanted for it.

        `facts` have the profile that the file has by itself, or "". Raises `ModelMissing` or `ModelRefused`.
        """
        if facts.profile and self.way(facts.sha256) == AS_IT_SAYS:
            return facts
        return replace(facts, profile=self.profile(facts.sha256, path, gguf.read_model(path)).to_json())

    def way(self, sha256: str) -> Way:
        """How a file is to be read: what is wanted now, and what is remembered of it."""
        return self.wanted.over(load(self.folder, sha256) if self.folder else AS_IT_SAYS)

    def profile(self, sha256: str, path: pathlib.Path, header: gguf.Header) -> Profile:
        """The profile by which the file at `path` is read. Remembers what a person wanted for it, if the file can be read so.

        Raises `ModelRefused`.
        """
        way = self.way(sha256)
        profile = from_metadata(header.metadata, way)
        if self.folder and way != load(self.folder, sha256):
            if self.wanted.chat_shape:
                _check_tokens(profile, path, header)
            try:
                save(self.folder, sha256, way)
            except StorageError as error:  # a full disk costs the next command a flag, not this one its answer
                _log.warning("edge-agent: %s", error)
        return profile


def _check_tokens(profile: Profile, path: pathlib.Path, header: gguf.Header) -> None:
    """Raise `ModelRefused` if a vocabulary lacks a special token of the prompt. A shape that cannot be used would be remembered."""
    missing = set(profile.shape.special)
    with contextlib.suppress(KeyError):  # no vocabulary: llama.cpp says so
        missing -= {text.decode(errors="replace") for text in gguf.read_texts(path, header, "tokenizer.ggml.tokens")}
        if missing:
            raise ModelRefused(
                f"The vocabulary of the model has no token '{min(missing)}', which the chat shape {profile.prompt} needs; name another "
                f"--chat-shape, one of: {', '.join(SHAPES)}."
            )


def load(folder: pathlib.Path, sha256: str) -> Way:
    """How a model file is to be read; nothing if nobody decided."""
    with contextlib.suppress(TypeError, ModelRefused):
        return Way(**(entries.read(folder / FILE, sha256) or {}))
    return AS_IT_SAYS


def save(folder: pathlib.Path, sha256: str, way: Way) -> None:
    """Remember how a model file is to be read. Raises `StorageError`."""
    entries.put(folder / FILE, sha256, {name: value for name, value in asdict(way).items() if value})
