"""A pass over the queue: what is sent, when it stops, and when the next one starts."""

import contextlib
import pathlib
import sqlite3
from collections.abc import Callable, Iterator

import pytest

from edge_agent.cloud.drain import Drained, Drainer
from edge_agent.cloud.gate import Gate
from edge_agent.cloud.queue import Outbox
from edge_agent.core.config.limits import BudgetLimits
from edge_agent.core.errors import StorageError
from edge_agent.core.outcome import CloudOutcome
from edge_agent.core.records import CloudAnswer
from tests.support.kiosk import Kiosk, Reply, answer, json_reply, offline, page, status
from tests.support.mutation import catches


@pytest.fixture
def kiosk(tmp_path: pathlib.Path) -> Iterator[Kiosk]:
    made = Kiosk(tmp_path / "edge-agent.db")
    yield made
    made.store.close()


class Continues(Drainer):
    """Mutant: no failure stops a pass."""

    def _ends_pass(self, *_: object) -> bool:
        return False


@pytest.mark.parametrize("reply", [offline, lambda stem: status(401), lambda stem: status(402)])
@catches(Drainer, Continues)
def test_outcome_that_concerns_the_whole_cloud_stops_the_pass_and_costs_nothing(part, kiosk: Kiosk, reply: Reply) -> None:
    for stem in ("one", "two", "three"):
        kiosk.put(kiosk.box, stem)
    kiosk.reply = reply
    done = kiosk.drain(part)
    assert len(kiosk.sent) == 1 and done.stopped and done.waiting == 3
    assert [(row.state, row.attempts) for row in kiosk.box.list()] == [("ready", 0)] * 3


def test_refused_key_is_tried_again_by_hand_or_once_it_has_changed(kiosk: Kiosk) -> None:
    kiosk.put(kiosk.box, "one")
    kiosk.reply = lambda stem: status(401)
    kiosk.drain()
    kiosk.drain()
    assert len(kiosk.sent) == 2
    assert kiosk.gate.breaker.refusal(1) is not None
    kiosk.gate.breaker.key = "new key"
    assert kiosk.gate.breaker.refusal(1) is None


class Impatient(Drainer):
    """Mutant: ignores Retry-After."""

    def _refusal(self, by_hand: bool) -> CloudOutcome | None:
        return None


@catches(Drainer, Impatient)
def test_retry_after_holds_for_the_whole_queue_even_by_hand(part, kiosk: Kiosk) -> None:
    kiosk.put(kiosk.box, "one")
    kiosk.put(kiosk.box, "two")
    kiosk.reply = lambda stem: status(429, **{"Retry-After": "60"})
    kiosk.drain(part)
    kiosk.reply = lambda stem: answer()
    assert "will not be called for 60 s" in (kiosk.drain(part).stopped or "") and len(kiosk.sent) == 1
    kiosk.wait(61)
    assert kiosk.drain(part).answered == 2


class NeverSuspects(Outbox):
    """Mutant: a question that gets a portal's page is never suspicious."""

    def suspect(self, queue_id: int) -> bool:
        return False


@catches(Outbox, NeverSuspects)
def test_only_question_that_gets_a_portals_page_is_dead_the_fifth_time(part, kiosk: Kiosk) -> None:
    kiosk.box = kiosk.outbox(part)
    kiosk.put(kiosk.box, "strange")
    kiosk.reply = lambda stem: page() if stem == "strange" else answer()
    for n in range(5):
        assert kiosk.states()[0] == "ready"
        kiosk.put(kiosk.box, f"other {n}")
        kiosk.drain()
    assert kiosk.states() == ["dead"] + ["done"] * 5 and kiosk.box.list()[0].attempts == 0


def test_portal_stops_the_pass_at_the_second_page_and_no_question_is_dead(kiosk: Kiosk) -> None:
    for n in range(4):
        kiosk.put(kiosk.box, f"Q{n}")
    kiosk.reply = lambda stem: page()
    for _ in range(7):
        assert "portal" in (kiosk.drain().stopped or "")
    assert kiosk.states() == ["ready"] * 4 and len(kiosk.sent) == 14
    assert kiosk.store.database.rows("SELECT 1 FROM cloud_answers") == []
    kiosk.reply = lambda stem: answer()
    assert kiosk.drain().answered == 4


def watch(kiosk: Kiosk, until: Callable[[], bool], kind: type[Drainer] = Drainer) -> None:
    """Watch until the test has seen enough, or for a hundred sleeps."""

    def sleep(seconds: float) -> None:
        kiosk.sleep(seconds)
        if until() or len(kiosk.slept) > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(kiosk.drainer(kind, sleep).watch())


class Hammers(Drainer):
    """Mutant: tries every two seconds."""

    def _pause_s(self, drained: Drained, failures: int) -> float:
        return 2.0


@catches(Drainer, Hammers)
def test_watch_tries_a_lost_connection_less_and_less_often(part, kiosk: Kiosk) -> None:
    kiosk.put(kiosk.box, "Q")
    kiosk.reply = offline
    watch(kiosk, lambda: len(kiosk.slept) >= 9, part)
    assert kiosk.slept == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert kiosk.states() == ["ready"]


