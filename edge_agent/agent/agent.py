"""Agent: asks, remembers, defers, drains - the one place where the rooms meet.

Owns the order of a question's way and nothing else: what to do is `routing`'s, how to do it the other rooms'.
Invariant: once the store is open, an answer is given even when it cannot be stored (`persisted` says so), and what is
said to be queued is committed before the answer leaves.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from edge_agent.agent import assembly
from edge_agent.agent import endings as listening
from edge_agent.agent.inquiry import Facts, decision, fits
from edge_agent.cloud.breaker import Breaker
from edge_agent.cloud.budget import Budget, BudgetLimits
from edge_agent.cloud.drain import Drained, Drainer
from edge_agent.cloud.privacy import Rules
from edge_agent.cloud.queue import Limits, Outbox, QueueRow
from edge_agent.cloud.reply import PROMPT_VERSION
from edge_agent.core import routing
from edge_agent.core import settings as settings_room
from edge_agent.core.errors import CloudUnavailable, StorageError
from edge_agent.core.outcome import CloudKind
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer, Decision, Ending, LevelReading, ModelFacts
from edge_agent.core.routing import Circumstances, Policy, PolicyName, Settlement, Step
from edge_agent.model import catalog
from edge_agent.model.profile import Profile
from edge_agent.store.device_time import Clock
from edge_agent.store.disk import DiskLimits, free_bytes
from edge_agent.store.forget import Retention, sweep
from edge_agent.store.store import Store

if TYPE_CHECKING:  # heavy: llama.cpp and httpx are loaded when a model or a cloud is really needed
    from edge_agent.cloud.client import CloudModel
    from edge_agent.core.outcome import CloudOutcome
    from edge_agent.engine.draft import Draft
    from edge_agent.engine.local_model import LocalModel


class Agent:
    """Answers questions on this device, and through the cloud where the device is not sure enough.

    Threads may share one: they take turns at the model and at the database. Build one with `Agent.open`; tests give
    the parts themselves. Use as a context manager, or `close`.
    """

    def __init__(
        self,
        model_path: pathlib.Path,
        store: Store,
        policy: PolicyName = PolicyName.PREFER_LOCAL,
        tau: float | None = None,
        cloud: CloudModel | None = None,
        open_model: Callable[[pathlib.Path, ModelFacts], LocalModel] | None = None,
        adapter_path: pathlib.Path | None = None,
        limits: Limits | None = None,
        clock: Clock | None = None,
        rules: Rules | None = None,
        budget: BudgetLimits | None = None,
        retention: Retention | None = None,
        disk: DiskLimits | None = None,
        free_bytes: Callable[[pathlib.Path], int] = free_bytes,
    ) -> None:
        self.store, self.cloud, self.rules, self.retention = store, cloud, rules or Rules(), retention or Retention()
        self.disk, self._free_bytes = disk or DiskLimits(), free_bytes
        self.outbox = Outbox(store, clock, limits)
        self.budget = Budget(store, self.outbox.clock, cloud.endpoint, budget) if cloud else None
        self.breaker = Breaker(store, self.outbox.clock, cloud.endpoint, cloud.key) if cloud else None
        self._model_path, self._adapter_path = model_path, adapter_path
        self._open_model = open_model or assembly.opener(settings_room.load(), adapter_path)
        self._model: LocalModel | None = None
        self._opening = threading.Lock()
        self.model = assembly.identify(store, model_path, adapter_path)
        self.profile = Profile.from_json(self.model.profile)
        self.policy = Policy(policy, self.profile.tau if tau is None else tau, self.profile.format_mass_min)

    @classmethod
    def open(cls, settings: settings_room.Settings | None = None, one_question: bool = False, **flags: Any) -> Self:
        """An agent by settings; keywords such as `model="demo"` or `tau=0.75` count as flags do.

        For `one_question` the model is opened as fast as can be; for more of them, so that each is decided as fast as can be.
        Raises `ModelMissing`, `ModelRefused`, `BadSetting` or `StorageError`.
        """
        settings = settings or settings_room.load(flags)
        cloud, rules = assembly.cloud(settings), assembly.rules(settings)
        path = catalog.resolve(settings.model, settings.models_folder)
        adapter = catalog.resolve(settings.adapter) if settings.adapter else None
        store = Store(settings.database)
        try:
            return cls(
                path, store, PolicyName(settings.policy), settings.tau, cloud,
                assembly.opener(settings, adapter, stays=not one_question), adapter,
                limits=assembly.limits(settings), rules=rules, budget=assembly.budget(settings), retention=assembly.retention(settings),
                disk=assembly.disk(settings),
            )  # fmt: skip
        except BaseException:
            store.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the model and close the database; at most once an hour, forget a little of what is old before."""
        if self._model:
            self._model.close()
            self._model = None
        self.forget_old()
        self.store.close()

    def forget_old(self) -> None:
        """One small step of what the retention settings say, if it is time; to be called where nobody waits. `close` and drains do."""
        with contextlib.suppress(StorageError):  # another process writes, or the disk is full: there is a next time
            sweep(self.store, self.outbox.clock, self.retention)

    def ask(self, question: Question, refresh: bool = False) -> Decision:
        """Decide one question; `refresh` ignores what is remembered.

        Raises `BadQuestion` if it does not fit or two options are the same, `CloudUnavailable` if the policy allows nothing
        but a cloud that gives no answer. A failing database does not stop the answer.
        """
        question.check_options_differ()
        started = time.perf_counter()
        facts = Facts(question) if refresh else self._recall(question)
        circumstances = Circumstances(cloud_configured=self.cloud is not None, never_send=self.rules.forbids(question))
        planned = routing.plan(facts.reading, self.policy, circumstances)
        if planned.step is Step.READ:
            self._read(facts, circumstances)
            planned = routing.plan(facts.reading, self.policy, circumstances)
        if planned.step is Step.ASK_CLOUD:
            self._ask_cloud(facts)
        circumstances = replace(circumstances, over_budget=facts.over_budget)
        settled = routing.settle(planned, facts.cloud_kind, circumstances)
        if settled is None:
            self._note_outcome(facts)
            raise CloudUnavailable(
                f"The policy only_cloud allows no local answer, and {facts.cloud_error}; choose another policy, or try later."
            )
        return self._record(facts, circumstances, planned, settled, started)

    def draft(self) -> Draft:
        """A question that is still being written: what is known of it is evaluated while the person goes on.

        Close it when the question was asked, or given up. Raises `ModelMissing` or `ModelRefused`.
        """
        from edge_agent.engine.draft import Draft

        return Draft(self._engine().draft)

    def ending(self, decision_id: str) -> Ending:
        """How a decision stands now: a provisional one ends upheld, overturned or abandoned. Raises `BadQuestion` for an unknown id."""
        return self.store.ending(decision_id)

    def wait(self, decision_id: str, timeout_s: float | None = None) -> Ending:
        """How a decision stands as soon as it waits no more, or when the time is up. It is ended by whoever drains, in any process."""
        return listening.wait(self.store, decision_id, timeout_s)

    def endings(self, after: int | None = None, stop: threading.Event | None = None) -> Iterator[Ending]:
        """Each provisional decision as it ends, in order and once, whichever process ends it, until `stop` is set.

        `after` is the `number` of the last end that was dealt with, to go on behind it; None begins now, 0 with the first ever.
        """
        return listening.endings(self.store, after, stop)

    def drain(self) -> Iterator[QueueRow | Drained]:
        """Send what waits, once over the queue; yields each row as it was claimed, then a `Drained`.

        Stops early when the cloud cannot be reached or accepts no more. Raises `CloudUnavailable` without a cloud.
        """
        return self._drainer().once()

    def watch(self) -> Iterator[QueueRow | Drained]:
        """Send what waits as soon as it can be sent, until the caller stops; yields as `drain` does. Raises `CloudUnavailable`."""
        return self._drainer().watch()

    def _drainer(self) -> Drainer:
        if self.cloud is None or self.breaker is None or self.budget is None:
            raise CloudUnavailable("No cloud is set up, so nothing can be sent; give its address as EDGE_AGENT_CLOUD_URL.")
        return Drainer(self.store, self.outbox, self.cloud, self.breaker, self.budget, self.rules, upkeep=self.forget_old)

    def _recall(self, question: Question) -> Facts:
        """What the store knows of the question; nothing, if it cannot be read."""
        facts = Facts(question)
        with contextlib.suppress(StorageError):
            if (answer := self._stored_answer(question)) and fits(question, answer[1].answer):
                facts.cloud_id, facts.cloud = answer
            if self.policy.name is PolicyName.ONLY_CLOUD:
                return facts  # the device's own opinion is not wanted
            found = self.store.reading(question.fingerprint, *self._key)
            if found and fits(question, found[1].answer):
                facts.reading_id, facts.reading = found
        return facts

    def _stored_answer(self, question: Question) -> tuple[int, CloudAnswer] | None:
        if self.cloud is None:
            return None
        return self.store.cloud_answer(question.fingerprint, self.cloud.model, self.cloud.endpoint, PROMPT_VERSION)

    def _read(self, facts: Facts, circumstances: Circumstances) -> None:
        """Read the model; a cloud that its level asks for is called at once, and the letter is read meanwhile."""

        def on_level(level: LevelReading) -> None:
            if routing.plan(level, self.policy, circumstances).step is Step.ASK_CLOUD and not facts.cloud:
                self._start_call(facts)

        facts.reading, facts.model_ran = self._engine().read(facts.question, on_level), True

    def _start_call(self, facts: Facts) -> None:
        """Call the cloud, without waiting, unless it is left alone for now."""
        assert self.cloud is not None and self.breaker is not None
        send = self.rules.redacted(facts.question)
        if refusal := self.breaker.refusal(self.cloud.deadline_s):
            facts.cloud_kind, facts.cloud_error = refusal
        elif (reserved := self._reserve(send)) is None:
            facts.over_budget, facts.cloud_error = True, "nothing may be spent on the cloud for now"
        else:
            facts.reserved, facts.cloud_call = reserved, self.cloud.start(send)

    def _reserve(self, send: Question) -> int | None:
        """Count a call before it is made, in a transaction of its own; None if there is no money for it, or it cannot be counted."""
        assert self.budget is not None
        if not self.budget.limits.is_set:
            return 0
        with contextlib.suppress(StorageError), self.store.transaction():
            return self.budget.reserve(send)
        return None

    def _ask_cloud(self, facts: Facts) -> None:
        """Fill in the cloud's answer, from the store or the network, or why there is none."""
        if facts.cloud:
            facts.cloud_kind = CloudKind.ANSWERED
            return
        if self.cloud is None:
            facts.cloud_error = "no cloud is set up (EDGE_AGENT_CLOUD_URL)"
            return
        if facts.cloud_call is None and facts.cloud_kind is None and not facts.over_budget:
            self._start_call(facts)
        if facts.cloud_call:
            outcome: CloudOutcome = facts.cloud_call.result()
            facts.cloud, facts.cloud_kind, facts.cloud_outcome = outcome.answer, outcome.kind, outcome
            facts.cloud_error = outcome.error

    def _record(self, facts: Facts, circumstances: Circumstances, planned: routing.Plan, settled: Settlement, started: float) -> Decision:
        """Store the facts, the decision and the queue row in one transaction; give the decision.

        On a nearly full disk, store only what waits for the cloud, or not even that.
        """
        question, free = facts.question, self._free_bytes(self.store.path.parent)
        if settled.queue and free < self.disk.queue_bytes:
            circumstances = replace(circumstances, disk_low=True)
            settled = routing.settle(planned, facts.cloud_kind, circumstances) or settled
        by_cloud, whole = settled.route == "cloud", settled.queue or free >= self.disk.cache_bytes
        decision_id, created_at = str(uuid.uuid4()), time.time()

        def keep() -> tuple[Settlement, int | None]:
            with self.store.transaction():
                if not whole:
                    self._store_outcome(facts, circumstances, whole)
                    return settled, None
                self.outbox.clock.now_s()
                self.store.put_question(question)
                queue_id, true, now = self._store_facts(facts, circumstances, settled), settled, circumstances
                if settled.queue and queue_id is None:
                    now = replace(circumstances, queue_full=True)
                    true = routing.settle(planned, facts.cloud_kind, now) or settled
                self.store.put_decision(
                    {
                        "decision_id": decision_id,
                        "created_at": created_at,
                        "fingerprint": question.fingerprint,
                        "rule_version": routing.RULE_VERSION,
                        "policy": json.dumps(asdict(self.policy)),
                        "circumstances": json.dumps(asdict(now)),
                        "reading_id": facts.reading_id,
                        "cloud_answer_id": facts.cloud_id if by_cloud else None,
                        "cloud_kind": facts.cloud_kind,
                        "answer": facts.answer(settled.route),
                        "route": true.route,
                        "reason": true.reason,
                        "cause": planned.cause,
                        "score": planned.score,
                        "deferred": planned.cause is not None,
                        "recalled": facts.recalled,
                        "provisional": true.provisional,
                        "queue_id": queue_id,
                    }
                )
            return true, queue_id

        end, queue_id, error = self._try(keep, facts, settled)
        if not whole:
            error = f"only {free >> 20} MiB of the disk are free; the rest is kept for questions that wait for the cloud"
        return decision(
            facts, planned, end, self.policy, self.model,
            decision_id=decision_id, queue_id=queue_id, storage_error=error, total_ms=(time.perf_counter() - started) * 1000,
        )  # fmt: skip

    def _try(
        self, keep: Callable[[], tuple[Settlement, int | None]], facts: Facts, settled: Settlement
    ) -> tuple[Settlement, int | None, str | None]:
        """Store a decision, in a new database if the old one is damaged; its settlement, its queue row, and why it is not stored."""
        known = facts.reading_id, facts.cloud_id
        refused: str | None = None
        for _ in range(2):
            try:
                return (*keep(), None)
            except StorageError as error:
                refused = str(error)
                facts.reading_id, facts.cloud_id = known
                with contextlib.suppress(StorageError):
                    if self.store.renew():
                        facts.reading_id = facts.cloud_id = None  # ids of the damaged file
                        continue
                break
        self._note_outcome(facts)
        return settled, None, refused

    def _store_facts(self, facts: Facts, circumstances: Circumstances, settled: Settlement) -> int | None:
        """Inside the transaction of `_record`: keep what is new; gives the queue row's id, if the question waits."""
        question = facts.question
        if facts.reading and facts.reading_id is None:
            facts.reading_id = self.store.put_reading(question.fingerprint, *self._key, facts.reading)
        if facts.cloud and facts.cloud_outcome is None and facts.cloud_id is None:
            facts.cloud_id = self._put_cloud_answer(question.fingerprint, facts.cloud)
        elif facts.cloud_id is not None and settled.route == "cloud":
            self.store.use_cloud_answer(facts.cloud_id)
        self._store_outcome(facts, circumstances, whole=True)
        send = self.rules.redacted(question) if settled.queue else None
        return self.outbox.put(question, question.kind, facts.cloud_error, send) if settled.queue else None

    def _store_outcome(self, facts: Facts, circumstances: Circumstances, whole: bool) -> None:
        """Inside the transaction of `_record`: what a call has cost and shown, and the end of a row that waited for its answer.

        Unless `whole`, an answer that nobody waited for is not kept.
        """
        question = facts.question
        self._note_outcome(facts)
        if facts.reserved and facts.cloud_outcome and self.budget:
            self.budget.close(facts.reserved, facts.cloud_outcome.answer, facts.cloud_outcome.was_sent)
        if facts.cloud_outcome and (answer := facts.cloud_outcome.answer):
            waiting = self.outbox.answer_waiting(question, question.kind)  # a new answer, not one that was there before the row
            if whole or waiting is not None:
                facts.cloud_id = self._put_cloud_answer(question.fingerprint, answer)
            if waiting is not None and facts.cloud_id is not None:
                self.store.end_provisional(waiting, answer.answer, facts.cloud_id)
        if circumstances.never_send:
            self.outbox.cancel_waiting(question, question.kind)

    def _note_outcome(self, facts: Facts) -> None:
        """Tell the breaker how the call ended, if there was one."""
        if facts.cloud_outcome and self.breaker:
            self.breaker.note(facts.cloud_outcome.kind, facts.cloud_outcome.error, facts.cloud_outcome.retry_after_s)

    def _put_cloud_answer(self, fingerprint: str, answer: CloudAnswer) -> int:
        assert self.cloud is not None
        return self.store.put_cloud_answer(fingerprint, self.cloud.endpoint, PROMPT_VERSION, answer)

    @property
    def _key(self) -> tuple[str, str, str]:
        """What a reading depends on beside the question."""
        return self.model.sha256, self.model.adapter_sha256, self.profile.sha256

    def _engine(self) -> LocalModel:
        """The model, opened on first use: hours later, perhaps, so the file is looked at again."""
        with self._opening:
            if self._model is None:
                self.model = assembly.identify(self.store, self._model_path, self._adapter_path)
                self.profile = Profile.from_json(self.model.profile)
                self._model = self._open_model(self._model_path, self.model)
            return self._model
