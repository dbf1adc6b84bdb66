"""Whether to call the cloud at all: a circuit breaker, shared by all processes that use one database.

Owns when calls stop, when one probe call is allowed, and when normal calls resume. Knows nothing of HTTP. Invariant: while
the breaker is open no caller waits for the network, and it never stays open longer than an hour without a probe.

    closed ─► open      after 5 failures in a row, or 10 of the last 20; at once for a wrong key, no credit, a rate limit, or when
                        the cloud does not answer our own test question
    open ─► half-open   after 30 s, doubling to 15 minutes (without a connection: 5 s to 5 minutes; key, credit and wrong settings:
                        an hour; rate limit: as long as the cloud asked); at once if what was refused has changed
    half-open ─► closed by one valid reply; one real question is sent at a time as the probe
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from edge_agent.core.errors import StorageError
from edge_agent.core.outcome import CloudKind
from edge_agent.store.store import Store

IN_A_ROW, OF_LAST, WINDOW = 5, 10, 20
HOUR_S = 3600.0
CALLED_AGAIN = "; it will not be called for "  # then comes a duration
_LAST_ERROR = "last_error"  # stored beside the fields of `Health`
_OPEN_S = {CloudKind.OFFLINE: (5.0, 300.0), CloudKind.LIMITED: (30.0, HOUR_S)}  # first, longest
_OTHERS_OPEN_S = (30.0, 900.0)
_UNTIL_CHANGED = (CloudKind.REFUSED, CloudKind.NO_CREDIT)
_MARKED = (CloudKind.REFUSED, CloudKind.MISCONFIGURED)  # another key or other settings end the pause
_SAYS_NOTHING = (CloudKind.DEVICE, CloudKind.PAUSED)  # this device or its budget ended the call
_ANSWERS = (CloudKind.ANSWERED, CloudKind.PROVISIONAL)
VALID = (*_ANSWERS, CloudKind.UNUSABLE, CloudKind.REJECTED)  # only the real cloud replies like this, so it is reachable


@dataclass(frozen=True, slots=True)
class Health:
    """The state of a cloud: its `recent` calls (`+` valid reply, `-` failure; newest last) and how long it is not called.

    `open_s` is 0 while calls are normal. Times are device time. `key_mark` recognises the key, or the settings, that were refused.
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

    def after(
        self,
        kind: CloudKind,
        error: str | None,
        now_s: float,
        key: str | None = None,
        retry_after_s: float | None = None,
        proven: bool = False,
    ) -> Health:
        """The state after a call that ended as `kind`; `proven` if it was our own test question, so no question is to blame."""
        if kind in VALID and kind not in _ANSWERS and self.open_s and self.kind == CloudKind.MISCONFIGURED:
            if now_s < self.open_until_s:
                return self
            open_s = self.longer_s(CloudKind.MISCONFIGURED)  # it is there, but still answers nothing
            return replace(self, open_s=open_s, open_until_s=now_s + open_s, probe_until_s=0.0)
        if kind in VALID:
            return self.after_valid_reply()
        if kind in _UNTIL_CHANGED or (kind is CloudKind.MISCONFIGURED and proven):
            return type(self)("", HOUR_S, now_s + HOUR_S, 0.0, kind.value, error, mark(key))
        if self.open_s and now_s < self.open_until_s and not (kind is CloudKind.LIMITED and retry_after_s is not None):
            return self  # the call began before the breaker opened, so it tells nothing new
        recent = (self.recent + "-")[-WINDOW:]
        if kind is CloudKind.LIMITED and retry_after_s is not None:
            open_s = retry_after_s
        elif self.open_s:
            open_s = self.longer_s(kind)
        else:
            open_s = _open_s(kind)[0] if proven or self.trips(kind, recent) else 0.0
        key_mark = mark(key) if kind in _MARKED else None
        return type(self)(recent, open_s, now_s + open_s if open_s else 0.0, 0.0, kind.value, error, key_mark)

    def has_new_key(self, key: str | None) -> bool:
        """Whether the cloud refused another key, or other settings, than this."""
        return self.kind in _MARKED and not is_marked(key, self.key_mark)

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
    """The health of one cloud, kept in the store; if it cannot be stored, this process keeps it in memory.

    `settings` is a text of all settings that decide how the cloud is called: another text ends a pause for a wrong setting.
    """

    def __init__(self, store: Store, endpoint: str, key: str | None = None, settings: str = "") -> None:
        self._store, self._endpoint, self.key, self._settings = store, endpoint, key, settings
        self._unstored: Health | None = None

    @property
    def health(self) -> Health:
        """The current state; a damaged one counts as unknown."""
        if self._unstored is not None:
            return self._unstored
        try:
            return Health(**{name: value for name, value in self._stored().items() if name != _LAST_ERROR})
        except (StorageError, ValueError, TypeError):
            return Health()

    @property
    def last_error(self) -> tuple[float, str] | None:
        """When a call failed last (Unix time), and how; later valid replies do not erase it."""
        try:
            at, error = self._stored()[_LAST_ERROR]
            return float(at), str(error)
        except (StorageError, ValueError, TypeError, KeyError):
            return None

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
            left_s = health.wait_s(now_s, self._refused(health.kind)) or self._claim_probe(now_s, probe_s)
        except StorageError:
            return None  # a store that fails is no reason to stop calling the cloud
        if not left_s:
            return None
        kind = CloudKind.OFFLINE if health.kind == CloudKind.OFFLINE else CloudKind.PAUSED
        return kind, f"{health.error or 'the cloud did not answer'}{CALLED_AGAIN}{_duration(left_s)}"

    def wait_s(self) -> float:
        """Seconds until the cloud may be called."""
        return (health := self.health).wait_s(self._store.clock.now_s(), self._refused(health.kind))

    def note(self, kind: CloudKind, error: str | None, retry_after_s: float | None = None, proven: bool = False) -> None:
        """Record how a call ended, in the caller's transaction or in one of its own. Writes only if something changes.

        `proven` if the call was our own test question.
        """
        if kind in _SAYS_NOTHING:
            self._release_probe()
            return
        health = self.health
        if kind in VALID and not health.open_s and "-" not in health.recent:
            return
        try:
            if self._store.database.in_transaction:
                after = health.after(kind, error, self._store.clock.now_s(), self._refused(kind), retry_after_s, proven)
                self._keep(after, None if kind in VALID else (time.time(), error))
            else:
                with self._store.transaction():
                    self.note(kind, error, retry_after_s, proven)
        except StorageError:
            self._unstored = health.after(kind, error, self._store.clock.now_s(), self._refused(kind), retry_after_s, proven)

    def _refused(self, kind: str | None) -> str | None:
        """What a refusal of this kind is about: the key, or all settings."""
        return f"{self._settings}\n{self.key}" if kind == CloudKind.MISCONFIGURED else self.key

    def _claim_probe(self, now_s: float, probe_s: float) -> float:
        """Claim the probe in one transaction. Returns 0, or the seconds to wait if another caller has claimed it first."""
        with self._store.transaction():
            health = self.health
            left_s = health.wait_s(now_s, self._refused(health.kind))
            if not left_s:
                self._keep(replace(health, probe_until_s=now_s + probe_s))
        return left_s

    def _release_probe(self) -> None:
        """Let another caller probe, if this call was the probe; it ended without a word about the cloud."""
        if not self.health.probe_until_s:
            return
        with contextlib.suppress(StorageError):
            if self._store.database.in_transaction:
                self._keep(replace(self.health, probe_until_s=0.0))
            else:
                with self._store.transaction():
                    self._keep(replace(self.health, probe_until_s=0.0))

    def _keep(self, health: Health, last_error: tuple[float, str | None] | None = None) -> None:
        self._store.clock.keep()  # the times in it must not lie in the future after a restart
        last_error = last_error or self.last_error
        known = {_LAST_ERROR: last_error} if last_error else {}
        self._store.put_cloud_health(self._endpoint, json.dumps(asdict(health) | known))
        self._unstored = None

    def _stored(self) -> dict[str, Any]:
        """What is stored: the health, and beside it the last error. Raises `StorageError` or `ValueError`."""
        found = json.loads(self._store.cloud_health(self._endpoint) or "{}")
        if not isinstance(found, dict):
            raise ValueError("no object")
        return found


def _open_s(kind: CloudKind) -> tuple[float, float]:
    """How long the breaker stays open after such a failure: the first time, and at most."""
    return _OPEN_S.get(kind, _OTHERS_OPEN_S)


def mark(secret: str | None) -> str:
    """Recognises a key or the settings of a cloud, but is useless to a thief: a salted hash."""
    salt = secrets.token_hex(8)
    return f"{salt}:{_salted(secret, salt)}"


def is_marked(secret: str | None, known: str | None) -> bool:
    """Whether this is what `known` was made from by `mark`; a damaged mark recognises nothing."""
    salt, _, digest = (known or "").partition(":")
    try:
        return bool(digest) and secrets.compare_digest(_salted(secret, salt), digest)
    except (ValueError, TypeError):
        return False


def _salted(key: str | None, salt: str) -> str:
    return hashlib.blake2b((key or "").encode(), salt=bytes.fromhex(salt), digest_size=16).hexdigest()


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
