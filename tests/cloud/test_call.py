"""A call ends at its deadline, with its thread, its connection and its place, whatever the other side does: real servers on loopback."""

import pathlib
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from edge_agent.cloud.wire.call import CloudCall
from edge_agent.cloud.wire.client import AT_ONCE, CloudModel
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question
from tests.support.cloud_server import LoopbackCloud
from tests.support.dripping_server import KINDS, DrippingServer
from tests.support.spoken_model import UNSURE, SpokenModel, agent

QUESTION = Question("Which city?", ("Astana", "Almaty", "Aktau", "Atyrau"))


def calls() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("cloud-")]


def n_handles() -> int:
    return len(list(pathlib.Path("/proc/self/fd").iterdir()))


def eventually(is_true: object, within_s: float = 5.0) -> bool:
    ends = time.monotonic() + within_s
    while not is_true():
        if time.monotonic() > ends:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def bad(request: pytest.FixtureRequest) -> Iterator[DrippingServer]:
    made = DrippingServer(request.param, n=2 * AT_ONCE + 1)
    yield made
    made.stop()


@pytest.mark.parametrize("bad", KINDS, indirect=True)
def test_replies_that_never_end_leave_no_thread_no_socket_and_no_place_taken(bad: DrippingServer, cloud: LoopbackCloud) -> None:
    """Two of them disabled the cloud until the process ended."""
    scheme = "https" if "TLS" in bad.kind or "proxy" in bad.kind else "http"
    proxy = f"http://127.0.0.1:{bad.port}" if "proxy" in bad.kind else None
    model = CloudModel(f"{scheme}://127.0.0.1:{bad.port}/v1", "big", proxy=proxy)
    model.ask(QUESTION, deadline_s=0.05)  # loads what a first call loads
    assert eventually(lambda: not bad.open and not calls())
    threads, handles = threading.active_count(), n_handles()
    kinds = [call.result().kind for call in [model.start(QUESTION, 0.8) for _ in range(2 * AT_ONCE)]]
    assert set(kinds) <= {CloudKind.TIMEOUT, CloudKind.OFFLINE}
    assert (CloudKind.TIMEOUT in kinds) is (scheme == "http")  # with TLS or a tunnel, the question was not sent
    assert eventually(lambda: not calls() and not bad.open), (calls(), bad.open)
    assert eventually(lambda: threading.active_count() <= threads and n_handles() <= handles)
    if scheme == "http":
        bad.left = 0
        assert model.ask(QUESTION, deadline_s=20).kind is CloudKind.ANSWERED


def test_next_call_is_made_while_name_resolution_still_hangs() -> None:
    """Nobody can interrupt the resolver, but its place is free at the deadline."""
    hangs, leave = threading.Semaphore(3), threading.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        if hangs.acquire(blocking=False):
            leave.wait(30)
            raise httpx.ConnectError("name not known")
        return httpx.Response(200, stream=httpx.ByteStream(b'{"choices": [{"message": {"content": "B"}}]}'))

    model = CloudModel("https://cloud.test/v1", "big", transport=httpx.MockTransport(answer))
    httpx.Client().close()  # imported and certificates read before the clock runs
    model._context()
    for _ in range(3):
        assert model.ask(QUESTION, deadline_s=0.3).kind is CloudKind.OFFLINE
    assert model.ask(QUESTION, deadline_s=20).kind is CloudKind.ANSWERED
    leave.set()
    assert eventually(lambda: not calls())


def test_call_that_nobody_waits_for_ends_at_its_deadline() -> None:
    """The model may fail while the cloud is being asked; then nobody fetches the result."""
    bad = DrippingServer("body that drips", n=9)
    try:
        CloudModel(f"http://127.0.0.1:{bad.port}/v1", "big").start(QUESTION, 1.0)
        assert eventually(lambda: bad.open) and eventually(lambda: not bad.open and not calls())
    finally:
        bad.stop()


def test_call_that_never_got_a_place_says_nothing_about_the_cloud() -> None:
    slots = threading.BoundedSemaphore(1)
    slots.acquire()
    outcome = CloudCall(lambda call: CloudOutcome(CloudKind.FAILED), 0.1, slots).result()
    assert outcome.was_hurried and "other calls" in (outcome.error or "") and not outcome.was_sent


@pytest.mark.parametrize(("waits_s", "was_hurried"), [(1.4, True), (0.0, False)])
def test_timeout_says_whether_most_of_the_time_was_spent_on_waiting_for_other_calls(waits_s: float, was_hurried: bool) -> None:
    slots, leave = threading.BoundedSemaphore(1), threading.Event()
    slots.acquire()

    def work(call: CloudCall) -> CloudOutcome:
        leave.wait(20)
        return CloudOutcome(CloudKind.FAILED)

    timer = threading.Timer(waits_s, slots.release)
    timer.start()
    outcome = CloudCall(work, 2.0, slots).result()
    leave.set()
    timer.join()
    assert outcome.kind is CloudKind.OFFLINE and outcome.was_hurried is was_hurried


def test_eight_visitors_at_once_do_not_make_a_slow_cloud_look_dead(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    """Four of them got no place in time, and two got a place too late: six failures in a row."""
    cloud.reply = lambda body: time.sleep(0.8) or "B"
    with agent(home, SpokenModel(UNSURE), cloud.url) as one:
        assert one.gate is not None
        one.gate.cloud.deadline_s = 1.2
        asked = [threading.Thread(target=one.ask, args=(Question(f"Q {n}", ("x", "y", "z")),)) for n in range(8)]
        for thread in asked:
            thread.start()
        for thread in asked:
            thread.join()
        assert one.gate.breaker.refusal(1) is None


@pytest.mark.parametrize("deadline_s", [1e10, float("inf")])
def test_endless_deadline_is_cut_to_what_the_system_can_wait_for(deadline_s: float) -> None:
    ended = CloudOutcome(CloudKind.FAILED)
    assert CloudCall(lambda call: ended, deadline_s, threading.BoundedSemaphore(1)).result() is ended
