"""How many instructions a start, a decision and a recall execute on ARM, counted under emulation: a figure that needs no board.

    make test-arm                                    # makes the environment build/arm
    python -m benchmarks.arm_instructions build/arm --out benchmarks/results/arm-instructions.json
    python -m benchmarks.arm_instructions build/arm --check benchmarks/results/arm-instructions.json

Counts are not times: they say nothing about memory or about how many instructions a processor executes at once. But they hardly
vary between runs, so more work in a new version is seen at once. `--check` fails if a count grew by more than 20 %.
Each figure is a difference between whole processes. Needs Debian's packages `qemu-user` and `gcc`.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
PROCESSORS = ("cortex-a72", "cortex-a76")  # Raspberry Pi 4 and 5
GROWTH = 1.2
MORE = 3  # decisions and recalls after the first
# Asks so many new questions, then the first of them again so many times.
PROGRAM = """
import sys
from edge_agent import Agent, Question
with Agent.open(model="demo") as agent:
    for n in range(int(sys.argv[1])):
        agent.ask(Question(f"What is {11 + n} + 7?", ("18", "19", "24")))
    for _ in range(int(sys.argv[2])):
        assert agent.ask(Question("What is 11 + 7?", ("18", "19", "24"))).recalled
"""


def executed(processor: str, folder: pathlib.Path, plugin: pathlib.Path, n_new: int, n_again: int) -> int:
    """The instructions of a whole process with a new home."""
    with tempfile.TemporaryDirectory() as home:
        log = pathlib.Path(home) / "log"
        environment = os.environ | {"EDGE_AGENT_HOME": home, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0", "QEMU_CPU": processor}
        one_cpu = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))]
        qemu = ["qemu-aarch64", "-plugin", str(plugin), "-d", "plugin", "-D", str(log), "-L", str(folder / "root")]
        python = ["-0", str(folder / "venv/bin/python"), str(folder / "root/usr/bin/python3.11")]
        subprocess.run([*one_cpu, *qemu, *python, "-c", PROGRAM, str(n_new), str(n_again)], env=environment, check=True)
        return int(log.read_text().split()[1])


def measure(processor: str, folder: pathlib.Path, plugin: pathlib.Path) -> dict[str, int]:
    """The instructions of each part."""
    start, first, decided, recalled = (executed(processor, folder, plugin, *n) for n in ((0, 0), (1, 0), (1 + MORE, 0), (1 + MORE, MORE)))
    return {
        "start": start,
        "first_decision": first - start,
        "decision": (decided - first) // MORE,
        "recall": (recalled - decided) // MORE,
    }


def main() -> int:
    """Measure, print, and write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="the environment that `make test-arm` makes")
    parser.add_argument("--out", type=pathlib.Path, help="write the counts to this file")
    parser.add_argument("--check", type=pathlib.Path, help="fail if a count is more than 20 %% above the one in this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as built:
        plugin = pathlib.Path(built) / "count.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", plugin, ROOT / "benchmarks" / "count_instructions.c"], check=True)
        counts = {processor: measure(processor, args.folder.resolve(), plugin) for processor in PROCESSORS}
    for processor, parts in counts.items():
        print(f"{processor}: " + ", ".join(f"{name.replace('_', ' ')} {count / 1e6:,.1f} million" for name, count in parts.items()))
    if args.out:
        args.out.write_text(json.dumps(counts, indent=2) + "\n")
    grown = []
    if args.check:
        before = json.loads(args.check.read_text())
        grown = [(p, part) for p, parts in counts.items() for part, count in parts.items() if count > GROWTH * before[p][part]]
    for processor, part in grown:
        print(f"{processor}: {part} executes more instructions than before: {counts[processor][part]:,}, not {before[processor][part]:,}")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
