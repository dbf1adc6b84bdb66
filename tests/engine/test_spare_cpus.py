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


def spare_after(n_cpus: int, *others: float, quota: int | None = None) -> int:
    """The count after periods of a second in which other programs used so many cores, while this process used one core."""
    start, cpus = time.monotonic() - 1000, frozenset(range(n_cpus))
    times = [CpuTimes(start, 0.0, 0.0, cpus)]
    for load in others:
        last = times[-1]
        times.append(CpuTimes(last.at_s + 1, last.all_s + load + 1, last.own_s + 1, cpus))
    reads = iter(times)
    spare = SpareCpus(quota or n_cpus, lambda: next(reads))
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
    reads = iter([CpuTimes(time.monotonic(), 0.0, 0.0, frozenset(range(4)))])
    spare = SpareCpus(4, lambda: next(reads))
    assert [spare.count(), spare.count()] == [4, 4]


def test_all_cpus_count_as_free_where_the_system_does_not_tell() -> None:
    assert SpareCpus(4, lambda: None).count() == 4
    reads = iter([CpuTimes(time.monotonic() - 10, 0.0, 0.0, frozenset(range(4))), None])
    assert SpareCpus(4, lambda: next(reads)).count() == 4


def test_other_programs_beside_a_quota_take_only_what_is_left() -> None:
    assert spare_after(8, 4.0, quota=4) == 4
    assert spare_after(8, 6.0, quota=4) == 2


def test_change_of_our_cpus_starts_a_new_count() -> None:
    start = time.monotonic() - 100
    reads = iter([CpuTimes(start, 500.0, 1.0, frozenset(range(4))), CpuTimes(start + 1, 100.0, 1.5, frozenset({0}))])
    assert SpareCpus(4, lambda: next(reads)).count() == 1


@pytest.mark.parametrize(
    ("text", "cpus"), [("max 100000", None), ("100000 100000", 1), ("150000 100000", 1), ("50000 100000", 1), ("1 0", None), ("", None)]
)
@pytest.mark.parametrize("group", ["/", "/system.slice/kiosk.service", "/deep/in/a/container"])
def test_quota_of_a_container_or_service_limits_the_threads(text: str, cpus: int | None, group: str, tmp_path: pathlib.Path) -> None:
    own, unlimited = tmp_path / "own", available_cpus(tmp_path / "none", tmp_path / "none")
    own.write_text(f"12:cpu:/old\n0::{group}\n")
    folder = tmp_path / group.strip("/").partition("/")[0]  # the group itself, or one above it
    folder.mkdir(exist_ok=True)
    (folder / "cpu.max").write_text(text)
    assert available_cpus(tmp_path, own) == (cpus or unlimited)


def test_own_work_is_not_taken_for_others_under_nice() -> None:
    program = """
import os, sys, time
os.nice(10)
from edge_agent.engine.spare_cpus import cpu_times
first, until = cpu_times(), time.process_time() + 0.5
while time.process_time() < until:
    pass
last = cpu_times()
print((last.all_s - first.all_s) - (last.own_s - first.own_s))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) > -0.1


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
