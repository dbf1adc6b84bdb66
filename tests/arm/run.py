"""`python -m tests.arm.run FOLDER [--all]`: the tests on three emulated ARM processors, side by side on the CPUs of this machine.

FOLDER is the environment of tests/arm/environment.sh. The tests of this folder run on all three processors: the variant that is
loaded, 40 questions, and the installation. Those of a wing run on one, so that the whole takes minutes; with `--all` they run on all
three, too, and the questions are 200. Each job gets one CPU here.
The log of a job is FOLDER/JOB.log.
"""

import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from tests.arm import on_this_machine
from tests.arm.processors import VARIANTS
from tests.support.paths import ROOT

JOBS = (  # the longest first
    ("cortex-a53", "arm", "store"),  # Raspberry Pi 3 and Zero 2 W
    ("cortex-a76", "arm", "engine"),  # Raspberry Pi 5
    ("cortex-a72", "arm", "agent"),  # Raspberry Pi 4
    ("cortex-a53", "core", "model"),
    ("cortex-a72", "cloud"),
)
N_QUESTIONS, FEWER_QUESTIONS = 200, 40
ALL_JOBS = tuple((processor, wing) for wing in ("store", "engine", "agent", "cloud", "model", "core", "arm") for processor in VARIANTS)


def run_job(job: tuple[str, ...], folder: pathlib.Path, free: SimpleQueue[int], everything: bool) -> bool:
    """Run the tests of one job on a free CPU; whether they passed."""
    cpu, started = free.get(), time.monotonic()
    (processor, *wings), log = job, folder / f"{'-'.join(job)}.log"
    environment = os.environ | {
        "QEMU_CPU": processor, "EDGE_AGENT_TEST_ARM": str(folder), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1",
        "EDGE_AGENT_TEST_RACES": "1",
    } | ({"EDGE_AGENT_TEST_ARM_ALL": "1"} if everything else {})  # fmt: skip
    command = [
        "taskset", "--cpu-list", str(cpu), str(folder / "venv/bin/python"), "-m", "pytest", "-p", "tests.arm.left_out",
        "-p", "no:cacheprovider", "--durations=15", *(f"tests/{wing}" for wing in wings),
    ]  # fmt: skip
    with log.open("w") as out:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT, check=False)
    free.put(cpu)
    lines = log.read_text(errors="replace").splitlines()
    outcome = "passed" if done.returncode == 0 else "FAILED"
    print(f"{processor}, {', '.join(wings)}: {outcome} in {time.monotonic() - started:.0f} s; the whole log is {log}")
    told = [line for line in lines if line.startswith(("left out:", "  ")) or " decisions differ " in line]
    shown = lines[-60:] if done.returncode else [*told, *lines[-1:]]
    print("\n".join(f"    {line.strip()}" for line in shown), flush=True)
    return done.returncode == 0


def main(folder: pathlib.Path, jobs: Sequence[tuple[str, ...]]) -> int:
    """Run the jobs; the exit code."""
    started = time.monotonic()
    on_this_machine.ask(folder, N_QUESTIONS if jobs is ALL_JOBS else FEWER_QUESTIONS)
    free: SimpleQueue[int] = SimpleQueue()
    cpus = sorted(os.sched_getaffinity(0))[: len(jobs)]
    for cpu in cpus:
        free.put(cpu)
    with ThreadPoolExecutor(len(cpus)) as pool:
        passed = list(pool.map(lambda job: run_job(job, folder, free, jobs is ALL_JOBS), jobs))
    print(f"{sum(passed)} of {len(jobs)} jobs passed, in {time.monotonic() - started:.0f} s")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]).resolve(), ALL_JOBS if sys.argv[2:] == ["--all"] else JOBS))
