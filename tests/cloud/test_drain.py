"""A pass over the queue: what is sent, when it stops, when it comes back."""

import json
import pathlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import httpx
import pytest

from edge_agent.cloud.budget import Reservation
from edge_agent.cloud.client import CloudModel
from edge_agent.cloud.drain import Drained, Drainer
from edge_agent.cloud.gate import Gate
from edge_agent.cloud.queue import QueueRow
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.records import CloudAnswer
from edge_agent.store.store import Store
from tests.support.mutation import catches
from tests.support.queue_world import World

Reply = Callable[[str], httpx.Response]


def answer(letter: str = "B") -> httpx.Response:
    return httpx.Response(200, stream=httpx.ByteStream(json.dumps({"choices": [{"message": {"content": letter}}]}).encode()))


def status(code: int, **headers: str) -> httpx.Response:
    return httpx.Response(code, headers=headers, stream=httpx.ByteStream(b"{}"))


def page() -> httpx.Response:
    return httpx.Response(200, stream=httpx.ByteStream(b"<html>Welcome"))


def offline(stem: str) -> httpx.Response:
    raise httpx.ConnectError("no network")


class Kiosk(World):
    """A world with a cloud whose replies the test writes, by the question's stem."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__(path)
        self.reply: Reply = lambda stem: answer()
        self.sent: list[str] = []
        self.slept: list[float] = []
        self.box = self.outbox()
        self.cloud = CloudModel("https://cloud.test/v1", "big", "key", transport=httpx.MockTransport(self._handle))
        self.gate = Gate(self.store, self.cloud)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        stem = json.loads(request.read())["messages"][0]["content"].split("\n")[0]
        self.sent.append(stem)
        return self.reply(stem)

    def drainer(self, kind: type[Drainer] = Drainer, sleep: Callable[[float], None] | None = None) -> Drainer:
        return kind(self.box, self.gate, deadline_s=20, sleep=sleep or self.sleep, chance=lambda: 1.0)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.wait(seconds)

    def drain(self, kind: type[Drainer] = Drainer) -> Drained:
        *_, done = self.drainer(kind).once()
        assert isinstance(done, Drained)
        return done

    def states(self) -> list[str]:
        return [row.state for row in self.box.list()]


@pytest.fixture
def kiosk(tmp_path: pathlib.Path) -> Iterator[Kiosk]:
    made = Kiosk(tmp_path / "edge-agent.db")
    yield made
    made.store.close()


class GoesOn(Drainer):
    """Mutant: sends the next question although the cloud cannot be reached."""

    def _send(self, row: QueueRow, reservation: Reservation) -> CloudOutcome:
        return replace(super()._send(row, reservation), kind=CloudKind.FAILED)


@pytest.mark.parametrize("reply", [offline, lambda stem: status(401), lambda stem: status(402)])
@catches(Drainer, GoesOn)
def test_outcome_that_concerns_the_whole_cloud_stops_the_pass_and_costs_nothing(part, kiosk: Kiosk, reply: Reply) -> None:
    for stem in ("one", "two", "three"):
        kiosk.put(kiosk.box, stem)
    kiosk.reply = reply
    done = kiosk.drain(part)
    assert len(kiosk.sent) == 1 and done.stopped and done.waiting == 3
    assert [(row.state, row.attempts) for row in kiosk.box.list()] == [("ready", 0)] * 3


def test_key_that_was_refused_is_tried_again_by_hand_and_by_itself_once_it_has_changed(kiosk: Kiosk) -> None:
    kiosk.put(kiosk.box, "one")
    kiosk.reply = lambda stem: status(401)
    kiosk.drain()
    kiosk.drain()
    assert len(kiosk.sent) == 2
    assert kiosk.gate.breaker.refusal(1) is not None
    kiosk.gate.breaker.key = "new key"
    assert kiosk.gate.breaker.refusal(1) is None


class Impatient(Drainer):
    """Mutant: does not care for Retry-After."""

    def _refusal(self, by_hand: bool) -> CloudOutcome | None:
        return None


@catches(Drainer, Impatient)
def test_retry_after_holds_for_the_whole_queue_even_by_hand(part, kiosk: Kiosk) -> None:
    kiosk.put(kiosk.box, "one")
    kiosk.put(kiosk.box, "two")
    kiosk.reply = lambda stem: status(429, **{"Retry-After": "60"})
    kiosk.drain(part)
    kiosk.reply = lambda stem: answer()
    assert "left alone for 60 s" in (kiosk.drain(part).stopped or "") and len(kiosk.sent) == 1
    kiosk.wait(61)
    assert kiosk.drain(part).answered == 2


class BelievesPortals(Drainer):
    """Mutant: a portal's page never makes a question suspicious."""

    def _pass(self, by_hand: bool) -> Iterator[QueueRow | Drained]:
        self._outbox.suspect = lambda queue_id: False
        return super()._pass(by_hand)


