"""Faults of the cloud as a whole, told from faults of one question: no question is lost to the first kind."""

import json
import pathlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from edge_agent.cloud.drain import OVER_BUDGET, Drainer
from edge_agent.cloud.gate import TEST_QUESTION, Gate
from edge_agent.cloud.queue_row import QueueRow
from edge_agent.cloud.wire.client import CloudModel
from edge_agent.cloud.wire.request import Shape as RequestShape
from edge_agent.core.config.limits import BudgetLimits
from edge_agent.core.outcome import CloudKind, CloudOutcome
from tests.support.kiosk import Kiosk, answer, json_reply, page, shaped, status
from tests.support.mutation import catches
from tests.support.reply_shapes import CLOUD_FAULTS, OWN_FAULTS, PASSING_FAULTS, Shape

UNKNOWN_MODEL = {"error": {"message": "The model `big` does not exist", "code": "model_not_found"}}


@pytest.fixture
def kiosk(tmp_path: pathlib.Path) -> Iterator[Kiosk]:
    made = Kiosk(tmp_path / "edge-agent.db")
    yield made
    made.store.close()


def untouched(kiosk: Kiosk, n_rows: int) -> bool:
    """Whether every question waits as if it had never been sent."""
    rows = [(row.state, row.attempts, row.suspicions) for row in kiosk.box.list()]
    return rows == [("ready", 0, 0)] * n_rows and kiosk.endings() == [None] * n_rows


class Believes(Drainer):
    """Mutant: takes the first reply for a verdict on the question."""

    def _is_doubtful(self, row: QueueRow, outcome: CloudOutcome) -> bool:
        return False


@pytest.mark.parametrize("shape", CLOUD_FAULTS, ids=lambda shape: shape.name)
@pytest.mark.parametrize("n_rows", [1, 2, 8])
def test_fault_of_the_whole_cloud_costs_no_question_anything(kiosk: Kiosk, shape: Shape, n_rows: int) -> None:
    kiosk.fill(n_rows)
    kiosk.reply = lambda stem: shaped(shape)
    for _ in range(3):
        done = kiosk.drain()
        assert untouched(kiosk, n_rows) and done.stopped and done.waiting == n_rows
    assert len(kiosk.sent) <= 9 and kiosk.gate.breaker.refusal(1) is not None
    kiosk.reply = lambda stem: answer()
    kiosk.wait(3600)
    assert kiosk.drain().answered == n_rows and kiosk.endings() == ["overturned"] * n_rows


def test_person_is_told_what_the_server_said(kiosk: Kiosk) -> None:
    kiosk.fill(8)
    kiosk.reply = lambda stem: json_reply(404, UNKNOWN_MODEL)
    assert 'HTTP 404, "The model `big` does not exist"); check cloud_model' in (kiosk.drain().stopped or "")
    assert {row.last_error for row in kiosk.box.list()[1:]} == {None}
    assert "does not exist" in (kiosk.box.list()[0].last_error or "")


@catches(Drainer, Believes)
def test_single_question_outlives_a_wrong_setting(part, kiosk: Kiosk) -> None:
    kiosk.fill(1)
    kiosk.reply = lambda stem: json_reply(400, {"error": {"message": "Invalid model name passed in model=big", "code": "400"}})
    kiosk.drain(part)
    assert untouched(kiosk, 1) and kiosk.sent == ["Question 0", TEST_QUESTION.stem]


@pytest.mark.parametrize("shape", CLOUD_FAULTS[::6], ids=lambda shape: shape.name)
def test_watch_pauses_an_hour_at_most_and_loses_nothing(kiosk: Kiosk, shape: Shape) -> None:
    kiosk.fill(3)
    kiosk.reply = lambda stem: shaped(shape)

    def sleep(seconds: float) -> None:
        assert seconds <= 3600
        kiosk.sleep(seconds)
        if len(kiosk.slept) == 12:
            kiosk.reply = lambda stem: answer()
        if len(kiosk.slept) > 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        for _ in kiosk.drainer(sleep=sleep).watch():
            assert len(kiosk.slept) >= 12 or untouched(kiosk, 3) or "sending" in kiosk.states()
    assert kiosk.states() == ["done"] * 3 and len(kiosk.sent) < 60


