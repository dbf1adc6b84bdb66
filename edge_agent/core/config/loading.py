"""Finds the value of each setting: flag, then environment, then `config.toml`, then the default.

Owns these sources, their order, and the folders. What a setting may be is in `settings.py`. Invariant: the cloud key comes from the
environment, a file that only its owner can read, or a systemd credential, and is never shown.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import platformdirs

from edge_agent.core.config import secret_file
from edge_agent.core.config.limits import MAX_CONFIG_BYTES, check_config_size
from edge_agent.core.config.settings import ENVIRONMENT, FIELDS, HOME, PREFIX, Settings, checked
from edge_agent.core.errors import BadSetting

CREDENTIALS, CREDENTIAL = "CREDENTIALS_DIRECTORY", "edge-agent-cloud-key"  # systemd: LoadCredential=edge-agent-cloud-key:/path
_BEGIN = PREFIX.rstrip("_")
# Old name -> new name, and the factor from the old unit to the new one. An old name works for one version.
RENAMED = {"queue_max_mb": ("queue_max_mib", 1e6 / (1 << 20)), "answers_max_mb": ("answers_max_mib", 1e6 / (1 << 20))}
_warned: set[str] = set()  # old names that this process has warned about


def load(flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from `flags` (None values do not count), the environment and `config.toml`.

    Raises `BadSetting` that names the value, its source, and what is allowed.
    """
    settings, wrong = examine(flags, environment)
    if wrong:
        raise wrong[0]
    return settings


def examine(flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None) -> tuple[Settings, list[BadSetting]]:
    """Like `load`, but returns every problem instead of raising; a wrong setting gets its default."""
    environment = os.environ if environment is None else environment
    wrong: list[BadSetting] = []
    values: dict[str, Any] = {}
    folders, given = _given(flags or {}, environment, wrong)
    for one in given:
        with _noted(wrong):
            values[one.name] = checked(one.name, one.value, one.source)
    if "cloud_key" not in values:
        with _noted(wrong):
            values["cloud_key"] = _key_from_file(values.get("cloud_key_file"), environment)
    return Settings(*folders, **values), wrong


