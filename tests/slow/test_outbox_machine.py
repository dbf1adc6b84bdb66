"""The outbox compared with a simple model: any sequence of operations, crashes and waits leaves both in the same state."""

import contextlib
import os
import pathlib
import tempfile
from dataclasses import dataclass

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from edge_agent.cloud.queue import Outbox
from edge_agent.cloud.retry import MAX_ATTEMPTS, MAX_UNUSABLE
from edge_agent.core.errors import BadQuestion
from edge_agent.core.outcome import CloudKind
from tests.support.queue_world import (
    LIMITS,
    ClaimsTwice,
    DropsOldest,
    ForgetsDecisions,
    FreeAttempts,
    Grows,
    PaysTwice,
    World,
    answer,
    fail,
)

MEMORY = "/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None  # thousands of transactions, which need not survive
EXAMPLES = int(os.environ.get("EDGE_AGENT_TEST_EXAMPLES", "30"))
STEMS = st.sampled_from("abcdefgh")
WHOLE_CLOUD = (CloudKind.OFFLINE, CloudKind.LIMITED, CloudKind.PORTAL)
COSTLY = (CloudKind.FAILED, CloudKind.TIMEOUT)
FINAL = (CloudKind.REJECTED,)


@dataclass
class Row:
    """A row in the model: plain Python, which shares nothing with the product."""

    stem: str
    put_s: float
    due_s: float
    state: str = "ready"
    attempts: int = 0
    portal_pages: int = 0
    unusable: int = 0
    waiting_decisions: int = 0
    answered: int = 0
    abandoned: int = 0

    def end(self, state: str) -> None:
        self.state = state
        if state == "done":
            self.answered += self.waiting_decisions
        else:
            self.abandoned += self.waiting_decisions
        self.waiting_decisions = 0


