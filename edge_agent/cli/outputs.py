"""The files that a command writes because a person named them: never over what it reads, and never over each other.

Owns which files of a command and of this device must stay; `core.files` compares them and refuses devices and folders. Invariant: a
refusal comes before any model or cloud is asked.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping

from edge_agent.core.config import settings
from edge_agent.core.files import check_output, not_written, replacing
from edge_agent.model.catalog import ModelFiles

Outputs = Iterable[tuple[pathlib.Path | None, str]]
"""Files to write, each with what it will hold; None where a person named none."""


def check_outputs(config: settings.Settings, outputs: Outputs, inputs: Mapping[pathlib.Path, str]) -> None:
    """Refuse an output that is an input, a file of this device, another output, a folder or a device. Raises `StorageError`."""
    taken = {**_own(config), **inputs}
    for path, what in outputs:
        if path is not None:
            check_output(path, taken)
            taken[path] = what


def model_files(files: Iterable[ModelFiles]) -> dict[pathlib.Path, str]:
    """The files of models, as inputs."""
    found = {}
    for each in files:
        found[each.path] = "the model"
        if each.adapter:
            found[each.adapter] = "the adapter"
    return found


def data_files(name: str | None, what: str) -> dict[pathlib.Path, str]:
    """The files of a data set or of recorded answers, as inputs: one file, or those of a folder; none for stdin. Raises `BadData`."""
    from edge_agent.measure.sets.loading import question_files

    if name is None or name == "-":
        return {}
    path = pathlib.Path(name)
    return dict.fromkeys(question_files(path)[0] if path.is_dir() else [path], what)


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a whole text file, or leave the old one. Raises `StorageError`."""
    try:
        with replacing(path, "w", private=False) as file:
            file.write(text)
    except OSError as error:
        raise not_written(path, error) from error


def _own(config: settings.Settings) -> dict[pathlib.Path, str]:
    """The files of this device that nothing may be written over, whether they exist or not."""
    own = {config.database: "the decisions of this device", config.config_file: "the settings of this device"}
    for name in (config.cloud_key_file, config.cloud_ca_file, config.serve_token_file, config.operator_token_file):
        if name:
            own[pathlib.Path(name).expanduser()] = "a key of this device"
    for folder, pattern, what in (
        (config.models_folder, "*.gguf", "a model"),
        (config.calibrations_folder, "*.json", "a calibration"),
    ):
        own |= dict.fromkeys(folder.glob(pattern) if folder.is_dir() else [], what)
    return own