@pytest.mark.parametrize("shape", OWN_FAULTS, ids=lambda shape: shape.name)
@pytest.mark.parametrize("place", [0, 2])
def test_fault_of_one_question_ends_it_and_the_others_are_answered(kiosk: Kiosk, shape: Shape, place: int) -> None:
    kiosk.fill(3)
    kiosk.reply = lambda stem: shaped(shape) if stem == f"Question {place}" else answer()
    done = kiosk.drain()
    assert (done.answered, done.failed, done.stopped) == (2, 1, None)
    row = kiosk.box.list()[place]
    is_rejected = row.state == "dead"
    assert row.attempts == 1 and kiosk.sent.count(TEST_QUESTION.stem) == (place == 2 or "refused the key" in (row.last_error or ""))
    for _ in range(2):
        kiosk.drain()  # before its time: this costs no attempt
        kiosk.wait(1000)
        kiosk.drain()
    row = kiosk.box.list()[place]
    assert (row.state, row.attempts) == ("dead", 1 if is_rejected else 3) and kiosk.endings()[place] == "abandoned"


@pytest.mark.parametrize("shape", OWN_FAULTS, ids=lambda shape: shape.name)
def test_two_faults_in_a_row_are_settled_by_one_test_question(kiosk: Kiosk, shape: Shape) -> None:
    kiosk.fill(4)
    kiosk.reply = lambda stem: shaped(shape) if stem in ("Question 1", "Question 2") else answer()
    done = kiosk.drain()
    assert (done.answered, done.failed, done.stopped) == (2, 2, None) and kiosk.states()[3] == "done"
    assert [row.attempts for row in kiosk.box.list()] == [1, 1, 1, 1]
    assert kiosk.sent.count(TEST_QUESTION.stem) in (1, 2)  # a refusal by a firewall is tested at once


def test_setting_that_is_wrong_from_the_middle_of_a_pass_on_is_noticed(kiosk: Kiosk) -> None:
    kiosk.fill(8)
    kiosk.reply = lambda stem: answer() if len(kiosk.sent) <= 3 else json_reply(404, UNKNOWN_MODEL)
    assert kiosk.drain().answered == 3
    assert kiosk.states() == ["done"] * 3 + ["ready"] * 5


def test_test_question_is_counted_but_never_kept(kiosk: Kiosk) -> None:
    kiosk.gate = Gate(kiosk.store, kiosk.cloud, BudgetLimits(calls_per_day=9))
    kiosk.fill(1)
    kiosk.reply = lambda stem: answer() if stem == TEST_QUESTION.stem else status(400)
    kiosk.drain()
    assert kiosk.states() == ["dead"] and kiosk.sent == ["Question 0", TEST_QUESTION.stem]
    assert len(kiosk.store.database.rows("SELECT 1 FROM spending")) == 2
    assert kiosk.store.database.rows("SELECT 1 FROM cloud_answers") == []
    assert TEST_QUESTION.stem not in str(kiosk.store.database.rows("SELECT * FROM questions"))


@pytest.mark.parametrize("calls", [1, 2])
def test_verdict_that_the_budget_cannot_check_is_not_passed(kiosk: Kiosk, calls: int) -> None:
    kiosk.gate = Gate(kiosk.store, kiosk.cloud, BudgetLimits(calls_per_day=calls))
    kiosk.fill(3)
    kiosk.reply = lambda stem: answer() if stem == TEST_QUESTION.stem else status(400)
    assert kiosk.drain().stopped == OVER_BUDGET
    assert untouched(kiosk, 3) and len(kiosk.sent) == calls


class Killed(Drainer):
    """A drainer whose process ends while the test question is on its way."""

    def _test(self, done: object) -> None:
        raise SystemExit

    def _interrupt(self, done: object, was_sent: bool) -> None:
        pass

    def _release(self, done: object) -> None:
        pass


