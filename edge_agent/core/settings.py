"""Where a setting comes from: flag, then environment, then `config.toml`, then the default.

Owns the names of settings, the folders and their checks; knows nothing of what they are used for. Invariant: the
cloud key comes from the environment, a file that only its owner can read, or a systemd credential, and is never shown.
"""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import platformdirs

from edge_agent.core.errors import BadSetting

POLICIES = ("prefer_local", "only_local", "prefer_cloud", "only_cloud")
DEFAULT_MODEL = "demo"

# setting -> environment variable; config.toml has the same settings under their own names, except the key
ENVIRONMENT = {
    "model": "EDGE_AGENT_MODEL",
    "tau": "EDGE_AGENT_TAU",
    "policy": "EDGE_AGENT_POLICY",
    "adapter": "EDGE_AGENT_ADAPTER",
    "cloud_url": "EDGE_AGENT_CLOUD_URL",
    "cloud_model": "EDGE_AGENT_CLOUD_MODEL",
    "cloud_key": "EDGE_AGENT_CLOUD_KEY",
    "cloud_key_file": "EDGE_AGENT_CLOUD_KEY_FILE",
    "keep_days": "EDGE_AGENT_KEEP_DAYS",
}
FOREVER = "forever"
HOME = "EDGE_AGENT_HOME"
CREDENTIALS, CREDENTIAL = "CREDENTIALS_DIRECTORY", "edge-agent-cloud-key"  # systemd: LoadCredential=edge-agent-cloud-key:/path
_MAX_KEY_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, checked. `tau` None means the model's own; no `cloud_url` means no cloud, no `adapter` the model alone."""

    data_folder: pathlib.Path
    cache_folder: pathlib.Path
    config_file: pathlib.Path
    model: str = DEFAULT_MODEL
    tau: float | None = None
    policy: str = POLICIES[0]
    adapter: str | None = None
    cloud_url: str | None = None
    cloud_model: str = "default"
    cloud_key: str | None = field(default=None, repr=False)
    cloud_key_file: str | None = None
    cloud_ca_file: str | None = None
    cloud_proxy: str | None = None
    cloud_deadline_s: float = 15.0  # for a person who waits
    queue_max_rows: int = 10_000
    queue_max_mb: float = 64.0
    queue_ttl_days: float = 7.0
    keep_days: float | str = 90.0  # after it was last asked, a question is forgotten; or FOREVER
    answers_max_rows: int = 100_000  # of the cloud's, kept to be used again
    answers_max_mb: float = 64.0
    cache_min_free_mib: int = 64  # with less of the disk free, only what waits for the cloud is stored
    queue_min_free_mib: int = 32  # with less, nothing new is queued
    budget_calls_per_day: int | None = None
    budget_calls_per_month: int | None = None
    budget_per_day: float | None = None  # in the currency of the prices
    budget_per_month: float | None = None
    cloud_prompt_price: float = 0.0  # per million tokens
    cloud_completion_price: float = 0.0
    never_send: tuple[str, ...] = ()
    redact: tuple[str, ...] = ()
    redact_built_in: bool = True

    @property
    def database(self) -> pathlib.Path:
        """The one SQLite file."""
        return self.data_folder / "edge-agent.db"

    @property
    def models_folder(self) -> pathlib.Path:
        """Where pulled models lie."""
        return self.data_folder / "models"


