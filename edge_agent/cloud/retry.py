"""What each outcome of a cloud call means for a question that waits: a pure table.

Owns backoff, the number of attempts and what ends a question. No I/O, no clock, no randomness of its own. Invariant: what
says something of the whole cloud costs a question no attempt, and what would be the same next time is not tried again.

    outcome                              attempt   then
    no connection, TLS, key, credit,     no        ready; the pass over the queue stops
      rate limit
    a portal's page instead of a reply   no        ready; a second one in a row stops the pass; dead when five times
                                                   other questions were answered and this one was not
    timeout after sending, 5xx, 408 ...  yes       ready after a random wait that doubles; dead after 8
    refused for good, unusable reply     yes       dead
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.core.outcome import CloudKind

MAX_ATTEMPTS = 8
MAX_SUSPICIONS = 5
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 900.0

WHOLE_CLOUD = frozenset(
    {CloudKind.OFFLINE, CloudKind.TLS, CloudKind.PORTAL, CloudKind.REFUSED, CloudKind.LIMITED, CloudKind.NO_CREDIT, CloudKind.PAUSED}
)
_FINAL = frozenset({CloudKind.REJECTED, CloudKind.UNUSABLE})


@dataclass(frozen=True, slots=True)
class Treatment:
    """What to do with a question after a failure: its next state, what it cost, and how long it waits."""

    state: str
    costs_attempt: bool
    wait_s: float


def treat(kind: CloudKind, attempts: int, chance: float) -> Treatment:
    """The treatment of a question whose call ended as `kind`, after `attempts` before this one.

    `chance` (0 to 1) is drawn by the caller: full jitter, so that many devices do not come back at once.
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
