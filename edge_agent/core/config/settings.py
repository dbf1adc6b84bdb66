"""All settings: what each is called, what it means, and what it may be.

Owns the name, check, unit, default and meaning of every setting. `loading.py` finds their values; neither knows their use. Invariant:
a `Settings` holds only checked values, and a secret is never shown.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, NamedTuple

from edge_agent.core.config import checks
from edge_agent.core.config.checks import FOREVER, POLICIES
from edge_agent.core.config.limits import (
    DAY_S,
    BudgetLimits,
    DiskLimits,
    Limits,
    QueueLimits,
    Retention,
)

PREFIX = "EDGE_AGENT_"
HOME = "EDGE_AGENT_HOME"
CLOUD_DEADLINE_S = 15.0  # how long a person waits for the cloud


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
    profile: str | None = _setting(
        None,
        checks.profile,
        "How the model is read: `foggen`, or `plain` if it prints no confidence; without it, as remembered, or as its file says.",
        environment="EDGE_AGENT_PROFILE",
    )
    answers: str | None = _setting(
        None,
        checks.answers,
        "How a plain model answers: with a `letter`, or with the text of an `option`, scored by each token, or, as "
        "`option-prior`, against its probability without the question; without it, as remembered, or with a letter.",
        environment="EDGE_AGENT_ANSWERS",
    )
    chat_shape: str | None = _setting(
        None,
        checks.text,
        "The chat shape of a plain model whose file has an unknown chat template, such as `chatml-direct` or `llama-3`.",
        environment="EDGE_AGENT_CHAT_SHAPE",
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

    kiosk: bool = _setting(
        False, checks.yes_or_no, "Whether `serve` is for visitors on a wall: their questions are kept for `kiosk_keep_days` only."
    )
    kiosk_deck: str | None = _setting(
        None, checks.path, "The questions that visitors can pick, one JSON object a line; without it, those that come with edge-agent."
    )
    kiosk_language: str = _setting("en", checks.language, "The language of the visitor's page at its start: `en`, `kk` or `ru`.")
    kiosk_idle_s: float = _setting(
        60.0, checks.seconds, "After how long without a touch the visitor's page warns; 20 seconds later it starts over.", "seconds"
    )
    kiosk_keep_days: float = _setting(7.0, checks.positive, "How long questions of a kiosk are kept.", "days")

    @property
    def kept_days(self) -> float | str:
        """How long questions are kept: of a kiosk, the shorter of `keep_days` and `kiosk_keep_days`."""
        if not self.kiosk:
            return self.keep_days
        return self.kiosk_keep_days if self.keep_days == FOREVER else min(float(self.keep_days), self.kiosk_keep_days)

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
        keep_s = None if self.kept_days == FOREVER else float(self.kept_days) * DAY_S
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


FIELDS: dict[str, Field[Any]] = {one.name: one for one in fields(Settings) if one.metadata}
DECLARED = [Declared(name, one.metadata["meaning"], one.metadata["unit"], one.default, one.metadata["environment"], one.repr)
            for name, one in FIELDS.items()]  # fmt: skip
SECRETS = frozenset(name for name, one in FIELDS.items() if not one.repr)
ENVIRONMENT = {one.name: one.environment for one in DECLARED if one.environment}
DEFAULT_LIMITS = Settings(pathlib.Path(), pathlib.Path(), pathlib.Path()).limits


def public(found: Settings, name: str) -> dict[str, Any]:
    """A setting's `value` as JSON can hold it; of a secret only whether it is `set`."""
    value = getattr(found, name)
    return {"set": bool(value)} if name in SECRETS else {"value": list(value) if isinstance(value, tuple) else value}


def checked(name: str, value: Any, source: str) -> Any:
    """The value of a setting in its right type. Raises `BadSetting` that names `source`."""
    return FIELDS[name].metadata["check"](value, source)
