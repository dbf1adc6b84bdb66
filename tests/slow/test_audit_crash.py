"""SIGKILL at every statement of an audit, and between its claim and its answer: nothing is half done, and nothing counts twice."""

import os
import pathlib
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest

from edge_agent.cloud.audits import MAX_ATTEMPTS, Audit, Audits
from edge_agent.cloud.privacy import Rules
from edge_agent.cloud.queue import Outbox
from edge_agent.core.config.limits import BudgetLimits
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer
from edge_agent.store.store import Store
from tests.support.cloud_server import LoopbackCloud
from tests.support.killed import states_after_kills
from tests.support.mutation import catches
from tests.support.spoken_model import SURE, SpokenModel, agent

QUESTION = Question("kept", ("x", "y", "z"))
ANSWERED = CloudOutcome(CloudKind.ANSWERED, CloudAnswer("B", "B", "big", 1.0))


def put(store: Store) -> None:
    decision = {"decision_id": "d", "created_at": 1.0, "fingerprint": QUESTION.fingerprint, "rule_version": 3, "policy": "{}",
                "circumstances": "{}", "answer": "A", "route": "local", "reason": "confident", "deferred": 0, "recalled": 0,
                "provisional": 0}  # fmt: skip
    with store.transaction():
        store.put_question(QUESTION)
        store.put_decision(decision)
        Audits(store, 1.0).put(decision, "c", "big", QUESTION)


def claim(store: Store) -> Audit | None:
    return Audits(store, 1.0).claim(Rules(), "big", lambda send: store.put_spending("https://cloud", 1.0, 5) > 0)


class CountsLater(Audits):
    """Mutant: ends the audit in one transaction and counts its result in the next."""

    def _answered(self, audit: Audit, cloud_answer: str) -> str:
        self._database.write("UPDATE audits SET state = 'done', cloud_answer = ?, agrees = 0 WHERE id = ?", (cloud_answer, audit.number))
        return "done"

    def finish(self, audit: Audit, outcome: CloudOutcome, *more: object) -> str:
        super().finish(audit, outcome)
        with self.store.transaction() as db:
            db.execute("INSERT INTO agreements (calibration, cloud_model, agrees) VALUES ('c', 'big', 0)")
        return "done"


def finish(store: Store, kind: type[Audits] = Audits) -> None:
    kind(store, 1.0).finish(Audit(1, "d", "A", QUESTION, QUESTION), ANSWERED)


def finish_in_two_steps(store: Store) -> None:
    """Mutant: see `CountsLater`."""
    finish(store, CountsLater)


def state(path: pathlib.Path) -> tuple:
    """What matters in the file, opened as after a crash."""
    with Store(path) as store:
        assert store.database.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
        return tuple(
            tuple(tuple(row.values()) for row in store.database.rows(sql))
            for sql in ("SELECT decision_id FROM decisions", "SELECT state, attempts, agrees FROM audits", "SELECT agrees FROM agreements",
                        "SELECT micros FROM spending")
        )  # fmt: skip


def test_kill_while_deciding_leaves_decision_and_audit_or_neither(tmp_path: pathlib.Path) -> None:
    before, after, found = states_after_kills(tmp_path, [], put, state)
    assert before != after and found == {before, after}


def test_kill_while_claiming_leaves_the_audit_ready_or_sending_and_paid_for(tmp_path: pathlib.Path) -> None:
    before, after, found = states_after_kills(tmp_path, [put], claim, state)
    assert before != after and found == {before, after}


@catches(finish, finish_in_two_steps)
def test_kill_while_finishing_leaves_the_audit_sending_or_done_and_counted(part, tmp_path: pathlib.Path) -> None:
    before, after, found = states_after_kills(tmp_path, [put, claim], part, state)
    assert before != after and found == {before, after}


@pytest.fixture
def cloud() -> Iterator[LoopbackCloud]:
    made = LoopbackCloud()
    yield made
    made.stop()


class NeverReturns(Outbox):
    """Mutant: the next drainer does not look after the audits of a dead one."""

    def drainer(self):
        with self.store.transaction() as db:
            db.execute("UPDATE audits SET state = 'dropped' WHERE state = 'sending'")
        return super().drainer()


@catches(Outbox, NeverReturns)
def test_audit_of_a_killed_drainer_is_sent_again_and_counted_once(part: type[Outbox], home: pathlib.Path, cloud: LoopbackCloud) -> None:
    """The process dies while the cloud answers: the call stays paid for, the next drainer sends the audit once more."""
    budget = BudgetLimits(calls_per_day=100)
    child = os.fork()
    if child == 0:
        one = agent(home, SpokenModel(SURE), cloud.url, audit_share=1.0, budget=budget)
        one.ask(QUESTION)
        cloud_answers = one.gate.start
        one.gate.start = lambda *a: (cloud_answers(*a).result(), os.kill(os.getpid(), signal.SIGKILL))  # type: ignore[method-assign]
        list(one.drain())
        os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]) and len(cloud.requests) == 1
    with agent(home, SpokenModel(SURE), cloud.url, audit_share=1.0, budget=budget) as one:
        assert one.store.database.rows("SELECT state, attempts FROM audits") == [{"state": "sending", "attempts": 1}]
        one.outbox = part(one.store)
        *_, done = one.drain()
        assert done.audited == 1 and len(cloud.requests) == 2
        assert one.store.database.rows("SELECT state, attempts FROM audits") == [{"state": "done", "attempts": 2}]
        assert one.store.database.rows("SELECT agrees FROM agreements") == [{"agrees": 0}]
        assert one.store.spent(one.gate.cloud.endpoint, 0.0)[0] == 2
    job_keys = {request["headers"].get("X-Client-Request-Id") for request in cloud.requests}
    assert len(job_keys) == 1


def test_audit_that_kills_each_drainer_is_given_up(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "edge-agent.db"
    with Store(path) as store:
        put(store)
        for _ in range(MAX_ATTEMPTS):
            with Outbox(store).drainer():
                assert claim(store)
        with Outbox(store).drainer():
            assert claim(store) is None
        assert store.database.rows("SELECT state, last_error FROM audits") == [
            {"state": "dropped", "last_error": "it was interrupted too often"}
        ]


def test_interrupted_audit_is_ready_again_at_no_cost(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with agent(home, SpokenModel(SURE), cloud.url, audit_share=1.0) as one:
        one.ask(replace(QUESTION, stem="other"))
        start, one.gate.start = one.gate.start, interrupted  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            list(one.drain())
        one.gate.start = start  # type: ignore[method-assign]
        assert one.store.database.rows("SELECT state, attempts FROM audits") == [{"state": "ready", "attempts": 0}]
        *_, done = one.drain()
        assert done.audited == 1
