"""All settings, and where each comes from: flag, then environment, then `config.toml`, then the default.

Owns the name, check, unit, default and meaning of every setting, and the folders. Knows nothing about their use.
Invariant: the cloud key comes from the environment, a file that only its owner can read, or a systemd credential, and is
never shown.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, NamedTuple

import platformdirs

from edge_agent.core.config import checks, secret_file
from edge_agent.core.config.checks import FOREVER, POLICIES
from edge_agent.core.config.limits import (
    DAY_S,
    MAX_CONFIG_BYTES,
    BudgetLimits,
    DiskLimits,
    Limits,
    QueueLimits,
    Retention,
    check_config_size,
)
from edge_agent.core.errors import BadSetting

_BEGIN = "EDGE_AGENT"
PREFIX = f"{_BEGIN}_"
HOME = "EDGE_AGENT_HOME"
CREDENTIALS, CREDENTIAL = "CREDENTIALS_DIRECTORY", "edge-agent-cloud-key"  # systemd: LoadCredential=edge-agent-cloud-key:/path
CLOUD_DEADLINE_S = 15.0  # how long a person waits for the cloud

# Old name -> new name, and the factor from the old unit to the new one. An old name works for one version.
RENAMED = {"queue_max_mb": ("queue_max_mib", 1e6 / (1 << 20)), "answers_max_mb": ("answers_max_mib", 1e6 / (1 << 20))}
_warned: set[str] = set()  # old names that this process has warned about


class Declared(NamedTuple):
    """What the documentation says about a setting; `unit` and `environment` are "" where there is none.

    A setting that is not `shown` is a secret.
    """

    name: str
    meaning: str
    unit: str
    default: Any
    environment: str
    shown: bool = True


def _setting(
    default: Any, check: Callable[[Any, str], Any], meaning: str, unit: str = "", environment: str = "", shown: bool = True
) -> Any:
    return field(default=default, repr=shown, metadata={"check": check, "meaning": meaning, "unit": unit, "environment": environment})


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, checked."""

    data_folder: pathlib.Path
    cache_folder: pathlib.Path
    config_file: pathlib.Path
    model: str = _setting("demo", checks.path, "A `.gguf` file, or a name that `edge-agent models` lists.", environment="EDGE_AGENT_MODEL")
    tau: float | None = _setting(
        None,
        checks.fraction,
        "An answer is kept when the printed confidence is at least this; without it, a calibration or the model's own threshold counts.",
        "0 to 1",
        "EDGE_AGENT_TAU",
    )
    calibration: str = _setting(
        "auto",
        checks.calibration,
        "Which calibration applies where no tau is given: `auto` for the newest of this model, `none`, or the start of its sha256.",
        environment="EDGE_AGENT_CALIBRATION",
    )
    policy: str = _setting(
        POLICIES[0],
        checks.policy,
        "Who may answer: `prefer_local`, `only_local`, `prefer_cloud` or `only_cloud`.",
        environment="EDGE_AGENT_POLICY",
    )
    adapter: str | None = _setting(None, checks.path, "A GGUF adapter to load on top of the model.", environment="EDGE_AGENT_ADAPTER")
    cloud_url: str | None = _setting(
        None, checks.address, "Base address of an OpenAI-compatible API; without it there is no cloud.", environment="EDGE_AGENT_CLOUD_URL"
    )
    cloud_model: str = _setting("default", checks.text, "The name of the model to ask there.", environment="EDGE_AGENT_CLOUD_MODEL")
    cloud_api: str = _setting(
        "auto",
        checks.cloud_api,
        "How the cloud is asked: `chat`, `systemone` or `decisions`; `auto` uses an API with probabilities where the cloud offers one.",
    )
    cloud_key: str | None = _setting(
        None, checks.header_value, "The API key; it must not be in config.toml.", environment="EDGE_AGENT_CLOUD_KEY", shown=False
    )
    cloud_key_file: str | None = _setting(
        None, checks.path, "A file with the API key that only its owner can read (`chmod 600`).", environment="EDGE_AGENT_CLOUD_KEY_FILE"
    )
    cloud_ca_file: str | None = _setting(None, checks.path, "Certificates of a private certificate authority, in PEM format.")
    cloud_proxy: str | None = _setting(
        None, checks.secret_text, "Address of an HTTP proxy for calls to the cloud; HTTP_PROXY does not count for them.", shown=False
    )
    cloud_deadline_s: float = _setting(
        CLOUD_DEADLINE_S, checks.seconds, "How long a person waits for the cloud, name resolution included.", "seconds"
    )
    cloud_max_tokens: int | None = _setting(
        None,
        checks.tokens,
        "The most tokens of a cloud's answer, thinking included; without it 256, and 4096 for a model that needs more.",
        "tokens",
    )
    cloud_temperature: float | str = _setting(
        0.0, checks.temperature, 'How freely the cloud\'s model chooses its words; `"none"` leaves it to the model.', "0 to 2"
    )
    cloud_extra_body: Mapping[str, Any] | None = _setting(
        None, checks.body_fields, 'More fields for the body of a request, such as `{ reasoning_effort = "low" }`.', "table"
    )
    cloud_extra_headers: Mapping[str, str] | None = _setting(
        None, checks.headers, "More headers for a request; their values are secrets, like the key.", "table", shown=False
    )
    queue_max_rows: int = _setting(
        10_000, checks.count, "How many questions may wait; a full queue refuses new ones (reason `queue_full`).", "questions"
    )
    queue_max_mib: float = _setting(64.0, checks.positive, "How large all waiting questions together may be.", "MiB")
    queue_ttl_days: float = _setting(7.0, checks.positive, "How long a question waits for the cloud before it expires.", "days")
    keep_days: float | str = _setting(
        90.0,
        checks.days,
        'How long a question is kept after it was last asked, with all its answers; or `"forever"`.',
        "days",
        "EDGE_AGENT_KEEP_DAYS",
    )
    answers_max_rows: int = _setting(
        100_000, checks.count, "How many answers of the cloud are kept; the least recently used are deleted first.", "answers"
    )
    answers_max_mib: float = _setting(64.0, checks.positive, "How large all kept answers of the cloud together may be.", "MiB")
    cache_min_free_mib: int = _setting(
        64, checks.count, "With less free disk space, only questions that wait for the cloud are stored.", "MiB"
    )
    queue_min_free_mib: int = _setting(32, checks.count, "With less free disk space, nothing new is queued (reason `disk_low`).", "MiB")
    budget_calls_per_day: int | None = _setting(None, checks.count, "The most calls to the cloud in 24 hours.", "calls")
    budget_calls_per_month: int | None = _setting(None, checks.count, "The most calls to the cloud in 31 days.", "calls")
    budget_per_day: float | None = _setting(None, checks.positive, "The most money to spend in 24 hours.", "currency of the prices")
    budget_per_month: float | None = _setting(None, checks.positive, "The most money to spend in 31 days.", "currency of the prices")
    cloud_prompt_price: float = _setting(0.0, checks.price, "What the cloud charges for the tokens of a question.", "per million tokens")
    cloud_completion_price: float = _setting(0.0, checks.price, "What the cloud charges for the tokens of an answer.", "per million tokens")
    never_send: tuple[str, ...] = _setting(
        (), checks.texts, "Patterns; a question that contains one never leaves the device.", "list of patterns"
    )
    redact: tuple[str, ...] = _setting(
        (), checks.texts, "Patterns; what they match is replaced by `[redacted]` before a question is queued or sent.", "list of patterns"
    )
    redact_built_in: bool = _setting(
        True, checks.yes_or_no, "Also replace e-mail addresses, phone, card and account numbers, and Kazakh identification numbers."
    )
    audit_share: float = _setting(
        0.0,
        checks.fraction,
        "The share of kept answers that are also sent to the cloud, when it is idle, to see how often it agrees.",
        "0 to 1",
    )
    serve_host: str = _setting("127.0.0.1", checks.text, "The address on which `serve` listens; any other than loopback needs a token.")
    serve_port: int = _setting(8640, checks.port, "The port on which `serve` listens; 0 takes a free one.")
    serve_hosts: tuple[str, ...] = _setting((), checks.texts, "More names by which clients may call this server.", "list of host names")
    serve_token_file: str | None = _setting(
        None, checks.path, "A file with the token that clients of `serve` must send; only its owner may read it."
    )
    operator_token_file: str | None = _setting(
        None, checks.path, "A file with the token for the operator's routes of `serve`; without one they are closed."
    )

    @property
    def database(self) -> pathlib.Path:
        """The one SQLite file."""
        return self.data_folder / "edge-agent.db"

    @property
    def models_folder(self) -> pathlib.Path:
        """The folder of pulled models."""
        return self.data_folder / "models"

    @property
    def calibrations_folder(self) -> pathlib.Path:
        """The folder of stored calibrations."""
        return self.data_folder / "calibrations"

    @property
    def limits(self) -> Limits:
        """What the settings allow, in bytes and seconds."""
        keep_s = None if self.keep_days == FOREVER else float(self.keep_days) * DAY_S
        return Limits(
            QueueLimits(self.queue_max_rows, int(self.queue_max_mib * (1 << 20)), self.queue_ttl_days * DAY_S),
            BudgetLimits(
                self.budget_calls_per_day, self.budget_calls_per_month, self.budget_per_day, self.budget_per_month,
                self.cloud_prompt_price, self.cloud_completion_price,
            ),
            Retention(keep_s, self.answers_max_rows, int(self.answers_max_mib * (1 << 20))),
            DiskLimits(self.cache_min_free_mib << 20, self.queue_min_free_mib << 20),
            self.audit_share,
        )  # fmt: skip


