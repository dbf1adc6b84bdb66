"""What a cloud teaches about the form of a request is never a reason to send less: whole queues and whole calls."""

import json
import pathlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from edge_agent.cloud.gate import Gate
from edge_agent.cloud.wire.client import CloudModel
from edge_agent.cloud.wire.request import RAISED_TOKENS
from edge_agent.core.config.limits import BudgetLimits
from edge_agent.core.errors import StorageError
from edge_agent.core.outcome import CloudKind
from edge_agent.core.question import Question
from edge_agent.store.store import Store
from tests.support import refusals
from tests.support.kiosk import Kiosk, answer, json_reply
from tests.support.refusals import openai

QUESTION = Question("Q", ("a", "b"))
Respond = Callable[[str, int], httpx.Response]  # from a question's stem and the limit that was sent


class Listening(Kiosk):
    """A kiosk whose cloud replies to the stem and the limit of a request."""

    respond: Respond

    def _handle(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.read())
        stem, limit = body["messages"][0]["content"].split("\n")[0], body["max_tokens"]
        self.sent.append(f"{stem} {limit}")
        return self.respond(stem, limit)

    def limit(self, limits: BudgetLimits) -> None:
        self.gate = Gate(self.store, self.cloud, limits)


@pytest.fixture
def kiosk(tmp_path: pathlib.Path) -> Iterator[Listening]:
    made = Listening(tmp_path / "edge-agent.db")
    yield made
    made.store.close()


def cut() -> httpx.Response:
    return json_reply(200, {"choices": [{"message": {"content": ""}, "finish_reason": "length"}]})


def counted() -> httpx.Response:
    return json_reply(200, {"choices": [{"message": {"content": "B"}}], "usage": {"prompt_tokens": 9, "completion_tokens": 1}})


def small_context(n_long: int, says: str) -> Respond:
    """A model that thinks for 700 tokens, in a context of 2,048; the first question has `n_long` tokens."""

    def respond(stem: str, limit: int) -> httpx.Response:
        n = n_long if stem == "Question 0" else 40
        if n + limit > 2048:
            return json_reply(400, openai(says.format(n=n, limit=limit, all=n + limit)))
        return answer() if limit >= 700 else cut()

    return respond


VLLM = (
    "This model's maximum context length is 2048 tokens. However, you requested {all} tokens ({n} in the messages, {limit} in the "
    "completion). Please reduce the length of the messages or completion."
)


@pytest.mark.parametrize("says", [VLLM, "Requested tokens exceed the context length."])
def test_long_question_takes_no_limit_from_the_others(kiosk: Listening, says: str) -> None:
    """It lowered the limit for ever, below what the model needs: nothing was answered any more, not even the test question."""
    kiosk.respond = small_context(1500, says)
    kiosk.fill(6)
    for _ in range(4):
        kiosk.drain()
        kiosk.wait(3601)
    assert kiosk.states() == ["dead"] + ["done"] * 5
    kiosk.sent.clear()
    kiosk.put(kiosk.box, "Question 7")
    assert kiosk.drain().answered == 1 and kiosk.sent == ["Question 7 1024"]  # without a detour


def test_long_question_is_answered_with_what_its_context_leaves(kiosk: Listening) -> None:
    kiosk.respond = small_context(1300, VLLM)
    kiosk.fill(1)
    assert kiosk.drain().answered == 1 and kiosk.sent == ["Question 0 256", "Question 0 4096", "Question 0 748"]


def test_limit_that_was_stored_too_low_is_mended_by_the_next_reply_that_it_cuts(kiosk: Listening) -> None:
    """As an earlier version stored it."""
    with kiosk.store.transaction():
        kiosk.store.put_cloud_health(f"{kiosk.cloud.endpoint} big", json.dumps({"raised_to": 512, "at_most": 512}))
    kiosk.respond = small_context(40, VLLM)
    kiosk.fill(3)
    assert kiosk.drain().answered == 3
    assert '"at_most": null' in (kiosk.store.cloud_health(f"{kiosk.cloud.endpoint} big") or "")


def test_reply_cut_at_the_highest_limit_that_is_allowed_is_reported_as_cut(kiosk: Listening) -> None:
    """The refusal of a higher limit says less about the question."""
    kiosk.respond = lambda stem, limit: json_reply(400, refusals.WANT_LESS[0][2]) if limit > 2048 else cut()
    outcome = kiosk.cloud.ask(QUESTION)
    assert outcome.kind is CloudKind.UNUSABLE and "length limit" in (outcome.error or "")
    assert kiosk.sent == ["Q 256", "Q 4096", "Q 2048"]


def test_limit_that_no_budget_can_pay_for_is_not_asked_for(kiosk: Listening) -> None:
    """One reply that was cut stopped all sending: every later request was counted at 4,096 tokens."""
    kiosk.limit(BudgetLimits(money_per_day=0.6, completion_price=1000.0))  # 256 tokens cost 0.256, and 4,096 tokens 4.1
    kiosk.respond = lambda stem, limit: cut() if stem == "Question 0" else counted()
    kiosk.fill(5)
    assert kiosk.drain().answered == 4 and kiosk.states()[1:] == ["done"] * 4
    assert all(sent.endswith(" 256") for sent in kiosk.sent) and kiosk.cloud.shape == kiosk.cloud.wanted


