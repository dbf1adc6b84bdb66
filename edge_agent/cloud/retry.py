"""What each outcome of a cloud call means for a waiting question: a pure table.

Owns backoff, the number of attempts and what ends a question. No I/O, no clock, no randomness of its own. Invariants: an
outcome that concerns the whole cloud costs a question no attempt, and a failure that would only repeat itself is not retried.

    outcome                              attempt   then
    no connection, a fault of this       no        ready; the pass over the queue stops
      device, TLS, key, credit, rate limit
    a portal's page instead of a reply   no        ready; a second one in a row stops the pass; dead if that happened
                                                   five times while other questions were answered
    timeout after sending, 5xx, 408 ...  yes       ready after a random wait that doubles; dead after 8
    rejected, unusable reply             yes       dead
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.core.outcome import CloudKind

MAX_ATTEMPTS = 8
MAX_SUSPICIONS = 5
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 900.0

WHOLE_CLOUD = frozenset(
    {
        CloudKind.OFFLINE,
        CloudKind.DEVICE,
        CloudKind.TLS,
        CloudKind.PORTAL,
        CloudKind.REFUSED,
        CloudKind.LIMITED,
        CloudKind.NO_CREDIT,
        CloudKind.PAUSED,
    }
)
_FINAL = frozenset({CloudKind.REJECTED, CloudKind.UNUSABLE})


@dataclass(frozen=True, slots=True)
class Treatment:
    """What to do with a question after a failure: its next state, whether it cost an attempt, and how long it waits."""

    state: str
    costs_attempt: bool
    wait_s: float


def treat(kind: CloudKind, attempts: int, chance: float) -> Treatment:
    """What to do with a question whose call ended as `kind`, after `attempts` earlier ones.

    The caller draws `chance` (0 to 1): full jitter, so that many devices do not come back at the same moment.
    """
    if kind in _FINAL:
        return Treatment("dead", costs_attempt=True, wait_s=0.0)
    if kind in WHOLE_CLOUD:
        return Treatment("ready", costs_attempt=False, wait_s=0.0)
    if attempts + 1 >= MAX_ATTEMPTS:
        return Treatment("dead", costs_attempt=True, wait_s=0.0)
    return Treatment("ready", costs_attempt=True, wait_s=backoff_s(attempts, chance))


def backoff_s(failures: int, chance: float) -> float:
    """A wait between 0 and 2, 4, 8, ... 900 s: full jitter (AWS, "Exponential Backoff And Jitter")."""
    return chance * min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures, 16))