_FIELDS: dict[str, Field[Any]] = {one.name: one for one in fields(Settings) if one.metadata}
DECLARED = [Declared(name, one.metadata["meaning"], one.metadata["unit"], one.default, one.metadata["environment"], one.repr)
            for name, one in _FIELDS.items()]  # fmt: skip
SECRETS = frozenset(name for name, one in _FIELDS.items() if not one.repr)
ENVIRONMENT = {one.name: one.environment for one in DECLARED if one.environment}
DEFAULT_LIMITS = Settings(pathlib.Path(), pathlib.Path(), pathlib.Path()).limits


def public(found: Settings, name: str) -> dict[str, Any]:
    """A setting's `value` as JSON can hold it; of a secret only whether it is `set`."""
    value = getattr(found, name)
    return {"set": bool(value)} if name in SECRETS else {"value": list(value) if isinstance(value, tuple) else value}


def checked(name: str, value: Any, source: str) -> Any:
    """The value of a setting in its right type. Raises `BadSetting` that names `source`."""
    return _FIELDS[name].metadata["check"](value, source)


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
    if (setting := rest.lower()) in _FIELDS and setting not in ENVIRONMENT:
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
    if unknown := sorted(set(flags) - _FIELDS.keys()):
        wrong.append(BadSetting(f"There is no setting '{unknown[0]}'; known: {', '.join(sorted(_FIELDS))}."))
    given = [_Given(name, value, "file", f"{name} in {folders[2]}") for name, value in found.items()]
    for name, variable in ENVIRONMENT.items():
        if environment.get(variable):
            given.append(_Given(name, environment[variable], "environment", variable))
    for name, value in flags.items():
        if value is not None and name in _FIELDS:
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
    known = _FIELDS.keys() - {"cloud_key"}
    for name in ("model", "adapter"):
        if isinstance(data.get(name), str) and data[name].endswith(".gguf"):
            data[name] = str(path.parent / data[name])  # a relative path starts at the file that names it
    data = _renamed(data, f"in '{path}'")
    if unknown := sorted(data.keys() - _FIELDS.keys()):
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
