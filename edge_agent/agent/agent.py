"""Agent: asks, remembers, defers and drains; here the other wings meet.

Owns only the order of a question's steps: `routing` decides what to do, the other wings do it. Invariant: once the store is
open, an answer is returned even when it cannot be stored (`persisted` says so), and a question is committed to the queue
before its answer says that it is queued.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from edge_agent.agent import assembly, endings
from edge_agent.agent.inquiry import Inquiry
from edge_agent.agent.recording import Recorder
from edge_agent.cloud.privacy import Rules
from edge_agent.cloud.queue import Outbox, QueueRow
from edge_agent.core import routing
from edge_agent.core.errors import CloudUnavailable, StorageError
from edge_agent.core.limits import Limits
from edge_agent.core.outcome import CloudKind
from edge_agent.core.question import Question
from edge_agent.core.records import Decision, Ending, LevelReading, ModelFacts
from edge_agent.core.routing import Circumstances, Policy, PolicyName, Step
from edge_agent.core.settings import DEFAULT_LIMITS, Settings, load
from edge_agent.model import catalog
from edge_agent.model.catalog import ModelFiles
from edge_agent.model.profile import Profile
from edge_agent.store.forget import sweep
from edge_agent.store.store import Store

if TYPE_CHECKING:  # heavy: llama.cpp and httpx are loaded only when a model or a cloud is needed
    from edge_agent.cloud.drain import Drained, Drainer
    from edge_agent.cloud.gate import Gate
    from edge_agent.cloud.wire.client import CloudModel
    from edge_agent.engine.draft import Draft
    from edge_agent.engine.local_model import LocalModel


class Agent:
    """Answers questions on this device, and through the cloud where the device is not sure enough.

    Threads may share an agent: they take turns at the model and the database. Make one with `Agent.open`; tests pass the
    parts themselves. Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        files: ModelFiles,
        store: Store,
        policy: PolicyName = PolicyName.PREFER_LOCAL,
        tau: float | None = None,
        cloud: CloudModel | None = None,
        rules: Rules | None = None,
        limits: Limits = DEFAULT_LIMITS,
        open_model: Callable[[ModelFiles, ModelFacts], LocalModel] | None = None,
        recorder: type[Recorder] = Recorder,
    ) -> None:
        self.store, self.rules, self.limits = store, rules or Rules(), limits
        self.gate = _gate(store, cloud, limits) if cloud else None
        self.outbox = Outbox(store, limits.queue)
        self._recorder = recorder(store, self.outbox, self.gate, self.rules, limits.disk)
        self._files = files
        self._open_model = open_model or assembly.opener(load())
        self._model: LocalModel | None = None
        self._opening = threading.Lock()
        self.model = assembly.identify(store, files)
        self.profile = Profile.from_json(self.model.profile)
        self.policy = Policy(policy, self.profile.tau if tau is None else tau, self.profile.format_mass_min)

    @classmethod
    def open(cls, settings: Settings | None = None, one_question: bool = False, **flags: Any) -> Self:
        """An agent from settings; keywords such as `model="demo"` or `tau=0.75` work like flags.

        With `one_question` the model opens as fast as possible; otherwise each decision is as fast as possible.
        Raises `ModelMissing`, `ModelRefused`, `BadSetting` or `StorageError`.
        """
        settings = settings or load(flags)
        cloud, rules = assembly.cloud(settings), assembly.rules(settings)
        files = ModelFiles(
            catalog.resolve(settings.model, settings.models_folder), catalog.resolve(settings.adapter) if settings.adapter else None
        )
        store = Store(settings.database)
        try:
            return cls(
                files, store, PolicyName(settings.policy), settings.tau, cloud, rules, settings.limits,
                assembly.opener(settings, keep_open=not one_question),
            )  # fmt: skip
        except BaseException:
            store.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the model and close the database; before that, at most once an hour, forget a little of what is old."""
        if self._model:
            self._model.close()
            self._model = None
        self.forget_old()
        self.store.close()

    def forget_old(self) -> None:
        """Forget a little of what the retention settings allow, if it is time; call it when no person waits. `close` and drains do."""
        with contextlib.suppress(StorageError, OSError):  # another process writes, the disk is full or no file handle is left: later
            sweep(self.store, self.limits.retention)

    def ask(self, question: Question, refresh: bool = False) -> Decision:
        """Decide one question; `refresh` ignores what is remembered.

        Raises `BadQuestion` if it does not fit or two options are the same, `CloudUnavailable` if only
        the cloud may answer and it does not. A failing database does not stop the answer.
        """
        question.check_options_differ()
        circumstances = Circumstances(cloud_configured=self.gate is not None, never_send=self.rules.forbids(question))
        inquiry = Inquiry(question, self.policy, self.model, self.profile.sha256, circumstances)
        if not refresh:
            self._recall(inquiry)
        planned = routing.plan(inquiry.reading, self.policy, circumstances)
        if planned.step is Step.READ:
            self._read(inquiry)
            planned = routing.plan(inquiry.reading, self.policy, circumstances)
        if planned.step is Step.ASK_CLOUD:
            self._ask_cloud(inquiry)
        inquiry.planned, inquiry.circumstances = planned, replace(circumstances, over_budget=inquiry.over_budget)
        inquiry.settled = routing.settle(planned, inquiry.cloud_kind, inquiry.circumstances)
        if inquiry.settled is None:
            self._recorder.note_outcome(inquiry)
            raise CloudUnavailable(
                f"The policy only_cloud allows no local answer, and {inquiry.cloud_error}; choose another policy, or try again later."
            )
        return self._recorder.record(inquiry)

    def draft(self) -> Draft:
        """A question that is still being typed: the model reads what is there while the person types on.

        Close it when the question is asked or given up. Raises `ModelMissing` or `ModelRefused`.
        """
        from edge_agent.engine.draft import Draft

        return Draft(self._engine().draft)

    def ending(self, decision_id: str) -> Ending:
        """The state of a decision: a provisional one ends upheld, overturned or abandoned. Raises `BadQuestion` for an unknown id."""
        return self.store.ending(decision_id)

    def wait(self, decision_id: str, timeout_s: float | None = None) -> Ending:
        """The state of a decision once it no longer waits, or when the time is up. Any process may drain and end it."""
        return endings.wait(self.store, decision_id, timeout_s)

    def endings(self, after: int | None = None, stop: threading.Event | None = None) -> Iterator[Ending]:
        """Each provisional decision as it ends, in order and once, whichever process ends it, until `stop` is set.

        `after` is the `number` of the last ending that was handled; None starts now, 0 with the first ever.
        """
        return endings.endings(self.store, after, stop)

    def drain(self) -> Iterator[QueueRow | Drained]:
        """Send everything that waits, once; yields each row as it was claimed, then a `Drained`.

        Stops early when the cloud cannot be reached or accepts no more. Raises `CloudUnavailable` without a cloud.
        """
        return self._drainer().once()

    def watch(self) -> Iterator[QueueRow | Drained]:
        """Send everything as soon as it can be sent, until the caller stops; yields like `drain`. Raises `CloudUnavailable`."""
        return self._drainer().watch()

    def _drainer(self) -> Drainer:
        if self.gate is None:
            raise CloudUnavailable("No cloud is set up, so nothing can be sent; give its address as EDGE_AGENT_CLOUD_URL.")
        from edge_agent.cloud.drain import Drainer

        return Drainer(self.outbox, self.gate, self.rules, upkeep=self.forget_old)

    def _recall(self, inquiry: Inquiry) -> None:
        """Fill in what the store knows about the question; nothing if it cannot be read."""
        with contextlib.suppress(StorageError):
            answer = self.store.cloud_answer(self.gate.key(inquiry.question.fingerprint)) if self.gate else None
            if answer and inquiry.fits(answer[1].answer):
                inquiry.cloud_id, inquiry.cloud = answer
            if self.policy.name is PolicyName.ONLY_CLOUD:
                return  # the device's own answer is not wanted
            found = self.store.reading(inquiry.reading_key)
            if found and inquiry.fits(found[1].answer):
                inquiry.reading_id, inquiry.reading = found

    def _read(self, inquiry: Inquiry) -> None:
        """Read the model; if its level asks for the cloud, call the cloud at once and read the letter meanwhile."""

        def on_level(level: LevelReading) -> None:
            if routing.plan(level, self.policy, inquiry.circumstances).step is Step.ASK_CLOUD and not inquiry.cloud:
                self._start_call(inquiry)

        inquiry.reading, inquiry.model_ran = self._engine().read(inquiry.question, on_level), True
        inquiry.model, inquiry.profile_sha256 = self.model, self.profile.sha256  # opening may have found another file

    def _start_call(self, inquiry: Inquiry) -> None:
        """Start a call to the cloud, unless the circuit breaker or the budget forbids it for now."""
        assert self.gate is not None
        send = self.rules.redacted(inquiry.question)
        if refusal := self.gate.breaker.refusal(self.gate.cloud.deadline_s):
            inquiry.cloud_kind, inquiry.cloud_error = refusal
        elif (reservation := self.gate.reserve(send)) is None:
            inquiry.over_budget, inquiry.cloud_error = True, "the budget for the cloud is used up for now"
        else:
            inquiry.reservation, inquiry.cloud_call = reservation, self.gate.start(send, reservation)

    def _ask_cloud(self, inquiry: Inquiry) -> None:
        """Fill in the cloud's answer, from the store or the network, or why there is none."""
        if inquiry.cloud:
            inquiry.cloud_kind = CloudKind.ANSWERED
            return
        if self.gate is None:
            inquiry.cloud_error = "no cloud is set up (EDGE_AGENT_CLOUD_URL)"
            return
        if inquiry.cloud_call is None and inquiry.cloud_kind is None and not inquiry.over_budget:
            self._start_call(inquiry)
        if inquiry.cloud_call:
            outcome = inquiry.cloud_call.result()
            inquiry.cloud, inquiry.cloud_kind, inquiry.cloud_outcome = outcome.answer, outcome.kind, outcome
            inquiry.cloud_error = outcome.error

    def _engine(self) -> LocalModel:
        """The model, opened on first use. That may be hours later, so the file is identified again."""
        with self._opening:
            if self._model is None:
                self.model = assembly.identify(self.store, self._files)
                self.profile = Profile.from_json(self.model.profile)
                self._model = self._open_model(self._files, self.model)
            return self._model


def _gate(store: Store, cloud: CloudModel, limits: Limits) -> Gate:
    """The way to a cloud; without one, nothing of it is imported."""
    from edge_agent.cloud.gate import Gate

    return Gate(store, cloud, limits.budget)
