"""The queue in front of the model: order, limit, timeouts."""

import threading
import time
from collections.abc import Iterator

import pytest

from edge_agent.core.errors import ModelBusy, ModelError
from edge_agent.engine.waiting_line import WaitingLine


class Machine:
    """Work that can be stopped, like an evaluation."""

    def __init__(self) -> None:
        self.started, self.stopped = threading.Event(), threading.Event()

    def long(self) -> str:
        self.started.set()
        if self.stopped.wait(10):
            raise RuntimeError("stopped")
        return "finished"


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def line(machine: Machine) -> Iterator[WaitingLine]:
    line = WaitingLine(machine.stopped.set, machine.stopped.clear, limit=3)
    yield line
    line.close()


def wait_until(n: int, line: WaitingLine) -> None:
    """Return when `n` callers wait."""
    while line.n_waiting < n:
        time.sleep(0.001)


def occupied(line: WaitingLine, gate: threading.Event) -> threading.Thread:
    """A caller whose job holds the line until `gate` is set."""
    entered = threading.Event()
    thread = threading.Thread(target=lambda: line.run(lambda: (entered.set(), gate.wait(10))))
    thread.start()
    assert entered.wait(10)
    return thread


def test_jobs_run_one_at_a_time_in_order(line: WaitingLine) -> None:
    gate, order = threading.Event(), []
    first = occupied(line, gate)
    threads = []
    for n in range(3):
        threads.append(threading.Thread(target=lambda n=n: line.run(lambda: order.append(n))))
        threads[-1].start()
        wait_until(n + 1, line)
    gate.set()
    for thread in [first, *threads]:
        thread.join()
    assert order == [0, 1, 2]


def test_full_line_refuses_at_once(line: WaitingLine) -> None:
    gate = threading.Event()
    threads = [occupied(line, gate)]
    for n in range(3):
        threads.append(threading.Thread(target=lambda: line.run(lambda: None)))
        threads[-1].start()
        wait_until(n + 1, line)
    with pytest.raises(ModelBusy, match="3 questions are already waiting"):
        line.run(lambda: None)
    gate.set()
    for thread in threads:
        thread.join()
    assert line.run(lambda: "again") == "again"


def test_timeout_ends_the_job_and_leaves_the_line_usable(line: WaitingLine, machine: Machine) -> None:
    with pytest.raises(ModelBusy, match=r"within 0\.05 s"):
        line.run(machine.long, timeout_s=0.05)
    assert line.run(machine.stopped.is_set) is False  # the next job is not stopped by what ended the last


def test_timeout_while_waiting_cancels_the_job(line: WaitingLine) -> None:
    gate, ran = threading.Event(), []
    first = occupied(line, gate)
    with pytest.raises(ModelBusy):
        line.run(lambda: ran.append(1), timeout_s=0.02)
    gate.set()
    first.join()
    assert line.run(lambda: ran) == []


def test_exception_of_a_job_reaches_only_its_caller(line: WaitingLine) -> None:
    with pytest.raises(ZeroDivisionError):
        line.run(lambda: 1 / 0)
    assert line.run(lambda: 2) == 2


def test_later_runs_when_no_other_job_waits(line: WaitingLine) -> None:
    gate, order = threading.Event(), []
    first = occupied(line, gate)
    background = line.later(lambda: order.append("later"))
    asker = threading.Thread(target=lambda: line.run(lambda: order.append("asked")))
    asker.start()
    wait_until(1, line)
    gate.set()
    background.result(10)
    first.join()
    asker.join()
    assert order == ["asked", "later"]


def test_stop_later_ends_only_background_work(line: WaitingLine, machine: Machine) -> None:
    background = line.later(machine.long)
    assert machine.started.wait(10)
    line.stop_later()
    with pytest.raises(RuntimeError, match="stopped"):
        background.result(10)
    gate = threading.Event()
    first = occupied(line, gate)
    line.stop_later()
    assert not machine.stopped.is_set()
    gate.set()
    first.join()


def test_closed_line_finishes_its_jobs_and_takes_no_more(machine: Machine) -> None:
    line, done = WaitingLine(machine.stopped.set, machine.stopped.clear), []
    line.later(lambda: done.append(1))
    line.close()
    line.close()
    assert done == [1]
    with pytest.raises(ModelError, match="closed"):
        line.run(lambda: None)


def test_long_work_goes_on_at_the_end_of_a_full_line(line: WaitingLine) -> None:
    gate, order = threading.Event(), []
    threads = [occupied(line, gate)]
    for n in range(3):
        threads.append(threading.Thread(target=lambda n=n: line.run(lambda: order.append(n))))
        threads[-1].start()
        wait_until(n + 1, line)
    with pytest.raises(ModelBusy, match="3 questions are already waiting"):
        line.run(lambda: None)
    threads.append(threading.Thread(target=lambda: line.run(lambda: order.append("more"), goes_on=True)))
    threads[-1].start()
    wait_until(4, line)
    gate.set()
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, "more"] and line.n_waiting == 0
