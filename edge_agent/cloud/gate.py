"""One cloud, with the circuit breaker and the budget that guard it.

Owns how a call is reserved before it is made, how its outcome and its cost are recorded afterwards, what is remembered of the form
of request that the cloud wants, and the test question that shows whether the cloud answers anything at all. `api_probe.py` finds out
which API the cloud offers. Knows nothing of queues or decisions. Invariants: every request that was sent is counted in the budget,
and the outcome of every call that asks for an answer is known to the breaker.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_agent.cloud.api_probe import ApiProbe
from edge_agent.cloud.breaker import VALID, Breaker, is_marked, mark
from edge_agent.cloud.budget import Budget, Reservation
from edge_agent.cloud.wire.request import PROMPT_VERSION, Shape, recalled, remembered
from edge_agent.cloud.wire.typed import request as typed
from edge_agent.core.config.limits import BudgetLimits
from edge_agent.core.config.settings import DEFAULT_LIMITS
from edge_agent.core.errors import StorageError
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer, CloudKey
from edge_agent.store.store import Store

if TYPE_CHECKING:  # httpx is loaded only when a cloud is called
    from edge_agent.cloud.wire.call import CloudCall
    from edge_agent.cloud.wire.client import CloudModel

TEST_QUESTION = Question("What is 2 + 2?", ("3", "4"))  # ours: it has nothing of any person in it, and its answer is not kept
_SETTINGS = "settings"  # what is kept under this name beside the clouds: marks of the settings that got an answer, newest last
_MOST_MARKS = 4  # processes of one device may have settings of their own


class Gate:
    """Access to one cloud. `breaker` and `budget` keep their state in the store."""

    def __init__(self, store: Store, cloud: CloudModel, limits: BudgetLimits = DEFAULT_LIMITS.budget) -> None:
        self._store, self.cloud = store, cloud
        self.breaker = Breaker(store, cloud.endpoint, cloud.key, cloud.settings)
        self.budget = Budget(store, cloud.endpoint, limits, self._shape, cloud.wanted.max_tokens)
        self._form = f"{cloud.endpoint} {cloud.model}"  # under this name the store keeps what was learned; no endpoint has a space
        self._is_recalled = False
        self._probe = ApiProbe(store, cloud, self.budget)
        self._has_new_answer = False  # of a visitor's question, since the last look at what the cloud offers

    def api_for(self, question: Question) -> str:
        """The API by which a question would be asked now."""
        self._shape()
        return self.cloud.api_for(question)

    def key(self, fingerprint: str, api: str = typed.CHAT) -> CloudKey:
        """The key under which this cloud's answer to a question is stored; `api` is how it was asked."""
        version = PROMPT_VERSION if api == typed.CHAT else typed.VERSION
        return CloudKey(fingerprint, self.cloud.model, self.cloud.endpoint, version, api)

    def stored_answer(self, question: Question, after: int = 0) -> tuple[int, CloudAnswer] | None:
        """The cloud's newest stored answer with an id above `after`, and its id, by the API that would be used now.

        Where that was found out and not set, an answer by another API counts, too: one with probabilities always, and one by chat if
        it was asked for though typed decisions were known to be there. Raises `StorageError`.
        """
        now = self.api_for(question)
        others = [api for api in (*typed.NEXT, typed.CHAT) if api != now] if self.cloud.is_auto and question.options else []
        for api in (now, *others):
            since = self._probe.since if api == typed.CHAT != now else 0
            if found := self._store.cloud_answer(self.key(question.fingerprint, api), max(after, since)):
                return found
        return None

    def reserve(self, send: Question) -> Reservation | None:
        """Count a call in a transaction of its own; returns None if it would exceed the budget.

        Raises `StorageError` if it cannot be counted, and then it must not be made.
        """
        if not self.budget.limits.is_set:
            return Reservation()
        with self._store.transaction():
            return self.budget.reserve(send)

    def start(self, send: Question, reserved: Reservation, deadline_s: float | None = None, job_key: str | None = None) -> CloudCall:
        """Start a reserved call, without waiting. If it must send the question again, each time is reserved first.

        A limit on the reply that no day's budget can pay for is not asked for.
        """

        def again(mended: Shape) -> bool:
            if not self.budget.limits.is_set:
                return True
            following = None
            try:
                with self._store.transaction():
                    following = self.budget.reserve(send, mended, reserved.share)
                    if following is not None and time.monotonic() >= ends_s:  # the database was locked for so long: nothing will be sent
                        self.budget.close(following, None)
                        following = None
            except StorageError:
                return False
            if following is not None:
                reserved.number, reserved.micros = following.number, following.micros
            return following is not None

        ends_s = time.monotonic() + (self.cloud.deadline_s if deadline_s is None else deadline_s)
        shape = reserved.shape or self._shape()
        if not self.budget.can_ever_pay(send, replace(shape, max_tokens=shape.raised_tokens)):
            shape = replace(shape, raised_tokens=shape.max_tokens)
        return self.cloud.start(send, deadline_s, job_key, shape, again)

    def note(self, reservation: Reservation | None, outcome: CloudOutcome | None, proven: bool = False) -> None:
        """Record the cost and the outcome of a call, in the caller's transaction; None means that it was not made.

        `proven` if the call was our own test question. A doubtful refusal of another question counts as one failure, because it
        may concern that question alone.
        """
        if reservation is not None:
            self.budget.close(reservation, outcome)
        if outcome is None:
            return
        kind = CloudKind.FAILED if outcome.doubtful and not proven else CloudKind.DEVICE if outcome.was_hurried else outcome.kind
        self.breaker.note(kind, outcome.error, outcome.retry_after_s, proven)
        if not self._store.database.in_transaction:  # the database fails, and another read could wait for a lock
            return
        self._keep_shape()
        self._probe.keep(is_real_reply=outcome.kind in VALID)
        self._has_new_answer |= outcome.has_answered and not proven
        if outcome.has_answered and not self._is_known(marks := self._marks()):
            self._store.put_cloud_health(_SETTINGS, json.dumps([*marks, mark(self._settings)][-_MOST_MARKS:]))

    @property
    def has_new_settings(self) -> bool:
        """Whether only other settings (address, model, key ...) have got an answer so far; False if none ever did."""
        marks = self._marks()
        return bool(marks) and not self._is_known(marks)

    def find_api(self, deadline_s: float | None = None) -> CloudOutcome | None:
        """Find out whether the cloud offers typed decisions: at most two requests with our test question.

        Returns the outcome if one was answered. A person should not wait for it. Raises `StorageError`.
        """
        self._shape()
        self._has_new_answer = False
        outcome = self._probe.find(TEST_QUESTION, deadline_s)
        if outcome:
            with self._store.transaction():
                self.note(None, outcome, proven=True)
        return outcome

    @property
    def must_find_api(self) -> bool:
        """Whether it is not known what the cloud offers, and it may be asked: not while calls are paused."""
        self._shape()
        return self._probe.is_due and not self.breaker.health.open_s

    @property
    def may_find_api(self) -> bool:
        """Whether it is worth asking while no person waits: the cloud has just answered a question, and it is not known what it offers."""
        return self._has_new_answer and self.must_find_api

    def test(self, deadline_s: float | None = None, find_api: bool = False) -> CloudOutcome | None:
        """Ask our own test question, to see whether the cloud answers at all; None if the budget allows no call.

        The call is counted, its answer is not stored. A question this simple cannot be to blame: an outcome that would be the
        fault of another question is `MISCONFIGURED`, and the breaker pauses the cloud. With `find_api`, a cloud whose API is not set is
        asked again what it offers. Raises `StorageError`.
        """
        if find_api and self.cloud.is_auto and (found := self.find_api(deadline_s)):
            return found
        if (reservation := self.reserve(TEST_QUESTION)) is None:
            return None
        outcome = self.start(TEST_QUESTION, reservation, deadline_s).result()
        if outcome.kind in (CloudKind.REJECTED, CloudKind.UNUSABLE):
            outcome = replace(outcome, kind=CloudKind.MISCONFIGURED, error=f"a test question of our own failed, too: {outcome.error}")
        try:
            with self._store.transaction():
                self.note(reservation, outcome, proven=True)
        except StorageError:
            self.breaker.note(outcome.kind, outcome.error, outcome.retry_after_s, proven=True)
            raise
        return outcome

    @property
    def _settings(self) -> str:
        return f"{self.cloud.settings}\n{self.cloud.key}"

    def _is_known(self, marks: list[str]) -> bool:
        return any(is_marked(self._settings, known) for known in marks)

    def _marks(self) -> list[str]:
        """The marks of the settings that got an answer; none if they cannot be read."""
        with contextlib.suppress(StorageError, ValueError, RecursionError):
            found = json.loads(self._store.cloud_health(_SETTINGS) or "[]")
            found = found if isinstance(found, list) else [found]  # an older version kept one
            return [known for known in found if isinstance(known, str)]
        return []

    def _keep_shape(self) -> None:
        """Store the form that the cloud wants, if it taught us another one, in the caller's transaction."""
        known, learned = self._store.cloud_health(self._form), self.cloud.shape
        is_learned = replace(learned, api=self.cloud.wanted.api) != self.cloud.wanted  # `ApiProbe` keeps the API
        if (known or is_learned) and known != (facts := remembered(self.cloud.wanted, learned)):
            self._store.put_cloud_health(self._form, facts)

    def _shape(self) -> Shape:
        """The form of the next request. What the store remembers of it is read at the first call, not for an answer from memory."""
        if not self._is_recalled:
            with contextlib.suppress(StorageError):
                self.cloud.shape = recalled(self.cloud.wanted, self._store.cloud_health(self._form))
                self._probe.recall()
            self._is_recalled = True
        return self.cloud.shape
