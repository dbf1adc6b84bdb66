"""Whether to call the cloud at all: a circuit breaker, shared by all processes of one database.

Owns when calls stop, when one is let through to see, and when they go on. Knows nothing of HTTP. Invariant: while the
breaker is open nobody waits for the network, and it never stays open longer than an hour without a probe.

    closed ─► open      5 failures in a row, or 10 of the last 20; at once for a wrong key, no credit or "slow down"
    open ─► half-open   after 30 s, doubling to 15 minutes (5 s to 5 minutes without a connection); an hour for key and credit;
                        as long as the cloud asked for; at once when the key has changed
    half-open ─► closed by one valid reply; one real question goes through at a time
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass

from edge_agent.core.errors import StorageError
from edge_agent.core.outcome import CloudKind
from edge_agent.store.store import Store

IN_A_ROW, OF_LAST, WINDOW = 5, 10, 20
HOUR_S = 3600.0
_OPEN_S = {CloudKind.OFFLINE: (5.0, 300.0), CloudKind.LIMITED: (30.0, HOUR_S)}  # first, longest
_OPEN_ELSE_S = (30.0, 900.0)
_UNTIL_CHANGED = (CloudKind.REFUSED, CloudKind.NO_CREDIT)
VALID = (CloudKind.ANSWERED, CloudKind.UNUSABLE, CloudKind.REJECTED)  # whoever says so is the cloud, and is there


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of a cloud: the `recent` calls (`+` a valid reply, `-` none; newest last) and since when it is left alone.

    `open_s` is 0 when it is called as usual. Times are device time. `key_mark` tells whether the key is still the refused one.
    """

    recent: str = ""
    open_s: float = 0.0
    open_until_s: float = 0.0
    probe_until_s: float = 0.0
    kind: str | None = None
    error: str | None = None
    key_mark: str | None = None


def wait_s(health: Health, now_s: float, key: str | None) -> float:
    """Seconds until the cloud may be called: 0 when it may be now. A time further away than an hour is not believed."""
    if not health.open_s or (health.kind == CloudKind.REFUSED and not _is_marked(key, health.key_mark)):
        return 0.0
    left = max(health.open_until_s, health.probe_until_s) - now_s
    return left if 0 < left <= HOUR_S else 0.0


def after(
    health: Health, kind: CloudKind, error: str | None, now_s: float, key: str | None = None, retry_after_s: float | None = None
) -> Health:
    """What is known once a call has ended as `kind`."""
    if kind in VALID:
        return Health() if health.open_s or "-" not in health.recent else Health(recent=(health.recent + "+")[-WINDOW:])
    if kind in _UNTIL_CHANGED:
        return Health("", HOUR_S, now_s + HOUR_S, 0.0, kind.value, error, _mark(key))
    recent = (health.recent + "-")[-WINDOW:]
    first, longest = _OPEN_S.get(kind, _OPEN_ELSE_S)
    if kind is CloudKind.LIMITED and retry_after_s is not None:
        open_s = retry_after_s
    elif not health.open_s:
        tripped = kind is CloudKind.LIMITED or recent.endswith("-" * IN_A_ROW) or recent.count("-") >= OF_LAST
        open_s = first if tripped else 0.0
    elif now_s < health.open_until_s:
        return health  # a call that began before; it says nothing new
    else:
        open_s = min(longest, max(first, 2 * health.open_s))
    return Health(recent, open_s, now_s + open_s if open_s else 0.0, 0.0, kind.value, error)


class Breaker:
    """The health of one cloud, kept in the store; what cannot be stored is remembered by this process."""

    def __init__(self, store: Store, endpoint: str, key: str | None = None) -> None:
        self._store, self._endpoint, self.key = store, endpoint, key
        self._unstored: Health | None = None

    @property
    def health(self) -> Health:
        """What is known now."""
        if self._unstored is not None:
            return self._unstored
        try:
            found = self._store.cloud_health(self._endpoint)
            return Health(**json.loads(found)) if found else Health()
        except (StorageError, ValueError, TypeError):
            return Health()

    def refusal(self, probe_s: float) -> tuple[CloudKind, str] | None:
        """Why the cloud is not to be called now, or None: then call it, and `note` what came of it.

        When it was left alone for long enough, one caller is let through for at most `probe_s`; that is written down first, in
        one transaction of its own, so that no second one follows.
        """
        health = self.health
        if not health.open_s:
            return None
        try:
            now_s = self._store.clock.now_s()
            left_s = wait_s(health, now_s, self.key)
            if not left_s:
                with self._store.transaction():
                    health = self.health
                    left_s = wait_s(health, now_s, self.key)
                    if not left_s:
                        self._keep(Health(**{**asdict(health), "probe_until_s": now_s + probe_s}))
        except StorageError:
            return None  # a store that does not answer is no reason to leave the cloud alone
        if not left_s:
            return None
        kind = CloudKind.OFFLINE if health.kind == CloudKind.OFFLINE else CloudKind.PAUSED
        return kind, f"{health.error or 'the cloud did not answer'}; it is left alone for {_duration(left_s)}"

    def wait_s(self) -> float:
        """Seconds until the cloud may be called."""
        return wait_s(self.health, self._store.clock.now_s(), self.key)

    def note(self, kind: CloudKind, error: str | None, retry_after_s: float | None = None) -> None:
        """Keep what a call has shown: inside the caller's transaction, or in one of its own. Writes only if it changes something."""
        health = self.health
        if kind in VALID and not health.open_s and "-" not in health.recent:
            return
        try:
            if self._store.database.in_transaction:
                self._keep(after(health, kind, error, self._store.clock.now_s(), self.key, retry_after_s))
            else:
                with self._store.transaction():
                    self._keep(after(self.health, kind, error, self._store.clock.now_s(), self.key, retry_after_s))
        except StorageError:
            self._unstored = after(health, kind, error, self._store.clock.now_s(), self.key, retry_after_s)

    def _keep(self, health: Health) -> None:
        self._store.put_cloud_health(self._endpoint, json.dumps(asdict(health)))
        self._unstored = None


def _mark(key: str | None) -> str:
    """What tells a key from another one without being of use to a thief: a salted hash of it."""
    salt = secrets.token_hex(8)
    return f"{salt}:{_salted(key, salt)}"


def _is_marked(key: str | None, mark: str | None) -> bool:
    salt, _, digest = (mark or "").partition(":")
    return bool(digest) and secrets.compare_digest(_salted(key, salt), digest)


def _salted(key: str | None, salt: str) -> str:
    return hashlib.blake2b((key or "").encode(), salt=bytes.fromhex(salt), digest_size=16).hexdigest()


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