@catches(Drainer, BelievesPortals)
def test_question_that_alone_gets_a_strange_page_is_dead_the_fifth_time(part, kiosk: Kiosk) -> None:
    kiosk.put(kiosk.box, "strange")
    kiosk.reply = lambda stem: page() if stem == "strange" else answer()
    for n in range(5):
        assert kiosk.states()[0] == "ready"
        kiosk.put(kiosk.box, f"other {n}")
        kiosk.drain(part)
    assert kiosk.states() == ["dead"] + ["done"] * 5 and kiosk.box.list()[0].attempts == 0


def test_portal_stops_the_pass_at_the_second_page_and_kills_nothing(kiosk: Kiosk) -> None:
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
    """Mutant: probes every two seconds."""

    def _pause_s(self, drained: Drained, failures: int) -> float:
        return 2.0


@catches(Drainer, Hammers)
def test_watching_looks_for_a_lost_connection_ever_more_seldom(part, kiosk: Kiosk) -> None:
    kiosk.put(kiosk.box, "Q")
    kiosk.reply = offline
    watch(kiosk, lambda: len(kiosk.slept) >= 9, part)
    assert kiosk.slept == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert kiosk.states() == ["ready"]


def test_watching_sends_what_is_put_meanwhile_and_obeys_backoff(kiosk: Kiosk) -> None:
    kiosk.reply = lambda stem: status(500) if len(kiosk.sent) < 4 else answer()

    def until() -> bool:
        if len(kiosk.slept) == 2:
            kiosk.put(kiosk.box, "late")
        return kiosk.states() == ["done"]

    watch(kiosk, until)
    assert kiosk.sent == ["late"] * 4 and kiosk.box.list()[0].attempts == 4
    assert sum(kiosk.slept[2:]) >= 2 + 4 + 8


def test_answer_that_was_found_another_way_is_not_paid_again(kiosk: Kiosk) -> None:
    kiosk.put(kiosk.box, "Q")
    row = kiosk.box.list()[0]
    with kiosk.store.transaction():
        kiosk.store.put_cloud_answer(kiosk.gate.key(row.fingerprint), CloudAnswer("A", "A", "big", 1.0))
    assert kiosk.drain().answered == 1 and kiosk.sent == [] and kiosk.endings() == ["upheld"]


def test_purged_question_is_cancelled_and_the_queue_goes_on(kiosk: Kiosk) -> None:
    kiosk.put(kiosk.box, "gone")
    kiosk.put(kiosk.box, "there")
    with Store(kiosk.store.path) as other:
        other.database._db.execute("PRAGMA foreign_keys = OFF")
        other.database._db.execute("DELETE FROM questions WHERE stem = 'gone'")
    assert kiosk.drain().answered == 1
    assert kiosk.states() == ["cancelled", "done"] and kiosk.endings() == ["abandoned", "overturned"]


def test_person_does_not_wait_for_a_whole_queue_of_failures(kiosk: Kiosk) -> None:
    for n in range(9):
        kiosk.put(kiosk.box, f"Q{n}")
    kiosk.reply = lambda stem: status(500)
    done = kiosk.drain()
    assert len(kiosk.sent) == 5 and done.failed == 5 and "HTTP 500" in (done.stopped or "")
