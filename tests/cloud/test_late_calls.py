"""A call that gets its place too late to be answered is not sent, and costs nothing."""

import pathlib
import threading
import time

import pytest

from edge_agent.cloud.wire.call import CloudCall
from edge_agent.core.config.limits import BudgetLimits
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.question import Question
from tests.support.cloud_server import LoopbackCloud
from tests.support.spoken_model import UNSURE, SpokenModel, agent


def outcome_after(wait_s: float, deadline_s: float, enough_s: float) -> tuple[CloudOutcome, bool]:
    """The outcome of a call that gets its place after `wait_s`, and whether its work was done."""
    slots, worked = threading.BoundedSemaphore(1), threading.Event()
    slots.acquire()

    def work(call: CloudCall) -> CloudOutcome:
        worked.set()
        return CloudOutcome(CloudKind.FAILED)

    timer = threading.Timer(wait_s, slots.release)
    timer.start()
    outcome = CloudCall(work, deadline_s, slots, lambda: enough_s).result()
    timer.join()
    return outcome, worked.is_set()


@pytest.mark.parametrize(
    ("wait_s", "enough_s", "is_sent"),
    [(0.1, 99.0, True), (1.5, 99.0, False), (1.5, 0.1, True), (1.5, 3.0, False)],
)
def test_call_is_sent_if_half_of_its_time_is_left_or_more_than_the_cloud_needs(wait_s: float, enough_s: float, is_sent: bool) -> None:
    outcome, was_worked = outcome_after(wait_s, 2.0, enough_s)
    assert was_worked is is_sent
    if not is_sent:
        assert (
            outcome.kind is CloudKind.OFFLINE and outcome.was_hurried and not outcome.was_sent and "nothing was sent" in str(outcome.error)
        )


def ask_at_once(home: pathlib.Path, cloud: LoopbackCloud, deadline_s: float, first: bool, n: int = 12) -> tuple[list[str], int]:
    """The routes of questions that are asked at once under a budget, and how many calls were counted; `first` one that is answered."""
    with agent(home, SpokenModel(UNSURE), cloud.url, budget=BudgetLimits(calls_per_day=50)) as one:
        assert one.gate is not None
        one.gate.cloud.deadline_s = deadline_s
        if first:
            reply, cloud.reply = cloud.reply, lambda body: "B"
            one.ask(Question("First", ("x", "y", "z")))
            cloud.reply = reply
        routes: list[str] = []
        ask = [threading.Thread(target=lambda n=n: routes.append(one.ask(Question(f"Q {n}", ("x", "y", "z"))).route)) for n in range(n)]
        for thread in ask:
            thread.start()
        for thread in ask:
            thread.join()
        return routes, len(one.store.database.rows("SELECT 1 FROM spending"))


@pytest.mark.parametrize("first", [False, True])
def test_cloud_that_hangs_uses_up_only_the_calls_that_had_time(home: pathlib.Path, cloud: LoopbackCloud, first: bool) -> None:
    """Each wave of waiting calls was sent with milliseconds left, and counted: a day's budget was gone in seconds."""
    leave = threading.Event()
    cloud.reply = lambda body: leave.wait(10) and "B"
    routes, counted = ask_at_once(home, cloud, 1.5, first)
    leave.set()
    assert routes == ["local"] * 12 and counted - first <= 3 and len(cloud.requests) <= counted


def test_waiting_calls_are_sent_to_a_cloud_that_answers_in_time(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    """Two at a time, the last of them start when less than half of their time is left."""
    cloud.reply = lambda body: time.sleep(0.4) or "B"
    routes, counted = ask_at_once(home, cloud, 4.0, first=False)
    assert routes.count("cloud") >= 11 and counted >= 11