def test_process_that_dies_before_the_test_question_is_answered_loses_no_question(kiosk: Kiosk) -> None:
    kiosk.fill(3)
    kiosk.reply = lambda stem: status(400)
    with pytest.raises(SystemExit):
        kiosk.drain(Killed)
    assert kiosk.states() == ["sending", "sending", "ready"] and kiosk.endings() == [None] * 3
    kiosk.restart()
    kiosk.box, kiosk.gate = kiosk.outbox(), Gate(kiosk.store, kiosk.cloud)
    kiosk.reply = lambda stem: answer()
    assert kiosk.drain().answered == 3


def test_interrupted_pass_makes_the_rows_in_doubt_ready(kiosk: Kiosk) -> None:
    kiosk.fill(3)
    kiosk.reply = lambda stem: status(400)
    steps = kiosk.drainer().once()
    next(steps), next(steps)
    assert kiosk.states() == ["sending", "sending", "ready"]
    steps.close()
    assert kiosk.states() == ["ready"] * 3  # also the second, which was claimed


def test_answer_that_came_another_way_counts_while_a_row_is_in_doubt(kiosk: Kiosk) -> None:
    kiosk.fill(2)

    def reply(stem: str) -> httpx.Response:
        if stem == "Question 1":  # meanwhile a visitor asked the first question again, and was answered
            with kiosk.store.transaction():
                kiosk.store.put_cloud_answer(kiosk.gate.key(kiosk.box.list()[0].fingerprint), answered.answer)
            return answer()
        return status(400)

    answered = CloudModel("https://cloud.test/v1", "big", transport=httpx.MockTransport(lambda _: answer())).ask(TEST_QUESTION)
    kiosk.reply = reply
    done = kiosk.drain()
    assert (done.answered, done.failed) == (2, 0) and kiosk.states() == ["done", "done"]


@pytest.mark.parametrize("shape", PASSING_FAULTS[3::5], ids=lambda shape: shape.name)
def test_long_outage_ends_no_question(kiosk: Kiosk, shape: Shape) -> None:
    kiosk.fill(3)
    kiosk.reply = lambda stem: shaped(shape)
    for _ in range(12):
        kiosk.drain()
        kiosk.wait(1000)
    assert set(kiosk.states()) == {"ready"} and kiosk.endings() == [None] * 3
    assert max(row.attempts for row in kiosk.box.list()) < 8
    kiosk.reply = lambda stem: answer()
    kiosk.wait(3600)
    assert kiosk.drain().answered == 3


def test_question_that_always_fails_is_dead_after_eight_attempts_while_others_are_answered(kiosk: Kiosk) -> None:
    kiosk.fill(1)
    kiosk.reply = lambda stem: status(500) if stem == "Question 0" else answer()
    for _ in range(8):
        assert kiosk.states() == ["ready"]
        kiosk.drain()
        kiosk.wait(1000)
    assert kiosk.states() == ["dead"] and kiosk.box.list()[0].attempts == 8


@pytest.mark.parametrize("error", [{}, {"message": "blocked by policy"}, {"code": "forbidden", "message": "no"}])
def test_refusal_that_does_not_name_the_key_is_tried_with_the_test_question(kiosk: Kiosk, error: object) -> None:
    kiosk.fill(3)
    kiosk.reply = lambda stem: json_reply(403, {"error": error}) if stem == "Question 0" else answer()
    assert kiosk.drain().answered == 2 and kiosk.states()[0] == "dead"
    assert kiosk.gate.breaker.refusal(1) is None


def other_settings(kiosk: Kiosk, model: str = "big", key: str = "key") -> None:
    """The same device after its owner has changed a setting."""
    cloud = CloudModel("https://cloud.test/v1", model, key, transport=httpx.MockTransport(kiosk._handle))
    kiosk.gate = Gate(kiosk.store, cloud)