def test_watch_sends_what_is_queued_later_and_respects_backoff(kiosk: Kiosk) -> None:
    kiosk.reply = lambda stem: status(500) if len(kiosk.sent) < 4 else answer()

    def until() -> bool:
        if len(kiosk.slept) == 2:
            kiosk.put(kiosk.box, "late")
        return kiosk.states() == ["done"]

    watch(kiosk, until)
    assert kiosk.sent == ["late"] * 4 and kiosk.box.list()[0].attempts == 4
    assert sum(kiosk.slept[2:]) >= 2 + 4 + 8


def test_answer_that_is_already_stored_is_not_paid_for_again(kiosk: Kiosk) -> None:
    kiosk.put(kiosk.box, "Q")
    row = kiosk.box.list()[0]
    with kiosk.store.transaction():
        kiosk.store.put_cloud_answer(kiosk.gate.key(row.fingerprint), CloudAnswer("A", "A", "big", 1.0))
    assert kiosk.drain().answered == 1 and kiosk.sent == [] and kiosk.endings() == ["upheld"]


def test_purged_question_is_cancelled_and_the_pass_continues(kiosk: Kiosk) -> None:
    kiosk.put(kiosk.box, "gone")
    kiosk.put(kiosk.box, "there")
    with contextlib.closing(sqlite3.connect(kiosk.store.path)) as other, other:  # foreign keys are off in a plain connection
        other.execute("DELETE FROM questions WHERE stem = 'gone'")
    assert kiosk.drain().answered == 1
    assert kiosk.states() == ["cancelled", "done"] and kiosk.endings() == ["abandoned", "overturned"]


def test_pass_by_hand_stops_after_five_failures_in_a_row(kiosk: Kiosk) -> None:
    for n in range(9):
        kiosk.put(kiosk.box, f"Q{n}")
    kiosk.reply = lambda stem: status(500)
    done = kiosk.drain()
    assert len(kiosk.sent) == 5 and done.failed == 5 and "HTTP 500" in (done.stopped or "")


def test_nothing_is_sent_when_the_budget_cannot_be_read(kiosk: Kiosk) -> None:
    kiosk.gate = Gate(kiosk.store, kiosk.cloud, BudgetLimits(calls_per_day=9))
    kiosk.put(kiosk.box, "Q")
    with kiosk.store.transaction() as db:
        db.execute("DROP TABLE spending")
    with pytest.raises(StorageError):
        kiosk.drain()
    assert kiosk.sent == []


@pytest.mark.parametrize("payload", ['["x"]', "[]", "5", "null", '["x", null]', '["x", ["a", "b"], 1]', "{", '["x", [1]]', '[["x"], []]'])
def test_row_with_damaged_content_is_cancelled_and_the_next_one_is_sent(kiosk: Kiosk, payload: str) -> None:
    kiosk.put(kiosk.box, "damaged")
    kiosk.put(kiosk.box, "sound")
    with kiosk.store.transaction() as db:
        db.execute("UPDATE outbox SET payload = ? WHERE id = 1", (payload,))
    assert kiosk.drain().answered == 1 and kiosk.sent == ["sound"]
    assert kiosk.states() == ["cancelled", "done"] and kiosk.endings() == ["abandoned", "overturned"]


def test_breaker_remembers_a_failure_that_could_not_be_stored(kiosk: Kiosk) -> None:
    kiosk.put(kiosk.box, "Q")
    kiosk.reply = lambda stem: status(401)
    with kiosk.store.transaction() as db:
        db.execute("CREATE TRIGGER full BEFORE INSERT ON clouds BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    with pytest.raises(StorageError):
        kiosk.drain()
    assert kiosk.gate.breaker.refusal(1) is not None and kiosk.states() == ["sending"]


STRANGE = [
    (200, {"choices": [{"message": {"content": "B \ud83d"}}]}),
    (200, {"choices": [{"message": {"content": "B"}}], "usage": {"prompt_tokens": 10**30, "completion_tokens": 2**70}}),
    (403, {"error": {"code": 403, "message": "your input was flagged", "metadata": {"reasons": ["violence"]}}}),
]


@pytest.mark.parametrize(("code", "payload"), STRANGE)
def test_strange_reply_ends_its_row_and_the_next_one_is_reached(kiosk: Kiosk, code: int, payload: object) -> None:
    limits = BudgetLimits(money_per_day=100.0, prompt_price=1.0, completion_price=1.0)
    kiosk.gate = Gate(kiosk.store, kiosk.cloud, limits)
    for stem in ("strange", "sound"):
        kiosk.put(kiosk.box, stem)
    kiosk.reply = lambda stem: json_reply(code, payload) if stem == "strange" else answer()
    kiosk.drain()
    assert kiosk.sent == ["strange", "sound"] and set(kiosk.states()) <= {"done", "dead"} and None not in kiosk.endings()


@pytest.mark.parametrize("n_calls", [1, 2])
def test_nothing_is_sent_after_the_caller_has_stopped_the_drain(kiosk: Kiosk, n_calls: int) -> None:
    for stem in ("one", "two", "three"):
        kiosk.put(kiosk.box, stem)
    kiosk.reply = lambda stem: status(400)
    drainer = Drainer(kiosk.box, kiosk.gate, deadline_s=20, sleep=kiosk.sleep, stopped=lambda: len(kiosk.sent) >= n_calls)
    list(drainer.watch())
    assert kiosk.sent == ["one", "two", "three"][:n_calls] and kiosk.states() == ["ready"] * 3
