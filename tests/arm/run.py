"""`python -m tests.arm.run FOLDER`: the tests on three emulated ARM processors, side by side on the CPUs of this machine.

FOLDER is the environment of tests/arm/environment.sh. The whole selection runs on one processor, the engine's tests and those
of this folder on all three. Each processor gets one CPU here. Logs are FOLDER/PROCESSOR.log.
"""

import os
import pathlib
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

ROOT = pathlib.Path(__file__).parents[2]
WINGS = ("core", "model", "store", "engine", "cloud", "agent")
ON = {
    "cortex-a53": ("arm", *WINGS),  # Raspberry Pi 3 and Zero 2 W
    "cortex-a72": ("arm", "engine"),  # Raspberry Pi 4
    "cortex-a76": ("arm", "engine"),  # Raspberry Pi 5
}
N_QUESTIONS = 200


def ask_here(folder: pathlib.Path) -> None:
    """Write the questions, and what this machine decides, for tests/arm/test_same_decisions.py."""
    drawn = subprocess.run([sys.executable, "-m", "models.recipe.bank", "--n", "29"], cwd=ROOT, capture_output=True, text=True, check=True)
    (folder / "questions.jsonl").write_text("".join(drawn.stdout.splitlines(keepends=True)[:N_QUESTIONS]))
    with (folder / "x86_64.jsonl").open("w") as out:
        subprocess.run([sys.executable, "-m", "tests.arm.decide", str(folder / "questions.jsonl")], cwd=ROOT, stdout=out, check=True)


def run_on(processor: str, folder: pathlib.Path, free: SimpleQueue[int]) -> bool:
    """Run the tests of one processor on a free CPU; whether they passed."""
    cpu, started = free.get(), time.monotonic()
    log = folder / f"{processor}.log"
    environment = os.environ | {"QEMU_CPU": processor, "EDGE_AGENT_TEST_ARM": str(folder), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [
        "taskset", "--cpu-list", str(cpu), str(folder / "venv/bin/python"), "-m", "pytest", "-p", "tests.arm.left_out",
        "-p", "no:cacheprovider", "--durations=15", *(f"tests/{wing}" for wing in ON[processor]),
    ]  # fmt: skip
    with log.open("w") as out:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT, check=False)
    free.put(cpu)
    lines = log.read_text(errors="replace").splitlines()
    print(f"{processor}: {'passed' if done.returncode == 0 else 'FAILED'} in {time.monotonic() - started:.0f} s; the whole log is {log}")
    told = [line for line in lines if line.startswith(("left out:", "  line ")) or " of 200 decisions" in line]
    shown = lines[-60:] if done.returncode else [*told, *lines[-1:]]
    print("\n".join(f"    {line}" for line in shown), flush=True)
    return done.returncode == 0


def main(folder: pathlib.Path) -> int:
    """Run everything; the exit code."""
    ask_here(folder)
    free: SimpleQueue[int] = SimpleQueue()
    cpus = sorted(os.sched_getaffinity(0))[: len(ON)]
    for cpu in cpus:
        free.put(cpu)
    with ThreadPoolExecutor(len(cpus)) as pool:
        return 0 if all(list(pool.map(lambda processor: run_on(processor, folder, free), ON))) else 1


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]).resolve()))