@pytest.mark.parametrize("change", [{"model": "bigger"}, {"key": "another key"}])
def test_new_settings_are_tried_with_the_test_question_first(kiosk: Kiosk, change: dict[str, str]) -> None:
    kiosk.fill(1)
    kiosk.drain()
    assert kiosk.sent == ["Question 0"]
    other_settings(kiosk, **change)
    kiosk.put(kiosk.box, "Question 1")
    kiosk.reply = lambda stem: json_reply(404, UNKNOWN_MODEL)
    for _ in range(2):
        assert "does not exist" in (kiosk.drain().stopped or "")
    assert kiosk.sent == ["Question 0", TEST_QUESTION.stem, TEST_QUESTION.stem]
    assert [(row.state, row.last_error) for row in kiosk.box.list()] == [("done", None), ("ready", None)]
    kiosk.reply = lambda stem: answer()
    kiosk.drain()
    kiosk.put(kiosk.box, "Question 2")
    kiosk.drain()
    assert kiosk.sent[3:] == [TEST_QUESTION.stem, "Question 1", "Question 2"]


@pytest.mark.parametrize("own", [{"deadline_s": 3.0}, {"headers": {"X-Title": "Drainer"}}, {"wanted": RequestShape(500)}])
def test_processes_with_settings_of_their_own_do_not_pay_for_a_test_question_each_time(kiosk: Kiosk, own: dict[str, Any]) -> None:
    transport = httpx.MockTransport(kiosk._handle)
    gates = [Gate(kiosk.store, CloudModel("https://cloud.test/v1", "big", "key", transport=transport, **more)) for more in ({}, own)]
    for n in range(6):
        kiosk.gate = gates[n % 2]
        kiosk.put(kiosk.box, f"Question {n}")
        assert kiosk.drain().answered == 1
    assert kiosk.sent.count(TEST_QUESTION.stem) <= 1


def test_another_deadline_or_proxy_is_no_other_cloud() -> None:
    one = CloudModel("https://cloud.test/v1", "big")
    assert one.settings == CloudModel("https://cloud.test/v1", "big", deadline_s=3.0, proxy="http://127.0.0.1:8080").settings


def test_settings_that_worked_are_known_from_the_mark_of_an_earlier_version(kiosk: Kiosk) -> None:
    kiosk.fill(1)
    kiosk.drain()
    (known,) = json.loads(kiosk.store.cloud_health("settings") or "")
    with kiosk.store.transaction():
        kiosk.store.put_cloud_health("settings", json.dumps(known))
    assert not kiosk.gate.has_new_settings
    other_settings(kiosk, model="bigger")
    assert kiosk.gate.has_new_settings


def test_nothing_is_sent_with_new_settings_while_nothing_waits(kiosk: Kiosk) -> None:
    kiosk.fill(1)
    kiosk.drain()
    other_settings(kiosk, model="bigger")
    assert kiosk.drain().stopped is None and kiosk.sent == ["Question 0"]


def test_pause_for_a_wrong_setting_ends_when_the_setting_changes(kiosk: Kiosk) -> None:
    kiosk.fill(2)
    kiosk.reply = lambda stem: json_reply(404, UNKNOWN_MODEL)
    kiosk.drain()
    assert kiosk.gate.breaker.wait_s() == 3600 and kiosk.gate.breaker.refusal(1)[0] is CloudKind.PAUSED
    other_settings(kiosk, model="bigger")
    assert kiosk.gate.breaker.wait_s() == 0


def test_settings_are_remembered_as_a_mark_that_tells_nothing(kiosk: Kiosk) -> None:
    other_settings(kiosk, model="secret-model", key="sk-canary-key")
    kiosk.fill(1)
    kiosk.drain()
    stored = str(kiosk.store.database.rows("SELECT * FROM clouds"))
    assert "settings" in stored and "secret-model" not in stored and "sk-canary" not in stored


REJECTED = ("Question 0", "Question 1")


