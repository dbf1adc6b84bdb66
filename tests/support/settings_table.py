"""The table of docs/settings.md, from what `core/settings.py` declares."""

from dataclasses import MISSING, fields
from typing import Any

from edge_agent.core import settings

FOLDERS = {"data_folder", "cache_folder", "config_file"}  # not settings: EDGE_AGENT_HOME moves all three

# name -> unit and meaning, as long as the settings do not say them themselves
_WORDS = {
    "model": ("", "A `.gguf` file, or a name that `edge-agent models` lists."),
    "tau": ("0 to 1", "An answer is kept when the confidence is at least this; without it, the model's own threshold holds."),
    "policy": ("", "Who may answer: `prefer_local`, `only_local`, `prefer_cloud` or `only_cloud`."),
    "adapter": ("", "A GGUF adapter to load on top of the model."),
    "cloud_url": ("", "Base address of an OpenAI-compatible API; without it there is no cloud."),
    "cloud_model": ("", "The name of the model to ask there."),
    "cloud_key": ("", "The API key; it must not be in config.toml."),
    "cloud_key_file": ("", "A file with the API key that only its owner can read (`chmod 600`)."),
    "cloud_ca_file": ("", "Certificates of a private certificate authority, in PEM format."),
    "cloud_proxy": ("", "Address of an HTTP proxy for calls to the cloud."),
    "cloud_deadline_s": ("seconds", "How long a person waits for the cloud, name resolution included."),
    "queue_max_rows": ("questions", "How many questions may wait; a full queue refuses new ones (reason `queue_full`)."),
    "queue_max_mib": ("MiB", "How large all waiting questions together may be."),
    "queue_ttl_days": ("days", "How long a question waits for the cloud before it expires."),
    "keep_days": ("days", 'How long a question is kept after it was last asked, with all its answers; or `"forever"`.'),
    "answers_max_rows": ("answers", "How many answers of the cloud are kept; the least recently used are deleted first."),
    "answers_max_mib": ("MiB", "How large all kept answers of the cloud together may be."),
    "cache_min_free_mib": ("MiB", "With less free disk space, only questions that wait for the cloud are stored."),
    "queue_min_free_mib": ("MiB", "With less free disk space, nothing new is queued (reason `disk_low`)."),
    "budget_calls_per_day": ("calls", "The most calls to the cloud in 24 hours."),
    "budget_calls_per_month": ("calls", "The most calls to the cloud in 31 days."),
    "budget_per_day": ("currency of the prices", "The most money to spend in 24 hours."),
    "budget_per_month": ("currency of the prices", "The most money to spend in 31 days."),
    "cloud_prompt_price": ("per million tokens", "What the cloud charges for the tokens of a question."),
    "cloud_completion_price": ("per million tokens", "What the cloud charges for the tokens of an answer."),
    "never_send": ("", "Patterns; a question that contains one never leaves the device."),
    "redact": ("", "Patterns; what they match is replaced by `[redacted]` before a question is queued or sent."),
    "redact_built_in": ("", "Also replace e-mail addresses, phone, card and account numbers, and Kazakh identification numbers."),
}


def settings_table() -> str:
    """One row for each setting: name, meaning, unit, default, environment variable."""
    rows = ["| setting | meaning | unit | default | environment |", "|---|---|---|---|---|"]
    for field in fields(settings.Settings):
        if field.name not in FOLDERS:
            assert field.default is not MISSING
            unit, meaning = _WORDS[field.name.replace("_mb", "_mib")]
            variable = settings.ENVIRONMENT.get(field.name)
            rows.append(f"| `{field.name}` | {meaning} | {unit} | {_shown(field.default)} | {f'`{variable}`' if variable else ''} |")
    return "\n".join(rows) + "\n"


def _shown(value: Any) -> str:
    if value is None or value == ():
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else f'{value:g}' if isinstance(value, float) else value}`"
