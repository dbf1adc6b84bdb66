"""Finds out whether a cloud offers typed decisions, and remembers it for this endpoint and model.

Owns when a cloud is probed, what its replies to a probe mean, and what is stored of it (table `clouds`). Knows nothing of queues or
decisions. Invariants: only our own test question is sent, each request is counted in the budget before it is sent, and what a probe
finds never counts against the cloud: no circuit breaker and no attempt of a question sees it.

A probe costs at most two requests: the APIs with probabilities, in the order of `NEXT`. Without either, chat is used. It is sent only
if the budget has room for these two and one more, so a small budget is spent on questions.
"""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_agent.cloud.budget import Budget, Reservation
from edge_agent.cloud.wire.request import Shape
from edge_agent.cloud.wire.typed.request import CHAT, NEXT, SYSTEMONE
from edge_agent.core.config.limits import DAY_S
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question
from edge_agent.store.store import Store

_log = logging.getLogger("edge_agent")

if TYPE_CHECKING:  # httpx is loaded only when a cloud is called
    from edge_agent.cloud.wire.client import CloudModel

AGAIN_S = 3600.0  # after a probe that said nothing (the cloud was slow, limited the calls or had a fault), or if an API is gone
CHAT_AGAIN_S = DAY_S  # after a probe that found only chat
_SOON_S = 180.0  # between a probe and the reply by chat that proves that the cloud itself was probed: more than a call takes
_NOT_OFFERED = (CloudKind.MISCONFIGURED, CloudKind.REJECTED, CloudKind.UNUSABLE)  # what a test question cannot be to blame for
_NOTHING_SENT = (CloudKind.OFFLINE, CloudKind.TLS, CloudKind.DEVICE, CloudKind.PAUSED)


class ApiProbe:
    """Which API the model of one cloud offers. `recall` reads what is known, `find` asks, `keep` stores what was learned.

    A cloud whose `api` is set by hand is never probed.
    """

    def __init__(self, store: Store, cloud: CloudModel, budget: Budget) -> None:
        self._store, self._cloud, self._budget = store, cloud, budget
        self._name = f"api {cloud.endpoint} {cloud.model}"  # in the table of clouds, where an endpoint has no space
        self._stored: str | None = None  # the API that is stored as the cloud's
        self._again_s = 0.0  # device time; not before it
        self.since = 0  # the id of the newest answer when the cloud was found to offer typed decisions
        self._found_chat_s: float | None = None  # when a probe found only chat, until the next call shows whether the cloud was there

    @property
    def is_due(self) -> bool:
        """Whether it is not known, or not any more, what the cloud offers, and it may be asked."""
        is_known = not self._cloud.is_auto or self._cloud.shape.api != CHAT
        return not is_known and not 0 < self._again_s - self._store.clock.now_s() <= CHAT_AGAIN_S

    def recall(self) -> None:
        """Read what is stored. A damaged text counts as nothing known. Raises `StorageError`."""
        if not self._cloud.is_auto:
            return
        with contextlib.suppress(ValueError, RecursionError, TypeError, OverflowError):
            found = json.loads(self._store.cloud_health(self._name) or "{}")
            if isinstance(found, dict) and found.get("api") in (CHAT, *NEXT):
                self._stored = found["api"]
                self._cloud.shape = replace(self._cloud.shape, api=found["api"])
            if isinstance(found, dict):
                self.since = int(found.get("since") or 0)
                self._again_s = float(found.get("again_s") or 0.0)

    def find(self, question: Question, deadline_s: float | None = None) -> CloudOutcome | None:
        """Ask `question`, which is ours, by each API with probabilities until one answers it; returns that answer's outcome.

        None if no API did, if the reply did not say, or if the budget has no room for it. Raises `StorageError`.
        """
        if not self._has_room(question):
            return None
        api = SYSTEMONE
        while api != CHAT:
            shape = replace(self._cloud.shape, api=api)
            reservation = self._reserve(question, shape)
            if reservation is None:
                return None
            outcome = self._cloud.start(question, deadline_s, shape=shape, only_this_api=True).result()
            self._close(reservation, outcome)
            if outcome.has_answered:
                self._learn(api)
                return outcome
            if not (outcome.no_api or outcome.kind in _NOT_OFFERED):
                self._ask_later(outcome)
                return None
            api = NEXT[api]
        self._learn(CHAT)
        self._found_chat_s = self._store.clock.now_s()
        self._again_s = self._found_chat_s + AGAIN_S  # in this process, if it turns out to be the page of a portal
        return None

    def keep(self, is_real_reply: bool) -> None:
        """Store what was learned of the cloud's API, if it is new, in the caller's transaction, after a call to the cloud.

        That a probe found only chat counts once the cloud has replied by chat (`is_real_reply`) soon after it: otherwise the probe may
        have seen the pages of a captive portal, and is forgotten. And it counts for a day, because servers are updated. That a cloud
        stopped offering its API counts for an hour: it may be one server of several.
        """
        api, now_s = self._cloud.shape.api, self._store.clock.now_s()
        found_s, self._found_chat_s = self._found_chat_s, None
        if not self._cloud.is_auto or (api == self._stored and found_s is None):
            return
        again_s = 0.0
        if api == CHAT and found_s is not None:
            if not (is_real_reply and 0 <= now_s - found_s <= _SOON_S):
                self._cloud.shape = replace(self._cloud.shape, api=self._stored or CHAT)
                return
            again_s = now_s + CHAT_AGAIN_S
        elif api == CHAT:
            if self._stored is None:
                return
            again_s = now_s + AGAIN_S
        if api == CHAT and self._stored in NEXT:
            _log.warning(
                "edge-agent: the cloud does not offer %s now; for a while it is asked by chat, without probabilities", self._stored
            )
        self._put(api, again_s)

    def _learn(self, api: str) -> None:
        self._cloud.shape = replace(self._cloud.shape, api=api)

    def _ask_later(self, outcome: CloudOutcome) -> None:
        if outcome.kind in _NOTHING_SENT:
            return
        self._again_s = self._store.clock.now_s() + AGAIN_S
        if self._stored not in NEXT:
            with self._store.transaction():
                self._put(self._stored, self._again_s)

    def _put(self, api: str | None, again_s: float) -> None:
        self._store.clock.keep()  # the time must not lie in the future after a restart
        self.since = self._store.newest_cloud_answer() if api in NEXT else 0
        facts = {"api": api, "again_s": again_s, "since": self.since}
        self._store.put_cloud_health(self._name, json.dumps({name: value for name, value in facts.items() if value}))
        self._stored, self._again_s = api, again_s

    def _has_room(self, question: Question) -> bool:
        """Whether the budget allows all requests of a probe and one more; nothing stays counted."""
        if not self._budget.limits.is_set:
            return True
        shapes = [replace(self._cloud.shape, api=api) for api in (*NEXT, CHAT)]
        with self._store.transaction():
            found = [self._budget.reserve(question, shape) for shape in shapes]
            for reservation in filter(None, found):
                self._budget.close(reservation, None)
        return all(found)

    def _reserve(self, question: Question, shape: Shape) -> Reservation | None:
        if not self._budget.limits.is_set:
            return Reservation(shape=shape)
        with self._store.transaction():
            return self._budget.reserve(question, shape)

    def _close(self, reservation: Reservation, outcome: CloudOutcome) -> None:
        if reservation.number is not None:
            with self._store.transaction():
                self._budget.close(reservation, outcome)
