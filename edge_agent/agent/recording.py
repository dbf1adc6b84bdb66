"""Stores a finished inquiry: its new facts, its decision and its queue row in one transaction, and returns the decision.

Owns what is stored when, and what is left out when the disk is nearly full. Invariants: a question is committed to the queue
before its decision says so; a database that cannot be written loses the record, never the answer.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from edge_agent.agent.inquiry import Inquiry
from edge_agent.cloud.audits import Audits
from edge_agent.cloud.privacy import Rules
from edge_agent.cloud.queue import Outbox
from edge_agent.core import routing
from edge_agent.core.config.limits import DiskLimits
from edge_agent.core.errors import StorageError
from edge_agent.core.records import Decision
from edge_agent.core.routing import Reason
from edge_agent.store.store import Store

if TYPE_CHECKING:
    from edge_agent.cloud.gate import Gate


class Recorder:
    """Stores inquiries in `store`, its queue `outbox` and its `audits`; `gate` learns the cost and outcome of a cloud call."""

    def __init__(
        self, store: Store, outbox: Outbox, gate: Gate | None, rules: Rules, disk: DiskLimits, audits: Audits | None = None
    ) -> None:
        self._store, self._outbox, self._gate, self._rules, self._disk = store, outbox, gate, rules, disk
        self._audits = audits or Audits(store)

    def record(self, inquiry: Inquiry) -> Decision:
        """Store a finished inquiry and return its decision.

        On a nearly full disk, only what waits for the cloud is stored, or not even that.
        """
        assert inquiry.settled is not None
        free = self._store.free_bytes()
        if inquiry.settled.queue and free < self._disk.queue_bytes:
            self._settle_again(inquiry, disk_low=True)
        whole = inquiry.settled.queue or free >= self._disk.cache_bytes
        decision_id = str(uuid.uuid4())
        if whole:
            queue_id, error = self._try(lambda: self._store_whole(inquiry, decision_id), inquiry)
        else:
            self._try(lambda: self._store_outcome(inquiry, whole=False), inquiry)
            queue_id, error = None, f"only {free >> 20} MiB of the disk are free, reserved for questions that wait for the cloud"
            if (why := self._store.database.why_not_open) is not None:
                error = why
        if error is not None and inquiry.settled.queue:  # nothing waits that could end it
            inquiry.settled = replace(inquiry.settled, provisional=False, queue=False)
        return inquiry.decision(decision_id, queue_id, error)

    def note_outcome(self, inquiry: Inquiry) -> None:
        """Note what the call to the cloud cost and showed, if there was one, when nothing else is stored.

        One transaction; if it fails, the circuit breaker remembers the outcome in memory.
        """
        if not (inquiry.cloud_outcome and self._gate):
            return
        try:
            with self._store.transaction():
                self._gate.note(inquiry.reservation, inquiry.cloud_outcome)
        except StorageError:
            self._gate.note(None, inquiry.cloud_outcome)

    def _try(self, store: Callable[[], int | None], inquiry: Inquiry) -> tuple[int | None, str | None]:
        """Run `store` in a transaction, in a new database if the old one is damaged or could not be opened.

        Returns its queue row, and why nothing is stored.
        """
        known = inquiry.reading_id, inquiry.cloud_id, inquiry.settled, inquiry.circumstances
        refused: str | None = None
        for _ in range(2):
            try:
                with self._store.transaction():
                    queue_id = store()
                return queue_id, None
            except StorageError as error:
                refused = str(error)
                inquiry.reading_id, inquiry.cloud_id, inquiry.settled, inquiry.circumstances = known
                with contextlib.suppress(StorageError):
                    if self._store.database.renew():
                        continue
                break
        self.note_outcome(inquiry)
        return None, refused

    # Everything below runs inside the transaction of `_try`.

    def _store_whole(self, inquiry: Inquiry, decision_id: str) -> int | None:
        """Store the facts, the queue row and the decision; returns the queue row's id, if the question waits."""
        assert inquiry.settled is not None
        self._store.clock.keep()
        self._store.put_question(inquiry.question)
        self._store_facts(inquiry)
        queue_id = None
        if inquiry.settled.queue:
            queue_id = self._outbox.put(inquiry.question, inquiry.cloud_error, self._rules.redacted(inquiry.question))
            if queue_id is None:
                self._settle_again(inquiry, queue_full=True)
        self._store_calibration(inquiry)
        row = _row(inquiry, decision_id, queue_id)
        self._store.put_decision(row)
        self._audit(inquiry, row)
        return queue_id

    def _store_calibration(self, inquiry: Inquiry) -> None:
        """Keep the calibration that the decision names, with its first decision: its file may be gone later."""
        sha256, used = inquiry.policy.calibration, inquiry.calibration
        if used and self._store.calibration(sha256) is None:
            self._store.put_calibration(sha256, time.time(), used.model_sha256, used.adapter_sha256, used.profile_sha256, used.to_json())

    def _audit(self, inquiry: Inquiry, row: dict[str, Any]) -> None:
        """Put a kept answer among the audits, if it is chosen and its question may leave the device."""
        assert inquiry.settled is not None
        if self._gate is None or inquiry.settled.reason is not Reason.CONFIDENT or inquiry.circumstances.never_send:
            return
        if self._audits.chooses(inquiry.question.fingerprint, inquiry.policy.calibration):
            send = self._rules.redacted(inquiry.question)
            self._audits.put(row, inquiry.policy.calibration, self._gate.cloud.model, send)

    def _store_facts(self, inquiry: Inquiry) -> None:
        """Keep the reading and the cloud's answer, if they are new."""
        assert inquiry.settled is not None
        if inquiry.n_opened != self._store.database.n_opened:  # this file is another one, so its ids are other ones
            inquiry.reading_id = inquiry.cloud_id = None
        if inquiry.reading and inquiry.reading_id is None:
            inquiry.reading_id = self._store.put_reading(inquiry.reading_key, inquiry.reading)
        if inquiry.cloud and inquiry.cloud_outcome is None and inquiry.cloud_id is None:
            self._put_cloud_answer(inquiry)  # recalled from a database that was damaged since
        elif inquiry.cloud_id is not None and inquiry.settled.route == "cloud":
            self._store.use_cloud_answer(inquiry.cloud_id)
        self._store_outcome(inquiry, whole=True)

    def _store_outcome(self, inquiry: Inquiry, whole: bool) -> None:
        """Keep a call's cost and outcome, and end a queue row that waited for its answer.

        Without `whole`, an answer that no row waited for is not kept.
        """
        outcome = inquiry.cloud_outcome
        if outcome and self._gate:
            self._gate.note(inquiry.reservation, outcome)
        if outcome and outcome.answer:
            waiting = self._outbox.answer_waiting(inquiry.question)  # a new answer, not one older than the row
            if whole or waiting is not None:
                self._put_cloud_answer(inquiry)
            if waiting is not None and inquiry.cloud_id is not None:
                self._store.end_provisional(waiting, outcome.answer.answer, inquiry.cloud_id)
        if inquiry.circumstances.never_send:
            self._outbox.cancel_waiting(inquiry.question)
            self._audits.cancel(inquiry.question.fingerprint)

    def _put_cloud_answer(self, inquiry: Inquiry) -> None:
        assert self._gate is not None and inquiry.cloud is not None
        inquiry.cloud_id = self._store.put_cloud_answer(self._gate.key(inquiry.question.fingerprint, inquiry.cloud.api), inquiry.cloud)

    @staticmethod
    def _settle_again(inquiry: Inquiry, **changed: bool) -> None:
        """Settle under changed circumstances: there is no room for the question to wait."""
        assert inquiry.planned is not None
        inquiry.circumstances = replace(inquiry.circumstances, **changed)
        inquiry.settled = routing.settle(inquiry.planned, inquiry.cloud_kind, inquiry.circumstances) or inquiry.settled


def _row(inquiry: Inquiry, decision_id: str, queue_id: int | None) -> dict[str, Any]:
    """A decision's row."""
    assert inquiry.planned is not None and inquiry.settled is not None
    planned, settled = inquiry.planned, inquiry.settled
    return {
        "decision_id": decision_id,
        "created_at": time.time(),
        "fingerprint": inquiry.question.fingerprint,
        "rule_version": routing.RULE_VERSION,
        "policy": json.dumps(asdict(inquiry.policy)),
        "circumstances": json.dumps(asdict(inquiry.circumstances)),
        "reading_id": inquiry.reading_id,
        "cloud_answer_id": inquiry.cloud_id if settled.route == "cloud" else None,
        "cloud_kind": inquiry.cloud_kind,
        "answer": inquiry.answer,
        "route": settled.route,
        "reason": settled.reason,
        "cause": planned.cause,
        "score": planned.score,
        "deferred": planned.cause is not None,
        "recalled": inquiry.recalled,
        "provisional": settled.provisional,
        "queue_id": queue_id,
    }
