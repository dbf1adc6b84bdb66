"""How many threads run: one for each CPU that other programs leave free."""

import os
import pathlib
import subprocess
import sys
import time

import pytest

from edge_agent.core.question import Question
from edge_agent.engine.llama import Options
from edge_agent.engine.local_model import LocalModel
from edge_agent.engine.spare_cpus import CpuTimes, SpareCpus, available_cpus, cpu_times
from tests.support.paths import DEMO

QUESTION = Question("What is 2 + 2?", ("3", "4", "5"))


def spare_after(n_cpus: int, *others: float) -> int:
    """The count after periods of a second in which other programs used so many cores, while this process used one core."""
    start = time.monotonic() - 1000
    times = [CpuTimes(start, 0.0, 0.0)]
    for load in others:
        last = times[-1]
        times.append(CpuTimes(last.at_s + 1, last.all_s + load + 1, last.own_s + 1))
    reads = iter(times)
    spare = SpareCpus(n_cpus, lambda: next(reads))
    return [spare.count() for _ in others][-1]


@pytest.mark.parametrize(
    ("n_cpus", "others", "spare"),
    [(4, 0.0, 4), (4, 0.3, 4), (4, 1.0, 3), (4, 2.0, 2), (4, 7.0, 1), (2, 1.0, 1), (2, 2.0, 1), (1, 1.0, 1), (2, -0.5, 2)],
)
def test_other_programs_take_threads_away(n_cpus: int, others: float, spare: int) -> None:
    assert spare_after(n_cpus, others) == spare


def test_threads_come_back_when_other_programs_rest() -> None:
    assert spare_after(2, 1.0, 0.0) == 2


def test_a_count_in_quick_succession_reads_nothing() -> None:
    reads = iter([CpuTimes(time.monotonic(), 0.0, 0.0)])
    spare = SpareCpus(4, lambda: next(reads))
    assert [spare.count(), spare.count()] == [4, 4]


def test_all_cpus_count_as_free_where_the_system_does_not_tell() -> None:
    assert SpareCpus(4, lambda: None).count() == 4
    reads = iter([CpuTimes(time.monotonic() - 10, 0.0, 0.0), None])
    assert SpareCpus(4, lambda: next(reads)).count() == 4


@pytest.mark.parametrize(
    ("text", "cpus"), [("max 100000", None), ("100000 100000", 1), ("150000 100000", 1), ("50000 100000", 1), ("1 0", None), ("", None)]
)
def test_quota_of_a_container_limits_the_threads(text: str, cpus: int | None, tmp_path: pathlib.Path) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert available_cpus(tmp_path / "cpu.max") == (cpus or available_cpus(tmp_path / "missing"))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
@pytest.mark.skipif(cpu_times() is None, reason="needs /proc/stat")
def test_a_real_busy_program_is_noticed() -> None:
    with subprocess.Popen([sys.executable, "-I", "-c", "print(1, flush=True)\nwhile True: pass"], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None and program.stdout.readline()
        spare = SpareCpus()
        time.sleep(0.5)
        assert spare.count() < available_cpus()
        program.kill()


class Counted(SpareCpus):
    """Leaves as many CPUs as it is told."""

    def __init__(self, n: int) -> None:
        self._n = n

    def count(self) -> int:
        return self._n


def test_number_of_threads_does_not_change_a_decision() -> None:
    readings = []
    for n in (1, 2):
        with LocalModel(DEMO, options=Options(n_threads=2), spare_cpus=Counted(n)) as model:
            readings.append(model.read(QUESTION))
    one, two = readings
    assert one.level_probs == two.level_probs and one.answer_probs == two.answer_probs
