"""The steps of questions that are asked together: recall, read, call the cloud, settle, record.

Owns their order; `routing` decides what to do, the other wings do it. Invariants: all readings are made in one turn of the model; an
answer is returned even when the database cannot be opened or written.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_agent.agent.calls import Calls
from edge_agent.agent.inquiry import Inquiry
from edge_agent.agent.on_device import OnDevice
from edge_agent.agent.recording import Recorder
from edge_agent.agent.rules_in_force import RulesInForce
from edge_agent.cloud.privacy import Rules
from edge_agent.core import routing
from edge_agent.core.errors import CloudUnavailable, StorageBusy, StorageError
from edge_agent.core.outcome import CloudKind
from edge_agent.core.records import Decision, LevelReading
from edge_agent.core.routing import Cause, PolicyName, Step
from edge_agent.store.database import Patience
from edge_agent.store.store import Store

if TYPE_CHECKING:  # httpx is loaded only when a cloud is called
    from edge_agent.cloud.gate import Gate

_log = logging.getLogger("edge_agent")


class Decider:
    """Decides inquiries with the parts of an agent."""

    def __init__(self, store: Store, model: OnDevice, gate: Gate | None, rules: Rules, in_force: RulesInForce, recorder: Recorder) -> None:
        self._store, self._model, self._gate, self._recorder = store, model, gate, recorder
        self._rules, self._in_force = rules, in_force
        self._said_unstored = False

    def decide(self, inquiries: Sequence[Inquiry], refresh: bool) -> list[Decision]:
        """The decision of each inquiry. Raises `CloudUnavailable` for the first that only the cloud may answer, once all are recorded."""
        if not refresh:
            for inquiry in inquiries:
                self._recall(inquiry)
        calls = Calls(self._start_call)
        self._read([inquiry for inquiry in inquiries if inquiry.plan().step is Step.READ], calls)
        to_call = {inquiry for inquiry in inquiries if self._needs_call(inquiry)}
        for inquiry in inquiries:
            if inquiry in to_call:
                calls.want(inquiry)
        decided = {inquiry: self._finished(inquiry) for inquiry in inquiries if inquiry not in to_call}
        for inquiry in calls.results():
            decided[inquiry] = self._finished(inquiry)
        found = []
        for inquiry in inquiries:
            decision = decided[inquiry]
            if isinstance(decision, CloudUnavailable):
                raise decision
            found.append(decision)
        return found

    def _recall(self, inquiry: Inquiry) -> None:
        """Fill in what the store knows about the question; nothing if it cannot be read."""
        inquiry.n_opened = self._store.database.n_opened
        with contextlib.suppress(StorageError):
            answer = self._gate.stored_answer(inquiry.question) if self._gate else None
            if answer and inquiry.fits(answer[1].answer):
                inquiry.cloud_id, inquiry.cloud = answer
            if inquiry.policy.name is PolicyName.ONLY_CLOUD:
                return  # the device's own answer is not wanted
            found = self._store.reading(inquiry.reading_key)
            if found and inquiry.fits(found[1].answer):
                inquiry.reading_id, inquiry.reading = found

    def _read(self, inquiries: Sequence[Inquiry], calls: Calls) -> None:
        """Read the model; where its level asks for the cloud, the call starts at once, and the letter is read meanwhile.

        A readout that needs the letter asks for the cloud only afterwards.
        """
        if not inquiries:
            return
        model = self._model.opened()
        for inquiry in inquiries:  # opening may have found another file
            self._in_force.apply(inquiry, self._model.facts, self._model.profile)

        def on_level(i: int, level: LevelReading) -> None:
            inquiry = inquiries[i]
            if routing.plan(level, inquiry.policy, inquiry.circumstances).step is Step.ASK_CLOUD and not inquiry.cloud:
                with self._store.database.waiting_once(Patience(0)), contextlib.suppress(StorageBusy):
                    calls.want(inquiry)  # this is the model's thread, and others wait for the model: a lock is waited for afterwards

        readings = model.read_all([inquiry.question for inquiry in inquiries], on_level)
        for inquiry, reading in zip(inquiries, readings, strict=True):
            inquiry.reading, inquiry.model_ran = reading, True

    def _needs_call(self, inquiry: Inquiry) -> bool:
        """Whether the cloud is wanted and its answer is not in the store."""
        return self._gate is not None and inquiry.plan().step is Step.ASK_CLOUD and inquiry.cloud_id is None

    def _start_call(self, inquiry: Inquiry) -> None:
        """Start a call to the cloud, unless the circuit breaker or the budget forbids it for now.

        Raises `StorageBusy` if it cannot be counted, and another thread may wait for the lock that is in the way.
        """
        assert self._gate is not None
        send = self._rules.redacted(inquiry.question)
        if refusal := self._gate.breaker.refusal(self._gate.cloud.deadline_s):
            inquiry.cloud_kind, inquiry.cloud_error = refusal
            return
        try:
            reservation = self._gate.reserve(send)
        except StorageError as error:
            if isinstance(error, StorageBusy) and self._store.database.must_not_wait and not inquiry.patience.is_over:
                raise
            inquiry.cloud_kind, inquiry.cloud_error = CloudKind.DEVICE, self._why_not_counted(inquiry)
            return
        if reservation is None:
            inquiry.over_budget, inquiry.cloud_error = True, "the budget for the cloud is used up for now"
        else:
            inquiry.reservation, inquiry.cloud_call = reservation, self._gate.start(send, reservation)

    def _why_not_counted(self, inquiry: Inquiry) -> str:
        """Why a call cannot be counted in the budget, so that it must not be made."""
        if not self._store.database.is_open:
            return "without the database the budget for the cloud cannot be counted"
        if inquiry.patience.is_over:
            return "another program locks the database, so the budget for the cloud cannot be counted now"
        return "the database cannot be written, so the budget for the cloud cannot be counted"

    def _finished(self, inquiry: Inquiry) -> Decision | CloudUnavailable:
        """Settle and record an inquiry for which nothing is left to do."""
        planned = inquiry.plan()
        if inquiry.model_ran and planned.cause is not Cause.NO_CONFIDENCE:
            self._model.has_answered = True
        if planned.step is Step.ASK_CLOUD and inquiry.cloud:
            inquiry.cloud_kind = CloudKind.ANSWERED
        elif planned.step is Step.ASK_CLOUD and self._gate is None:
            inquiry.cloud_error = "no cloud is set up (EDGE_AGENT_CLOUD_URL)"
        inquiry.planned, inquiry.circumstances = planned, replace(inquiry.circumstances, over_budget=inquiry.over_budget)
        inquiry.settled = routing.settle(planned, inquiry.cloud_kind, inquiry.circumstances)
        if inquiry.settled is None:
            self._recorder.note_outcome(inquiry)
            first = "set one up" if self._gate is None else "try again later"
            return CloudUnavailable(
                f"Only the cloud may answer (only_cloud), and it did not: {inquiry.cloud_error}; {first}, or let this device "
                "answer, too (policy prefer_local; over HTTP, the model edge-auto)."
            )
        decision = self._recorder.record(inquiry)
        if decision.persisted:
            self._said_unstored = False
        elif not self._store.database.is_open and not self._said_unstored:
            self._said_unstored = True  # once, not with every question
            why = decision.storage_error or ""
            _log.warning("edge-agent: this answer is not stored: %s", why[:1].lower() + why[1:])
        return decision
