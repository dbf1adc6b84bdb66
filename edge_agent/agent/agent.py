"""Agent: asks, remembers, defers and drains; here the other wings meet.

Owns what a program calls, and the checks of what it gives; `deciding` has the steps of a question. Invariant: an answer is returned
even when the database cannot be opened or written (`persisted` says so), and a question is committed to the queue before its
answer says that it is queued.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from edge_agent.agent import assembly, endings
from edge_agent.agent.deciding import Decider
from edge_agent.agent.inquiry import Inquiry
from edge_agent.agent.on_device import OnDevice
from edge_agent.agent.recording import Recorder
from edge_agent.agent.rules_in_force import NO_CALIBRATIONS, Calibrations, RulesInForce
from edge_agent.agent.until import Until
from edge_agent.cloud.audits import Audits
from edge_agent.cloud.privacy import Rules
from edge_agent.cloud.queue import Outbox
from edge_agent.cloud.queue_row import QueueRow
from edge_agent.core.config.limits import Limits
from edge_agent.core.config.loading import load
from edge_agent.core.config.settings import DEFAULT_LIMITS, Settings, checked
from edge_agent.core.errors import AgentClosed, BadQuestion, BadSetting, CloudUnavailable, ModelError, StorageError
from edge_agent.core.question import Question
from edge_agent.core.records import Decision, Ending, ModelFacts
from edge_agent.core.routing import Circumstances, Policy, PolicyName
from edge_agent.model import catalog
from edge_agent.model.catalog import ModelFiles
from edge_agent.model.profile import Profile
from edge_agent.store.database import Patience
from edge_agent.store.forget import sweep
from edge_agent.store.store import Store

if TYPE_CHECKING:  # heavy: llama.cpp and httpx are loaded only when a model or a cloud is needed
    from edge_agent.cloud.drain import Drained, Drainer
    from edge_agent.cloud.gate import Gate
    from edge_agent.cloud.wire.client import CloudModel
    from edge_agent.engine.draft import Draft
    from edge_agent.engine.local_model import LocalModel
    from edge_agent.model.calibration import Calibration

T = TypeVar("T")


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
        calibrations: Calibrations = NO_CALIBRATIONS,
    ) -> None:
        self.store, self.rules, self.limits = store, rules or Rules(), limits
        self.gate = _gate(store, cloud, limits) if cloud else None
        self.outbox = Outbox(store, limits.queue)
        self._on_device = OnDevice(store, files, open_model or assembly.opener(load()))
        self.audits = Audits(store, limits.audit_share, limits.queue.ttl_s)
        recorder_of_all = recorder(store, self.outbox, self.gate, self.rules, limits.disk, audits=self.audits)
        self._in_force = RulesInForce(policy, tau, calibrations)
        self._decider = Decider(store, self._on_device, self.gate, self.rules, self._in_force, recorder_of_all)
        self._closed = threading.Event()
        self._process = os.getpid()
        self._in_force.of(self.model, self.profile)  # says now what is wrong with a calibration, not with the first question

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
        assembly.finish_exchange(settings.models_folder)
        files = catalog.files_of(settings)
        store = Store(settings.database, must_open=False)
        try:
            return cls(
                files, store, PolicyName(settings.policy), settings.tau, cloud, rules, settings.limits,
                assembly.opener(settings, keep_open=not one_question),
                calibrations=Calibrations(settings.calibrations_folder, settings.calibration),
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
        self._on_device.close()
        self.forget_old()
        self.store.close()

    def forget_old(self) -> None:
        """Forget a little of what the retention settings allow, if it is time; call it when no person waits. `close` and drains do.

        The version before a model that has answered goes after some days, too, or at once if the disk is nearly full.
        If the cloud has just answered, it is also asked once which API it offers: at most two requests with our own test question.
        """
        with contextlib.suppress(StorageError, OSError):  # another process writes, the disk is full or no file handle is left: later
            sweep(self.store, self.limits.retention)
        with contextlib.suppress(StorageError, OSError):
            self._on_device.tidy(lambda: self.store.free_bytes() >= self.limits.disk.cache_bytes)
        with contextlib.suppress(StorageError):
            if self.gate and self.gate.may_find_api:
                self.gate.find_api(_PROBE_S)

    def ask(
        self, question: Question | str, refresh: bool = False, *, tau: float | None = None, policy: PolicyName | str | None = None
    ) -> Decision:
        """Decide one question: a `Question`, or the text of one as the command line takes it.

        `refresh` ignores what is remembered; `tau` and `policy` count for this question instead of the agent's. A `tau` compares
        with the printed confidence, and no calibration counts then. Raises `BadQuestion`
        if it does not fit or two options are the same, `BadSetting` for a wrong `tau` or `policy`, `CloudUnavailable` if only the
        cloud may answer and it does not, `ModelError` in a forked child. A failing database does not stop the answer, and one that
        another program locks delays it by 5 seconds at most.
        """
        return self.ask_all([question], tau=tau, policy=[policy], refresh=refresh)[0]

    def ask_all(
        self,
        questions: Sequence[Question | str],
        *,
        tau: float | None = None,
        policy: PolicyName | str | Sequence[PolicyName | str | None] | None = None,
        refresh: bool = False,
    ) -> list[Decision]:
        """Decide several questions at once, as `ask` would one by one; what their texts have in common at the start is read once.

        `policy` is one for all, or a list with one for each. All are checked first: one that cannot be asked raises before any work.
        The model reads them in one turn (after every 16, others that wait go first), and meanwhile at most two calls to the cloud
        run for those that need one. Raises like `ask`; `CloudUnavailable` only after all other decisions are stored.
        """
        self._check_open()
        self._check_process()
        if not isinstance(questions, (list, tuple)):
            raise BadQuestion(f"The questions are {questions!r:.80}; give a list of them.")
        policies: list[Any] = list(policy) if isinstance(policy, (list, tuple)) else [policy] * len(questions)
        if len(policies) != len(questions):
            raise BadSetting(
                f"There are {len(questions)} questions and {len(policies)} policies; give one policy, or one for each question."
            )
        decisions: dict[Inquiry, Decision] = {}
        with self.store.database.waiting_once() as patience:
            inquiries = [self._inquiry(*each, tau, patience) for each in zip(questions, policies, strict=True)]
            while rest := [inquiry for inquiry in inquiries if inquiry not in decisions]:
                # Of several that are the same, one a time: the others recall what it found.
                different = list({inquiry.question.fingerprint: inquiry for inquiry in reversed(rest)}.values())[::-1]
                decisions |= zip(different, self._decider.decide(different, refresh), strict=True)
        return [decisions[inquiry] for inquiry in inquiries]

    def _inquiry(self, question: Question | str, policy: PolicyName | str | None, tau: float | None, patience: Patience) -> Inquiry:
        """A question as it will be decided, checked. Raises `BadQuestion` or `BadSetting`."""
        question = self._question(question)
        own_tau = None if tau is None else checked("tau", tau, "The tau of this question")
        own_policy = None if policy is None else PolicyName(checked("policy", policy, "The policy of this question"))
        question.check_options_differ()
        circumstances = Circumstances(cloud_configured=self.gate is not None, never_send=self.rules.forbids(question))
        inquiry = Inquiry(question, circumstances, own_tau, own_policy, patience=patience)
        self._in_force.apply(inquiry, self.model, self.profile)
        return inquiry

    def fits(self, question: Question | str) -> None:
        """Check that the model can read a question, without any evaluation. Raises `BadQuestion` if not; it may open the model."""
        self._check_open()
        self._check_process()
        question = self._question(question)
        question.check_options_differ()
        self._on_device.opened().prompt_tokens(question)

    def warm(self) -> ModelFacts:
        """Open the model ahead of the first question, and let it read the system message; returns the facts of its file.

        Raises `ModelMissing` or `ModelRefused`.
        """
        with self.draft() as draft:
            draft.update("")
            draft.wait()
        return self.model

    @property
    def is_warm(self) -> bool:
        """Whether the model is open."""
        return self._on_device.is_open

    @property
    def unproven(self) -> str | None:
        """A sentence if the model replaced another one here and has not answered since: then a way back is open."""
        return self._on_device.unproven()

    @property
    def n_waiting(self) -> int:
        """How many callers wait for their turn at the model; with 16, the next one gets `ModelBusy`."""
        return self._on_device.n_waiting

    @property
    def model(self) -> ModelFacts:
        """The facts of the model file."""
        return self._on_device.facts

    @property
    def profile(self) -> Profile:
        """How the model is prompted, and what it says of itself."""
        return self._on_device.profile

    @property
    def policy(self) -> Policy:
        """The policy of a question that brings none of its own."""
        return self._in_force.of(self.model, self.profile).policy

    @property
    def calibration(self) -> Calibration | None:
        """The calibration that this policy comes from; None if none applies."""
        return self._in_force.of(self.model, self.profile).calibration

    def chance(self, decision: Decision) -> float | None:
        """How likely a plain model's own answer is right, by the curve of the calibration that decided; None where there is none."""
        found = self.calibration if self.profile.is_plain else None
        if found is None or decision.score is None or decision.calibration != found.sha256:
            return None
        return found.chance(decision.score)

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
        return Draft(self._on_device.opened().draft)

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

        return Drainer(
            self.outbox, self.gate, self.rules, upkeep=self.forget_old, sleep=until.sleep, stopped=lambda: until.over,
            audits=None if self.policy.name is PolicyName.ONLY_LOCAL else self.audits,
        )  # fmt: skip

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