def test_limit_that_was_learned_falls_back_where_the_budget_pays_for_less(kiosk: Listening) -> None:
    kiosk.respond = lambda stem, limit: cut() if limit == 256 and stem == "Question 0" else counted()
    kiosk.fill(2)
    assert kiosk.drain().answered == 2 and kiosk.sent[-1] == f"Question 1 {RAISED_TOKENS}"
    kiosk.limit(BudgetLimits(money_per_day=0.6, completion_price=1000.0))
    kiosk.put(kiosk.box, "Question 3")
    assert kiosk.drain().answered == 1 and kiosk.sent[-1] == "Question 3 256"
    assert kiosk.cloud.shape.max_tokens == RAISED_TOKENS  # it stays known


def test_cut_reply_starts_with_the_higher_limit_once_the_budget_allows_it(kiosk: Listening) -> None:
    """With one call a day a question could otherwise never be answered."""
    kiosk.limit(BudgetLimits(calls_per_day=1))
    kiosk.respond = lambda stem, limit: cut() if limit == 256 else answer()
    kiosk.fill(1)
    assert kiosk.drain().answered == 0 and kiosk.states() == ["ready"]
    kiosk.wait(86_401)
    assert kiosk.drain().answered == 1 and kiosk.sent == ["Question 0 256", f"Question 0 {RAISED_TOKENS}"]


def test_raised_limit_that_was_not_answered_is_not_kept(kiosk: Listening) -> None:
    kiosk.respond = lambda stem, limit: cut() if stem == "Question 0" else answer()
    kiosk.fill(2)
    kiosk.drain()
    assert kiosk.sent == ["Question 0 256", f"Question 0 {RAISED_TOKENS}", "Question 1 256"]


def test_right_request_is_corrected_after_a_transaction_that_was_rolled_back(kiosk: Listening) -> None:
    """The first request was corrected, and the one that was answered stayed at its highest cost."""
    kiosk.limit(BudgetLimits(money_per_day=1e6, completion_price=1.0))
    kiosk.respond = lambda stem, limit: cut() if limit == 256 else counted()
    reservation = kiosk.gate.reserve(QUESTION)
    assert reservation is not None
    outcome = kiosk.gate.start(QUESTION, reservation).result()

    def spent() -> list[int]:
        return [row["micros"] for row in kiosk.store.database.rows("SELECT micros FROM spending ORDER BY id")]

    with pytest.raises(StorageError), kiosk.store.transaction():
        kiosk.gate.note(reservation, outcome)
        raise StorageError("the disk is full")
    assert spent() == [256, RAISED_TOKENS]
    with kiosk.store.transaction():
        kiosk.gate.note(reservation, outcome)
    assert spent() == [256, 1]


def test_request_that_the_deadline_leaves_no_time_for_is_not_counted(kiosk: Listening) -> None:
    """It was counted, and never sent: another process held the database until then."""
    kiosk.limit(BudgetLimits(calls_per_day=9))
    kiosk.respond = lambda stem, limit: cut()
    reservation = kiosk.gate.reserve(QUESTION)
    assert reservation is not None
    other = sqlite3.connect(kiosk.store.path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(1.5, lambda: other.execute("ROLLBACK")).start()
    assert kiosk.gate.start(QUESTION, reservation, 0.7).result().answer is None
    time.sleep(2)
    other.close()
    assert len(kiosk.store.database.rows("SELECT 1 FROM spending")) == 1 == len(kiosk.sent)


class Reads(Store):
    """A store that lists under which names something was read beside the clouds."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__(path)
        self.names: list[str] = []

    def cloud_health(self, endpoint: str) -> str | None:
        self.names.append(endpoint)
        return super().cloud_health(endpoint)


def test_note_outside_a_transaction_reads_nothing_that_it_could_not_store(kiosk: Listening, tmp_path: pathlib.Path) -> None:
    """Where another program holds the database, each read waits five seconds."""
    kiosk.respond = lambda stem, limit: answer()
    with Reads(tmp_path / "other.db") as store:
        Gate(store, kiosk.cloud).note(None, kiosk.cloud.ask(QUESTION))
        assert "settings" not in store.names


def test_refused_name_is_remembered_by_the_next_process_even_if_the_call_was_not_answered(kiosk: Listening) -> None:
    names: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        names.append(next(name for name in json.loads(request.read()) if name.startswith("max_")))
        return json_reply(400, refusals.WANT_OTHER_NAME[0][2]) if names[-1] == "max_tokens" else json_reply(500, {})

    for _ in range(2):
        Gate(kiosk.store, CloudModel("https://cloud.test/v1", "big", transport=httpx.MockTransport(handle))).test()
    assert names == ["max_tokens", "max_completion_tokens", "max_completion_tokens"]
