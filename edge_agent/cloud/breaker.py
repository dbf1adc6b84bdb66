"""Whether to call the cloud at all: a circuit breaker, shared by all processes that use one database.

Owns when calls stop, when one probe call is allowed, and when normal calls resume. Knows nothing of HTTP. Invariant: while
the breaker is open no caller waits for the network, and it never stays open longer than an hour without a probe.

    closed ─► open      after 5 failures in a row, or 10 of the last 20; at once for a wrong key, no credit or a rate limit
    open ─► half-open   after 30 s, doubling to 15 minutes (without a connection: 5 s to 5 minutes; key and credit: an hour;
                        rate limit: as long as the cloud asked); at once if a refused key has changed
    half-open ─► closed by one valid reply; one real question is sent at a time as the probe
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass, replace

from edge_agent.core.errors import StorageError
from edge_agent.core.outcome import CloudKind
from edge_agent.store.store import Store

IN_A_ROW, OF_LAST, WINDOW = 5, 10, 20
HOUR_S = 3600.0
_OPEN_S = {CloudKind.OFFLINE: (5.0, 300.0), CloudKind.LIMITED: (30.0, HOUR_S)}  # first, longest
_OTHERS_OPEN_S = (30.0, 900.0)
_UNTIL_CHANGED = (CloudKind.REFUSED, CloudKind.NO_CREDIT)
VALID = (CloudKind.ANSWERED, CloudKind.UNUSABLE, CloudKind.REJECTED)  # only the real cloud replies like this, so it is reachable


@dataclass(frozen=True, slots=True)
class Health:
    """The state of a cloud: its `recent` calls (`+` valid reply, `-` failure; newest last) and how long it is not called.

    `open_s` is 0 while calls are normal. Times are device time. `key_mark` recognises the key that was refused.
    """

    recent: str = ""
    open_s: float = 0.0
    open_until_s: float = 0.0
    probe_until_s: float = 0.0
    kind: str | None = None
    error: str | None = None
    key_mark: str | None = None

    def wait_s(self, now_s: float, key: str | None) -> float:
        """Seconds until the cloud may be called; 0 if it may be called now. A wait of over an hour is ignored as an error."""
        if not self.open_s or self.has_new_key(key):
            return 0.0
        left_s = max(self.open_until_s, self.probe_until_s) - now_s
        return left_s if 0 < left_s <= HOUR_S else 0.0

    def after(self, kind: CloudKind, error: str | None, now_s: float, key: str | None = None, retry_after_s: float | None = None) -> Health:
        """The state after a call that ended as `kind`."""
        if kind in VALID:
            return self.after_valid_reply()
        if kind in _UNTIL_CHANGED:
            return type(self)("", HOUR_S, now_s + HOUR_S, 0.0, kind.value, error, _mark(key))
        if self.open_s and now_s < self.open_until_s and not (kind is CloudKind.LIMITED and retry_after_s is not None):
            return self  # the call began before the breaker opened, so it tells nothing new
        recent = (self.recent + "-")[-WINDOW:]
        if kind is CloudKind.LIMITED and retry_after_s is not None:
            open_s = retry_after_s
        elif self.open_s:
            open_s = self.longer_s(kind)
        else:
            open_s = _open_s(kind)[0] if self.trips(kind, recent) else 0.0
        return type(self)(recent, open_s, now_s + open_s if open_s else 0.0, 0.0, kind.value, error)

    def has_new_key(self, key: str | None) -> bool:
        """Whether the cloud refused another key than this one."""
        return self.kind == CloudKind.REFUSED and not _is_marked(key, self.key_mark)

    def after_valid_reply(self) -> Health:
        """The state after a valid reply: closed."""
        if self.open_s or "-" not in self.recent:
            return type(self)()
        return type(self)(recent=(self.recent + "+")[-WINDOW:])

    def trips(self, kind: CloudKind, recent: str) -> bool:
        """Whether this failure opens the closed breaker."""
        return kind is CloudKind.LIMITED or recent.endswith("-" * IN_A_ROW) or recent.count("-") >= OF_LAST

    def longer_s(self, kind: CloudKind) -> float:
        """How long the breaker stays open after a failed probe."""
        first_s, longest_s = _open_s(kind)
        return min(longest_s, max(first_s, 2 * self.open_s))


class Breaker:
    """The health of one cloud, kept in the store; if it cannot be stored, this process keeps it in memory."""

    def __init__(self, store: Store, endpoint: str, key: str | None = None) -> None:
        self._store, self._endpoint, self.key = store, endpoint, key
        self._unstored: Health | None = None

    @property
    def health(self) -> Health:
        """The current state; a damaged one counts as unknown."""
        if self._unstored is not None:
            return self._unstored
        try:
            found = self._store.cloud_health(self._endpoint)
            return Health(**json.loads(found)) if found else Health()
        except (StorageError, ValueError, TypeError):
            return Health()

    def refusal(self, probe_s: float) -> tuple[CloudKind, str] | None:
        """Why the cloud must not be called now; None if it may be: then call it, and `note` the outcome.

        When the breaker has been open long enough, one caller may send a probe, for at most `probe_s`. That is stored first, in
        a transaction of its own, so that no second caller probes as well.
        """
        health = self.health
        if not health.open_s:
            return None
        try:
            now_s = self._store.clock.now_s()
            left_s = health.wait_s(now_s, self.key) or self._claim_probe(now_s, probe_s)
        except StorageError:
            return None  # a store that fails is no reason to stop calling the cloud
        if not left_s:
            return None
        kind = CloudKind.OFFLINE if health.kind == CloudKind.OFFLINE else CloudKind.PAUSED
        return kind, f"{health.error or 'the cloud did not answer'}; it will not be called for {_duration(left_s)}"

    def wait_s(self) -> float:
        """Seconds until the cloud may be called."""
        return self.health.wait_s(self._store.clock.now_s(), self.key)

    def note(self, kind: CloudKind, error: str | None, retry_after_s: float | None = None) -> None:
        """Record how a call ended, in the caller's transaction or in one of its own. Writes only if something changes."""
        if kind is CloudKind.DEVICE:
            return  # it says nothing about the cloud
        health = self.health
        if kind in VALID and not health.open_s and "-" not in health.recent:
            return
        try:
            if self._store.database.in_transaction:
                self._keep(health.after(kind, error, self._store.clock.now_s(), self.key, retry_after_s))
            else:
                with self._store.transaction():
                    self.note(kind, error, retry_after_s)
        except StorageError:
            self._unstored = health.after(kind, error, self._store.clock.now_s(), self.key, retry_after_s)

    def _claim_probe(self, now_s: float, probe_s: float) -> float:
        """Claim the probe in one transaction. Returns 0, or the seconds to wait if another caller has claimed it first."""
        with self._store.transaction():
            health = self.health
            left_s = health.wait_s(now_s, self.key)
            if not left_s:
                self._keep(replace(health, probe_until_s=now_s + probe_s))
        return left_s

    def _keep(self, health: Health) -> None:
        self._store.clock.keep()  # the times in it must not lie in the future after a restart
        self._store.put_cloud_health(self._endpoint, json.dumps(asdict(health)))
        self._unstored = None


def _open_s(kind: CloudKind) -> tuple[float, float]:
    """How long the breaker stays open after such a failure: the first time, and at most."""
    return _OPEN_S.get(kind, _OTHERS_OPEN_S)


def _mark(key: str | None) -> str:
    """Recognises a key, but is useless to a thief: a salted hash."""
    salt = secrets.token_hex(8)
    return f"{salt}:{_salted(key, salt)}"


def _is_marked(key: str | None, mark: str | None) -> bool:
    salt, _, digest = (mark or "").partition(":")
    return bool(digest) and secrets.compare_digest(_salted(key, salt), digest)


def _salted(key: str | None, salt: str) -> str:
    return hashlib.blake2b((key or "").encode(), salt=bytes.fromhex(salt), digest_size=16).hexdigest()


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