def sources(flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Where each setting comes from that does not have its default: "flag", an environment variable, or the path of `config.toml`."""
    environment = os.environ if environment is None else environment
    folders, given = _given(flags or {}, environment, [])
    found = {one.name: str(folders[2]) if one.kind == "file" else one.source if one.kind == "environment" else "flag" for one in given}
    if "cloud_key" not in found:
        with contextlib.suppress(BadSetting):
            if _key_from_file(examine(flags, environment)[0].cloud_key_file, environment):
                found["cloud_key"] = "cloud_key_file" if "cloud_key_file" in found else CREDENTIALS
    return found


def unknown_variables(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that begin like ours but are no setting, each with what was probably meant, or "".

    That is the name of a variable, or `NAME in config.toml` for a setting that has no variable.
    """
    environment = os.environ if environment is None else environment
    known = {*ENVIRONMENT.values(), HOME, "EDGE_AGENT_WRITE_DOCS"}
    unknown = sorted(name for name in environment if name.startswith(_BEGIN) and name not in known)
    unknown = [name for name in unknown if not name.startswith(f"{PREFIX}TEST_")]
    return {name: _meant(name.removeprefix(_BEGIN).lstrip("_"), sorted(known)) for name in unknown}


def _meant(rest: str, known: list[str]) -> str:
    """What a variable was meant to be that has this `rest` after our prefix."""
    if (setting := rest.lower()) in FIELDS and setting not in ENVIRONMENT:
        return f"{setting} in config.toml"
    from difflib import get_close_matches  # seldom needed, and `--help` imports this file

    found = get_close_matches(rest.upper(), [one.removeprefix(PREFIX) for one in known], 1)
    return PREFIX + found[0] if found else ""


class _Given(NamedTuple):
    """A value that was given somewhere; `kind` is file, environment or flag, `source` is what an error calls it."""

    name: str
    value: Any
    kind: str
    source: str


def _given(
    flags: Mapping[str, Any], environment: Mapping[str, str], wrong: list[BadSetting]
) -> tuple[tuple[pathlib.Path, pathlib.Path, pathlib.Path], list[_Given]]:
    """The folders, and every value that was given, the strongest last; what is wrong is added to `wrong`."""
    found: dict[str, Any] = {}
    try:
        folders = _folders(environment)
    except BadSetting as error:
        wrong.append(error)
        folders = _folders({})
    with _noted(wrong):
        found = _read_config(folders[2], wrong)
    flags = _renamed(dict(flags), "given by name")
    if unknown := sorted(set(flags) - FIELDS.keys()):
        wrong.append(BadSetting(f"There is no setting '{unknown[0]}'; known: {', '.join(sorted(FIELDS))}."))
    given = [_Given(name, value, "file", f"{name} in {folders[2]}") for name, value in found.items()]
    for name, variable in ENVIRONMENT.items():
        if environment.get(variable):
            given.append(_Given(name, environment[variable], "environment", variable))
    for name, value in flags.items():
        if value is not None and name in FIELDS:
            given.append(_Given(name, value, "flag", f"the setting {name}"))
    return folders, given


@contextlib.contextmanager
def _noted(wrong: list[BadSetting]) -> Iterator[None]:
    try:
        yield
    except BadSetting as error:
        wrong.append(error)


def _key_from_file(named: str | None, environment: Mapping[str, str]) -> str | None:
    """The key from the named file, otherwise from systemd's credential; None if there is neither."""
    if named is not None:
        path = pathlib.Path(named).expanduser()
    elif folder := environment.get(CREDENTIALS):
        path = pathlib.Path(folder) / CREDENTIAL
        if not path.exists():
            return None
    else:
        return None
    text = secret_file.read(path, "cloud_key_file", must_be_private=named is not None)
    return str(checked("cloud_key", text, f"The key in '{path}'"))


def _folders(environment: Mapping[str, str]) -> tuple[pathlib.Path, pathlib.Path, pathlib.Path]:
    if home := environment.get(HOME):
        try:
            folder = pathlib.Path(home).expanduser()
        except RuntimeError as error:
            raise BadSetting(f"{HOME} is {home!r}, but that home folder does not exist; give another folder.") from error
        return folder, folder / "cache", folder / "config.toml"
    dirs = platformdirs.PlatformDirs("edge-agent", appauthor=False)
    return dirs.user_data_path, dirs.user_cache_path, dirs.user_config_path / "config.toml"


def _read_config(path: pathlib.Path, wrong: list[BadSetting]) -> dict[str, Any]:
    """The settings in the file that are allowed there; the others are added to `wrong`."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CONFIG_BYTES + 1)
        check_config_size(path, len(text))
        data = tomllib.loads(text.decode())
    except (FileNotFoundError, NotADirectoryError):  # a home that cannot be a folder is the database's problem
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadSetting(f"The config file '{path}' is not valid TOML ({error}); correct it or remove it.") from error
    except OSError as error:
        raise BadSetting(f"The config file '{path}' cannot be read ({error.strerror}); check its permissions.") from error
    if "cloud_key" in data:
        variable = ENVIRONMENT["cloud_key"]
        wrong.append(BadSetting(f"The config file '{path}' contains a cloud_key; remove it and set {variable} in the environment."))
    known = FIELDS.keys() - {"cloud_key"}
    for name in ("model", "adapter"):
        if isinstance(data.get(name), str) and data[name].endswith(".gguf"):
            data[name] = str(path.parent / data[name])  # a relative path starts at the file that names it
    data = _renamed(data, f"in '{path}'")
    if unknown := sorted(data.keys() - FIELDS.keys()):
        wrong.append(BadSetting(f"The config file '{path}' has the unknown setting '{unknown[0]}'; known: {', '.join(sorted(known))}."))
    return {name: value for name, value in data.items() if name in known}


def _renamed(data: dict[str, Any], where: str) -> dict[str, Any]:
    """The settings under their new names and in their new units; warns about each old name once."""
    for old, (new, factor) in RENAMED.items():
        if old in data:
            value = data.pop(old)
            scaled = value * factor if isinstance(value, (int, float)) and not isinstance(value, bool) else value
            data.setdefault(new, scaled)
            if old not in _warned:
                import logging  # seldom needed, and `--help` imports this file

                _warned.add(old)
                logging.getLogger("edge_agent").warning(
                    "edge-agent: the setting %s %s is now called %s, in MiB; rename it.", old, where, new
                )
    return data