def load(flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from `flags` (None values do not count), the environment and `config.toml`.

    Raises `BadSetting` naming the value, where it came from, and what would be right.
    """
    settings, wrong = examine(flags, environment)
    if wrong:
        raise wrong[0]
    return settings


def examine(flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None) -> tuple[Settings, list[BadSetting]]:
    """As `load`, with all that is wrong instead of an exception: a wrong setting is as if nobody had made it."""
    environment, flags = os.environ if environment is None else environment, flags or {}
    wrong: list[BadSetting] = []
    values: dict[str, Any] = {}
    found: dict[str, Any] = {}
    try:
        folders = _folders(environment)
    except BadSetting as error:
        wrong.append(error)
        folders = _folders({})
    with _noted(wrong):
        found = _read_config(folders[2], wrong)
    if unknown := sorted(set(flags) - _NAMES):
        wrong.append(BadSetting(f"There is no setting '{unknown[0]}'; known: {', '.join(sorted(_NAMES))}."))
    given = [(name, value, f"{name} in {folders[2]}") for name, value in found.items()]
    given += [(name, environment[variable], variable) for name, variable in ENVIRONMENT.items() if environment.get(variable)]
    given += [(name, value, f"the setting {name}") for name, value in flags.items() if value is not None and name in _NAMES]
    for name, value, source in given:
        with _noted(wrong):
            values[name] = checked(name, value, source)
    if "cloud_key" not in values:
        with _noted(wrong):
            values["cloud_key"] = _key_from_file(values.get("cloud_key_file"), environment)
    return Settings(*folders, **values), wrong


@contextlib.contextmanager
def _noted(wrong: list[BadSetting]) -> Iterator[None]:
    try:
        yield
    except BadSetting as error:
        wrong.append(error)


def _key_from_file(named: str | None, environment: Mapping[str, str]) -> str | None:
    """The key from the file that was named, or else from systemd's credential; None if there is neither."""
    if named is not None:
        path = pathlib.Path(named).expanduser()
    elif folder := environment.get(CREDENTIALS):
        path = pathlib.Path(folder) / CREDENTIAL
        if not path.exists():
            return None
    else:
        return None
    try:
        with path.open("rb") as file:
            if named is not None and os.fstat(file.fileno()).st_mode & 0o077:
                raise BadSetting(f"The key file '{path}' can be read by others; make it its owner's alone (chmod 600).")
            text = file.read(_MAX_KEY_BYTES).decode("ascii").strip()
    except OSError as error:
        raise BadSetting(f"The key file '{path}' cannot be read ({error.strerror}); check cloud_key_file.") from error
    except UnicodeDecodeError:
        text = ""
    if not text or "\n" in text:
        raise BadSetting(f"The key file '{path}' does not hold one key in one line; check cloud_key_file.")
    return str(checked("cloud_key", text, f"The key in '{path}'"))


def _folders(environment: Mapping[str, str]) -> tuple[pathlib.Path, pathlib.Path, pathlib.Path]:
    if home := environment.get(HOME):
        try:
            folder = pathlib.Path(home).expanduser()
        except RuntimeError as error:
            raise BadSetting(f"{HOME} is {home!r}, and there is no such home folder; give a folder.") from error
        return folder, folder / "cache", folder / "config.toml"
    dirs = platformdirs.PlatformDirs("edge-agent", appauthor=False)
    return dirs.user_data_path, dirs.user_cache_path, dirs.user_config_path / "config.toml"


def _read_config(path: pathlib.Path, wrong: list[BadSetting]) -> dict[str, Any]:
    """The settings in the file that may stand there; those that may not are added to `wrong`."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadSetting(f"The config file '{path}' is not valid TOML ({error}); correct it or remove it.") from error
    except OSError as error:
        raise BadSetting(f"The config file '{path}' cannot be read ({error.strerror}).") from error
    if "cloud_key" in data:
        variable = ENVIRONMENT["cloud_key"]
        wrong.append(BadSetting(f"The config file '{path}' holds a cloud_key; keep it in the environment as {variable}."))
    known = _NAMES - {"cloud_key"}
    for name in ("model", "adapter"):
        if isinstance(data.get(name), str) and data[name].endswith(".gguf"):
            data[name] = str(path.parent / data[name])  # a relative path counts from the file that names it
    if unknown := sorted(set(data) - _NAMES):
        wrong.append(BadSetting(f"The config file '{path}' has the unknown setting '{unknown[0]}'; known: {', '.join(sorted(known))}."))
    return {name: value for name, value in data.items() if name in known}


def checked(name: str, value: Any, source: str) -> Any:
    """The value of a setting in its right type, or `BadSetting` naming `source`."""
    check: Callable[[Any, str], Any] = _CHECKS.get(name, _text)
    return check(value, source)


def _text(value: Any, source: str) -> str:
    if not isinstance(value, str) or not value.strip() or any("\ud800" <= c <= "\udfff" for c in value):
        raise BadSetting(f"{source} is {value!r}; give a text in UTF-8.")
    return value


def _path(value: Any, source: str) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise BadSetting(f"{source} is {value!r}; give a path or a name.")
    return value


def _tau(value: Any, source: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 1:
        raise BadSetting(f"{source} is {value!r}; give a number from 0 to 1.")
    return number


def _positive(value: Any, source: str) -> float:
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not 0 < number < math.inf:
        raise BadSetting(f"{source} is {value!r}; give a number above 0.")
    return float(number)


def _days(value: Any, source: str) -> float | str:
    if value == FOREVER:
        return FOREVER
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise BadSetting(f'{source} is {value!r}; give a number of days above 0, or "{FOREVER}".')
    return number


def _count(value: Any, source: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadSetting(f"{source} is {value!r}; give a whole number from 0.")
    return value


def _texts(value: Any, source: str) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(text, str) and text for text in value):
        raise BadSetting(f"{source} is {value!r}; give a list of texts.")
    return tuple(value)


def _yes_or_no(value: Any, source: str) -> bool:
    if not isinstance(value, bool):
        raise BadSetting(f"{source} is {value!r}; give true or false.")
    return value


def _policy(value: Any, source: str) -> str:
    if value not in POLICIES:
        raise BadSetting(f"{source} is {value!r}; give one of {', '.join(POLICIES)}.")
    return str(value)


def _key(value: Any, source: str) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise BadSetting(f"{source} has a character that no HTTP header can carry; check how it was copied.")
    return value.strip()


_NAMES = {f.name for f in fields(Settings)} - {"data_folder", "cache_folder", "config_file"}
_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "tau": _tau, "policy": _policy, "cloud_key": _key, "model": _path, "adapter": _path, "cloud_key_file": _path, "cloud_ca_file": _path,
    "cloud_deadline_s": _positive, "queue_max_rows": _count, "queue_max_mb": _positive, "queue_ttl_days": _positive,
    "keep_days": _days, "answers_max_rows": _count, "answers_max_mb": _positive, "cache_min_free_mib": _count, "queue_min_free_mib": _count,
    "budget_calls_per_day": _count, "budget_calls_per_month": _count, "budget_per_day": _positive, "budget_per_month": _positive,
    "cloud_prompt_price": _positive, "cloud_completion_price": _positive,
    "never_send": _texts, "redact": _texts, "redact_built_in": _yes_or_no,
}  # fmt: skip