class OutboxMachine(RuleBasedStateMachine):
    """Operations on a real file, repeated in `rows`; `sending` is the row that is being sent."""

    outbox_type = Outbox

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY)
        self.world = World(pathlib.Path(self.folder.name) / "edge-agent.db")
        self.outbox = self.world.outbox(self.outbox_type)
        self.rows: dict[int, Row] = {}
        self.sending = None
        self.now_s = 0.0
        with self.world.store.transaction():
            self.world.store.clock.keep()

    def teardown(self) -> None:
        self.world.store.close()
        self.folder.cleanup()

    def expire(self) -> None:
        for row in self.rows.values():
            if row.state == "ready" and row.put_s < self.now_s - LIMITS.ttl_s:
                row.end("expired")

    def return_half_sent(self) -> None:
        self.sending = None
        for row in self.rows.values():
            if row.state == "sending":
                row.state = "ready"

    def waiting(self) -> list[Row]:
        return [row for row in self.rows.values() if row.state in ("ready", "sending")]

    @rule(stem=STEMS)
    def put(self, stem: str) -> None:
        self.expire()
        queue_id = self.world.put(self.outbox, stem)
        joined = next((number for number, row in self.rows.items() if row in self.waiting() and row.stem == stem), None)
        expected = joined or (max(self.rows, default=0) + 1 if len(self.waiting()) < LIMITS.max_rows else None)
        assert queue_id == expected
        if expected is not None:
            self.rows.setdefault(expected, Row(stem, self.now_s, self.now_s)).waiting_decisions += 1

    @precondition(lambda self: self.sending is None)
    @rule(due_only=st.booleans())
    def claim(self, due_only: bool) -> None:
        self.expire()
        ready = [n for n, row in self.rows.items() if row.state == "ready" and (row.due_s <= self.now_s or not due_only)]
        self.sending = self.outbox.claim(due_only=due_only)
        assert (self.sending.queue_id if self.sending else None) == (min(ready) if ready else None)
        if self.sending:
            self.rows[self.sending.queue_id].state = "sending"

    @precondition(lambda self: self.sending is not None)
    @rule()
    def settle(self) -> None:
        row, self.sending = self.sending, None
        answer(self.outbox, row)
        self.rows[row.queue_id].attempts += 1
        self.rows[row.queue_id].end("done")

    @precondition(lambda self: self.sending is not None)
    @rule(kind=st.sampled_from((*WHOLE_CLOUD, *COSTLY, *FINAL, CloudKind.UNUSABLE)))
    def fail(self, kind: CloudKind) -> None:
        row, self.sending = self.sending, None
        fail(self.outbox, row, kind, "error")
        copy = self.rows[row.queue_id]
        copy.state = "ready"
        if kind in FINAL:
            copy.attempts += 1
            copy.end("dead")
        elif kind is CloudKind.UNUSABLE and copy.due_s <= self.now_s:
            copy.attempts, copy.unusable = copy.attempts + 1, copy.unusable + 1
            copy.due_s = self.now_s + 900.0
            if copy.attempts >= MAX_ATTEMPTS or copy.unusable >= MAX_UNUSABLE:
                copy.due_s = self.now_s
                copy.end("dead")
        elif kind is not CloudKind.UNUSABLE and copy.due_s <= self.now_s:
            copy.due_s = self.now_s
            if kind in COSTLY:
                copy.due_s = self.now_s + min(900.0, 2.0 * 2**copy.attempts)
                copy.attempts += 1
                if copy.attempts >= MAX_ATTEMPTS:
                    copy.end("dead")

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def suspect(self, data: st.DataObject) -> None:
        queue_id = data.draw(st.sampled_from(sorted(self.rows)))
        self.outbox.suspect(queue_id)
        row = self.rows[queue_id]
        if row.state == "ready":
            row.portal_pages += 1
            if row.portal_pages >= 5:
                row.end("dead")

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), verb=st.sampled_from(["retry", "drop"]))
    def by_hand(self, data: st.DataObject, verb: str) -> None:
        queue_id = data.draw(st.sampled_from(sorted(self.rows)))
        row = self.rows[queue_id]
        twin = verb == "retry" and any(other is not row and other.stem == row.stem for other in self.waiting())
        self.return_half_sent()  # no drainer lives
        refused = row.state == "done" or twin
        with pytest.raises(BadQuestion) if refused else contextlib.nullcontext():
            getattr(self.outbox, verb)(queue_id)
        if refused:
            return
        if verb == "drop":
            row.end("cancelled")
        else:
            row.state, row.attempts, row.put_s, row.due_s = "ready", 0, self.now_s, self.now_s
            row.portal_pages = row.unusable = 0
            row.waiting_decisions, row.abandoned = row.waiting_decisions + row.abandoned, 0

    @rule(seconds=st.sampled_from([1.0, 3.0, 1000.0, 86_400.0, 8 * 86_400.0]))
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)
        self.now_s += seconds

    @rule()
    def crash_and_start_again(self) -> None:
        """The process ends and forgets the row it had claimed; the next drainer takes the lock."""
        self.world.restart()
        self.outbox = self.world.outbox(self.outbox_type)
        self.sending = None
        with self.outbox.drainer():
            pass
        self.return_half_sent()

    @invariant()
    def both_agree(self) -> None:
        assert {row.queue_id: (row.state, row.attempts) for row in self.outbox.list()} == {
            n: (row.state, row.attempts) for n, row in self.rows.items()
        }

    @invariant()
    def every_decision_has_the_end_of_its_row(self) -> None:
        counted = self.world.store.database.rows("SELECT queue_id, ending, count(*) AS n FROM decisions GROUP BY queue_id, ending")
        found = {(row["queue_id"], row["ending"]): row["n"] for row in counted}
        expected = {}
        for n, row in self.rows.items():
            for ending, count in ((None, row.waiting_decisions), ("upheld", row.answered), ("abandoned", row.abandoned)):
                if count:
                    expected[n, ending] = count
        assert found == expected


def machine(outbox: type[Outbox]) -> type[OutboxMachine]:
    return type("Machine", (OutboxMachine,), {"outbox_type": outbox})


def test_outbox_behaves_like_the_simple_model() -> None:
    run_state_machine_as_test(machine(Outbox), settings=settings(max_examples=EXAMPLES, stateful_step_count=30))


@pytest.mark.parametrize("mutant", [PaysTwice, Grows, DropsOldest, ForgetsDecisions, FreeAttempts, ClaimsTwice])
def test_simple_model_catches_the_mutant(mutant: type[Outbox]) -> None:
    with pytest.raises((AssertionError, KeyError)):
        run_state_machine_as_test(
            machine(mutant), settings=settings(max_examples=500, stateful_step_count=30, phases=[Phase.generate], print_blob=False)
        )
