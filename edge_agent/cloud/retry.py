"""What each outcome of a cloud call means for a waiting question: a pure table.

Owns backoff, the number of attempts and what ends a question. No I/O, no clock, no randomness of its own. Invariant: an
outcome that concerns the whole cloud costs a question no attempt. Whether it does is not always certain from one reply: then
the drainer asks a test question first (`drain`), and comes here with what that showed.

    outcome                              attempt   then
    no connection, a fault of this       no        ready; the pass over the queue stops
      device, TLS, key, credit, rate limit,
      wrong settings
    a portal's page instead of a reply   no        ready; a second one in a row stops the pass; dead if that happened
                                                   five times while other questions were answered
    timeout after sending, 5xx, 408 ...  yes       ready after a random wait that doubles; dead after 8
    unusable reply                       yes       ready, to be tried again after 7 to 15 minutes; dead the third time, because
                                                   a model that was cut off or rambled once may do better, and each try is billed
    rejected                             yes       dead
    provisional answer of another edge   no        ready, to be tried again after 7 to 15 minutes, until its time to live is over
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.core.outcome import CloudKind

MAX_ATTEMPTS = 8
MAX_UNUSABLE = 3
PORTAL_PAGE = 16  # `suspicions` counts two things in one number: unusable replies as 1, portal pages as 16
MAX_SUSPICIONS = 5 * PORTAL_PAGE  # dead at five portal pages
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 900.0
RELEASED_WAIT_S = 60.0  # a question without a verdict lets the others go first

WHOLE_CLOUD = frozenset(
    {
        CloudKind.OFFLINE,
        CloudKind.DEVICE,
        CloudKind.TLS,
        CloudKind.PORTAL,
        CloudKind.REFUSED,
        CloudKind.LIMITED,
        CloudKind.NO_CREDIT,
        CloudKind.MISCONFIGURED,
        CloudKind.PAUSED,
    }
)


@dataclass(frozen=True, slots=True)
class Treatment:
    """What to do with a question after a failure: its next state, whether it cost an attempt, and how long it waits."""

    state: str
    costs_attempt: bool
    wait_s: float


def treat(kind: CloudKind, attempts: int, chance: float, suspicions: int = 0) -> Treatment:
    """What to do with a question whose call ended as `kind`, after `attempts` earlier ones.

    `suspicions` counts earlier replies without an answer, while the cloud answered other questions (`PORTAL_PAGE`). The caller draws
    `chance` (0 to 1): full jitter, so that many devices do not come back at the same moment.
    """
    if kind in WHOLE_CLOUD:
        return Treatment("ready", costs_attempt=False, wait_s=0.0)
    if kind is CloudKind.PROVISIONAL:
        return Treatment("ready", costs_attempt=False, wait_s=_long_wait_s(chance))
    unusable = kind is CloudKind.UNUSABLE
    if kind is CloudKind.REJECTED or attempts + 1 >= MAX_ATTEMPTS or (unusable and suspicions % PORTAL_PAGE + 1 >= MAX_UNUSABLE):
        return Treatment("dead", costs_attempt=True, wait_s=0.0)
    return Treatment("ready", costs_attempt=True, wait_s=_long_wait_s(chance) if unusable else backoff_s(attempts, chance))


def _long_wait_s(chance: float) -> float:
    """A wait between half of the longest one and the longest."""
    return LONGEST_WAIT_S * (1 + chance) / 2


def backoff_s(failures: int, chance: float) -> float:
    """A wait between 0 and 2, 4, 8, ... 900 s: full jitter (AWS, "Exponential Backoff And Jitter")."""
    return chance * min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures, 16))
