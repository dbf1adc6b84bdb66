"""The limits on the queue, the budget, retention, the disk and config.toml.

Owns the records, in bytes and seconds. The numbers come from settings (`Settings.limits`), so each default is written once.
They are named tuples: `edge-agent --help` imports this file, and dataclasses take longer to create.
"""

from __future__ import annotations

import pathlib
from typing import NamedTuple

from edge_agent.core.errors import BadSetting

DAY_S = 86_400.0
MAX_CONFIG_BYTES = 1 << 20  # of config.toml: reading more would delay every command
_DEAD_KEPT_S = 30 * DAY_S


def check_config_size(path: pathlib.Path, n_bytes: int) -> None:
    """Raises `BadSetting` for a config file that is too large."""
    if n_bytes > MAX_CONFIG_BYTES:
        raise BadSetting(f"The config file '{path}' has more than {MAX_CONFIG_BYTES >> 20} MiB; remove what is not needed.")


class QueueLimits(NamedTuple):
    """How many questions may wait, their total bytes, and for how long; dead letters are kept `dead_kept_s` longer. Device time."""

    max_rows: int
    max_bytes: int
    ttl_s: float
    dead_kept_s: float = _DEAD_KEPT_S


class BudgetLimits(NamedTuple):
    """What may be spent in a day and in a month: calls, and money in the currency of the prices (per million tokens).

    None means no limit.
    """

    calls_per_day: int | None = None
    calls_per_month: int | None = None
    money_per_day: float | None = None
    money_per_month: float | None = None
    prompt_price: float = 0.0
    completion_price: float = 0.0

    @property
    def is_set(self) -> bool:
        """Whether there is any limit."""
        return any(limit is not None for limit in (self.calls_per_day, self.calls_per_month, self.money_per_day, self.money_per_month))


class Retention(NamedTuple):
    """How long a question is kept after it was last asked (None: forever), and how many cloud answers, of how many bytes in total."""

    keep_s: float | None
    answers_max_rows: int
    answers_max_bytes: int


class DiskLimits(NamedTuple):
    """Below `cache_bytes` of free disk nothing is cached; below `queue_bytes` nothing is queued."""

    cache_bytes: int
    queue_bytes: int


class Limits(NamedTuple):
    """All limits. `audit_share` of the kept answers are compared with the cloud's, 0 to 1."""

    queue: QueueLimits
    budget: BudgetLimits
    retention: Retention
    disk: DiskLimits
    audit_share: float = 0.0
