"""Agent: asks, remembers, defers and drains; here the other wings meet.

Owns only the order of a question's steps: `routing` decides what to do, the other wings do it. Invariant: an answer is returned
even when the database cannot be opened or written (`persisted` says so), and a question is committed to the queue before its
answer says that it is queued.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from edge_agent.agent import assembly, endings
from edge_agent.agent.inquiry import Inquiry
from edge_agent.agent.recording import Recorder
from edge_agent.agent.until import Until
from edge_agent.cloud.privacy import Rules
from edge_agent.cloud.queue import Outbox
from edge_agent.cloud.queue_row import QueueRow
from edge_agent.core import routing
from edge_agent.core.config.limits import Limits
from edge_agent.core.config.settings import DEFAULT_LIMITS, Settings, checked, load
from edge_agent.core.errors import AgentClosed, BadQuestion, BadSetting, CloudUnavailable, ModelError, StorageError
from edge_agent.core.outcome import CloudKind
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer, Decision, Ending, LevelReading, ModelFacts
from edge_agent.core.routing import Circumstances, Policy, PolicyName, Step
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

T = TypeVar("T")


_log = logging.getLogger("edge_agent")
_PROBE_S = 5.0  # how long a request may take that finds out what the cloud offers: the process may be ending


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
        self._closed = threading.Event()
        self._process = os.getpid()
        self._said_unstored = False
        self.model = assembly.identify(store, files)
        self.profile = Profile.from_json(self.model.profile)
        self.policy = Policy(policy, self.profile.tau if tau is None else tau, self.profile.format_mass_min)

    @classmethod
    def open(cls, settings: Settings | str | os.PathLike[str] | None = None, /, one_question: bool = False, **by_name: Any) -> Self:
        """An agent on a model, given by its name or path: `Agent.open("demo")`; or with settings by name, which work like flags:
        `Agent.open("demo", tau=0.75)` or `Agent.open(model="demo")`; or from a whole `Settings`.

        What is not given comes from the environment and `config.toml`. With `one_question` the model opens as fast as possible;
        otherwise each decision is as fast as possible. If the database cannot be used, `ask` still answers, stores nothing, and logs
        why; everything else raises `StorageError`. Raises `ModelMissing`, `ModelRefused`, `BadSetting`, or `StorageForeign` for a file
        that is not ours.
        """
        settings = _settings(settings, by_name)
        cloud, rules = assembly.cloud(settings), assembly.rules(settings)
        files = ModelFiles(
            catalog.resolve(settings.model, settings.models_folder),
            catalog.resolve_adapter(settings.adapter, settings.models_folder) if settings.adapter else None,
        )
        store = Store(settings.database, must_open=False)
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
        """Free the model and close the database; before that, at most once an hour, forget a little of what is old.

        `watch` and `endings` end then. Closing twice is fine.
        """
        if self._closed.is_set() or self._process != os.getpid():  # a forked child owns neither
            return
        self._closed.set()
        if self._model:
            self._model.close()
            self._model = None
        self.forget_old()
        self.store.close()

    def forget_old(self) -> None:
        """Forget a little of what the retention settings allow, if it is time; call it when no person waits. `close` and drains do.

        If the cloud has just answered, it is also asked once which API it offers: at most two requests with our own test question.
        """
        with contextlib.suppress(StorageError, OSError):  # another process writes, the disk is full or no file handle is left: later
            sweep(self.store, self.limits.retention)
        with contextlib.suppress(StorageError):
            if self.gate and self.gate.may_find_api:
                self.gate.find_api(_PROBE_S)

    def ask(
        self, question: Question | str, refresh: bool = False, *, tau: float | None = None, policy: PolicyName | str | None = None
    ) -> Decision:
        """Decide one question: a `Question`, or the text of one as the command line takes it.

        `refresh` ignores what is remembered; `tau` and `policy` count for this question instead of the agent's. Raises `BadQuestion`
        if it does not fit or two options are the same, `BadSetting` for a wrong `tau` or `policy`, `CloudUnavailable` if only the
        cloud may answer and it does not, `ModelError` in a forked child. A failing database does not stop the answer, and one that
        another program locks delays it by 5 seconds at most.
        """
        self._check_open()
        self._check_process()
        question, rules = self._question(question), self._policy(tau, policy)
        question.check_options_differ()
        circumstances = Circumstances(cloud_configured=self.gate is not None, never_send=self.rules.forbids(question))
        inquiry = Inquiry(question, rules, self.model, self.profile.sha256, circumstances)
        with self.store.database.waiting_once(inquiry.patience):
            return self._decide(inquiry, refresh)

    def _decide(self, inquiry: Inquiry, refresh: bool) -> Decision:
        """The steps of a question, in order."""
        circumstances = inquiry.circumstances
        if not refresh:
            self._recall(inquiry)
        planned = routing.plan(inquiry.reading, inquiry.policy, circumstances)
        if planned.step is Step.READ:
            self._read(inquiry)
            planned = routing.plan(inquiry.reading, inquiry.policy, circumstances)
        if planned.step is Step.ASK_CLOUD:
            self._ask_cloud(inquiry)
        inquiry.planned, inquiry.circumstances = planned, replace(circumstances, over_budget=inquiry.over_budget)
        inquiry.settled = routing.settle(planned, inquiry.cloud_kind, inquiry.circumstances)
        if inquiry.settled is None:
            self._recorder.note_outcome(inquiry)
            raise CloudUnavailable(
                f"The policy only_cloud allows no local answer, and {inquiry.cloud_error}; choose another policy, or try again later."
            )
        decision = self._recorder.record(inquiry)
        if decision.persisted:
            self._said_unstored = False
        elif not self.store.database.is_open and not self._said_unstored:
            self._said_unstored = True  # once, not with every question
            why = decision.storage_error or ""
            _log.warning("edge-agent: this answer is not stored: %s", why[:1].lower() + why[1:])
        return decision

    def _check_process(self) -> None:
        """Raises `ModelError` in a forked child: a fork copies neither the model's thread nor the database's locks."""
        if self._process != os.getpid():
            raise ModelError("This agent was opened before this process was forked; open another agent in this process.")

    def draft(self) -> Draft:
        """A question that is still being typed: the model reads what is there while the person types on.

        Close it when the question is asked or given up. Raises `ModelMissing` or `ModelRefused`.
        """
        self._check_open()
        from edge_agent.engine.draft import Draft

        self._check_process()
        return Draft(self._engine().draft)

    def ending(self, decision_id: str) -> Ending:
        """The state of a decision: a provisional one ends upheld, overturned or abandoned. Raises `BadQuestion` for an unknown id."""
        self._check_open()
        return self.store.ending(decision_id)

    def wait(self, decision_id: str, timeout_s: float | None = None) -> Ending:
        """The state of a decision once it no longer waits, when the time is up, or when another thread closes the agent.

        Any process may drain and end it.
        """
        self._check_open()
        try:
            return endings.wait(self.store, decision_id, Until(None, timeout_s, self._closed))
        except StorageError:
            self._check_open()  # closed before the first look
            raise

    def endings(self, after: int | None = None, stop: threading.Event | None = None, timeout_s: float | None = None) -> Iterator[Ending]:
        """Each provisional decision as it ends, in order and once, whichever process ends it.

        `after` is the `number` of the last ending that was handled; None starts now, 0 with the first ever. Goes on until `stop` is
        set, `timeout_s` seconds are over, or the agent is closed; those already stored come first, so with `timeout_s=0` these
        are all.
        """
        self._check_open()
        return self._while_open(endings.endings(self.store, after, Until(stop, timeout_s, self._closed)))

    def drain(self) -> Iterator[QueueRow | Drained]:
        """Send everything that waits, once; yields each row as it was claimed, then a `Drained`.

        Stops early when the cloud cannot be reached or accepts no more. Raises `CloudUnavailable` without a cloud.
        """
        return self._while_open(self._drainer(Until(closed=self._closed)).once())

    def watch(
        self,
        stop: threading.Event | None = None,
        timeout_s: float | None = None,
        on_wait: Callable[[float, str | None], None] = lambda wait_s, stopped: None,
    ) -> Iterator[QueueRow | Drained]:
        """Send everything as soon as it can be sent; yields like `drain`. Raises `CloudUnavailable` without a cloud.

        Goes on until `stop` is set, `timeout_s` seconds are over, or the agent is closed. A call under way is finished first. Before
        each wait, `on_wait` gets its seconds, and why the last pass stopped, if it did.
        """
        return self._while_open(self._drainer(Until(stop, timeout_s, self._closed)).watch(on_wait))

    def _drainer(self, until: Until) -> Drainer:
        self._check_open()
        if self.gate is None:
            raise CloudUnavailable(
                "No cloud is set up, so nothing can be sent; give its address as EDGE_AGENT_CLOUD_URL, or ask with `--policy only_local`, "
                "which queues nothing."
            )
        from edge_agent.cloud.drain import Drainer

        return Drainer(self.outbox, self.gate, self.rules, upkeep=self.forget_old, sleep=until.sleep, stopped=lambda: until.over)

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise AgentClosed("The agent is closed; ask before you close it, or open another one with Agent.open().")

    def _while_open(self, found: Iterator[T]) -> Iterator[T]:
        """The same, until the agent is closed by another thread."""
        try:
            yield from found
        except StorageError:
            if not self._closed.is_set():
                raise

    def _question(self, question: Question | str) -> Question:
        """The question, from whatever a caller may give. Raises `BadQuestion`."""
        if isinstance(question, str):
            return Question.parse(question, self.profile.question_kind)
        if not isinstance(question, Question):
            raise BadQuestion(f"The question is {question!r:.80}; give a text or a Question (Question.from_json reads an object).")
        return question

    def _policy(self, tau: float | None, policy: PolicyName | str | None) -> Policy:
        """The agent's policy, or this question's own. It is stored with the decision. Raises `BadSetting`."""
        own: dict[str, Any] = {}
        if tau is not None:
            own["tau"] = checked("tau", tau, "The tau of this question")
        if policy is not None:
            own["name"] = PolicyName(checked("policy", policy, "The policy of this question"))
        return replace(self.policy, **own)

    def _recall(self, inquiry: Inquiry) -> None:
        """Fill in what the store knows about the question; nothing if it cannot be read."""
        with contextlib.suppress(StorageError):
            answer = self._stored_answer(self.gate, inquiry.question) if self.gate else None
            if answer and inquiry.fits(answer[1].answer):
                inquiry.cloud_id, inquiry.cloud = answer
            if inquiry.policy.name is PolicyName.ONLY_CLOUD:
                return  # the device's own answer is not wanted
            found = self.store.reading(inquiry.reading_key)
            if found and inquiry.fits(found[1].answer):
                inquiry.reading_id, inquiry.reading = found

    def _stored_answer(self, gate: Gate, question: Question) -> tuple[int, CloudAnswer] | None:
        """The cloud's newest stored answer, with its id, by the API that would be used now. Raises `StorageError`."""
        return self.store.cloud_answer(gate.key(question.fingerprint, gate.api_for(question)))

    def _read(self, inquiry: Inquiry) -> None:
        """Read the model; if its level asks for the cloud, call the cloud at once and read the letter meanwhile."""

        def on_level(level: LevelReading) -> None:
            if routing.plan(level, inquiry.policy, inquiry.circumstances).step is Step.ASK_CLOUD and not inquiry.cloud:
                with self.store.database.waiting_once(inquiry.patience):  # this is the model's thread
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
            if not self.store.database.is_open:
                inquiry.cloud_error = "without the database the budget for the cloud cannot be counted"
            elif inquiry.patience.is_over:
                inquiry.cloud_error = "another program locks the database, so the budget for the cloud cannot be counted now"
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
            inquiry.cloud_error, inquiry.over_budget = outcome.error, outcome.over_budget

    def _engine(self) -> LocalModel:
        """The model, opened on first use. That may be hours later, so the file is identified again."""
        with self._opening:
            if self._model is None:
                self.model = assembly.identify(self.store, self._files)
                self.profile = Profile.from_json(self.model.profile)
                self._model = self._open_model(self._files, self.model)
            return self._model


def _settings(given: Settings | str | os.PathLike[str] | None, by_name: dict[str, Any]) -> Settings:
    """The settings of a new agent. Raises `BadSetting`."""
    by_name = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in by_name.items()}
    if isinstance(given, Settings):
        if by_name:
            raise BadSetting(f"Agent.open was given whole Settings and {next(iter(by_name))} as well; give one or the other.")
        return given
    if isinstance(given, (str, os.PathLike)):
        if by_name.get("model") is not None:
            raise BadSetting(f"Agent.open was given two models, {given!r:.80} and {by_name['model']!r:.80}; give one.")
        return load({**by_name, "model": os.fspath(given)})
    if given is not None:
        raise BadSetting(f"Agent.open was given {given!r:.80}; give the name or path of a model, or settings by name, such as tau=0.75.")
    return load(by_name)


def _gate(store: Store, cloud: CloudModel, limits: Limits) -> Gate:
    """The way to a cloud; without one, nothing of it is imported."""
    from edge_agent.cloud.gate import Gate

    return Gate(store, cloud, limits.budget)