def test_budget_that_pays_for_no_verdict_does_not_keep_the_other_questions_waiting(kiosk: Kiosk) -> None:
    kiosk.gate = Gate(kiosk.store, kiosk.cloud, BudgetLimits(calls_per_day=2))
    kiosk.fill(5)
    kiosk.reply = lambda stem: status(400) if stem in REJECTED else answer()
    for _ in range(5):
        kiosk.drain()
        kiosk.wait(86_401)
    assert kiosk.states() == ["dead"] * 2 + ["done"] * 3


def test_cloud_that_takes_two_calls_a_minute_reaches_every_question(kiosk: Kiosk) -> None:
    kiosk.fill(4)
    n_calls = 0

    def reply(stem: str) -> httpx.Response:
        nonlocal n_calls
        n_calls += 1
        return status(429, **{"Retry-After": "60"}) if n_calls > 2 else status(400) if stem in REJECTED else answer()

    kiosk.reply = reply
    for _ in range(4):
        n_calls = 0
        kiosk.drain()
        kiosk.wait(61)
    assert kiosk.states() == ["dead"] * 2 + ["done"] * 2


def test_one_server_of_two_that_lacks_the_model_for_a_while_ends_no_question(kiosk: Kiosk) -> None:
    kiosk.fill(8)
    kiosk.reply = lambda stem: json_reply(404, UNKNOWN_MODEL) if len(kiosk.sent) % 2 else answer()
    for _ in range(4):
        kiosk.drain()
        assert set(kiosk.states()) <= {"ready", "done"}
        kiosk.wait(3601)
    kiosk.reply = lambda stem: answer()
    kiosk.drain()
    assert kiosk.states() == ["done"] * 8


def test_question_that_alone_gets_no_such_model_is_dead_after_eight_attempts(kiosk: Kiosk) -> None:
    kiosk.fill(1)
    kiosk.reply = lambda stem: json_reply(404, UNKNOWN_MODEL) if stem == "Question 0" else answer()
    for _ in range(8):
        assert kiosk.states() == ["ready"]
        kiosk.drain()
        kiosk.wait(1000)
    assert kiosk.states() == ["dead"] and kiosk.box.list()[0].attempts == 8


def test_pass_that_is_left_before_its_question_is_sent_costs_no_budget(kiosk: Kiosk) -> None:
    kiosk.gate = Gate(kiosk.store, kiosk.cloud, BudgetLimits(calls_per_day=1))
    kiosk.fill(1)
    steps = kiosk.drainer().once()
    next(steps)
    steps.close()
    assert kiosk.states() == ["ready"] and kiosk.drain().answered == 1


def test_interrupted_call_leaves_its_row_ready_and_its_cost_counted(kiosk: Kiosk) -> None:
    kiosk.gate = Gate(kiosk.store, kiosk.cloud, BudgetLimits(calls_per_day=9))
    kiosk.fill(1)
    started = threading.Event()

    def reply(stem: str) -> httpx.Response:
        started.set()
        time.sleep(2)
        return answer()

    kiosk.reply = reply
    threading.Thread(target=lambda: started.wait(10) and signal.raise_signal(signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        kiosk.drain()
    assert kiosk.states() == ["ready"] and len(kiosk.store.database.rows("SELECT 1 FROM spending")) == 1


def test_drain_every_minute_does_not_use_up_the_tries_of_an_unusable_reply(kiosk: Kiosk) -> None:
    kiosk.fill(1)
    kiosk.reply = lambda stem: answer("I do not know") if stem == "Question 0" else answer()
    attempts = []
    for _ in range(14):
        kiosk.drain()
        kiosk.wait(60)
        attempts.append(kiosk.box.list()[0].attempts)
    assert attempts == [1] * 14 and kiosk.states() == ["ready"]


def test_portal_pages_do_not_count_as_unusable_replies(kiosk: Kiosk) -> None:
    kiosk.fill(1)
    replies = {"Question 0": page}
    kiosk.reply = lambda stem: replies.get(stem, answer)()
    for reply, state in [(page, "ready")] * 4 + [(lambda: answer("I do not know"), "ready")] * 2 + [(page, "dead")]:
        replies["Question 0"] = reply
        kiosk.drain()
        kiosk.wait(1000)
        assert kiosk.states() == [state]
