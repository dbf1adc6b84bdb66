"""How many instructions a start, a decision and a recall execute on ARM, counted under emulation: a figure that needs no board.

    make test-arm                                    # makes the environment build/arm
    python -m benchmarks.arm_instructions build/arm --out benchmarks/results/arm-instructions.json
    python -m benchmarks.arm_instructions build/arm --check benchmarks/results/arm-instructions.json

Counts are not times: they say nothing about memory or about how many instructions a processor executes at once. But they hardly
vary between runs, so more work in a new version is seen at once: `--check` fails if a count grew by more than 8 %. The emulator
counts at marks that the program sets, in one process for each processor. Needs Debian's packages `qemu-user` and `gcc`.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise

ROOT = pathlib.Path(__file__).parents[1]
PROCESSORS = ("cortex-a72", "cortex-a76")  # Raspberry Pi 4 and 5
GROWTH = 1.08
DECISIONS, RECALLS = 3, 20  # after the first decision
PROGRAM = f"""
import contextlib, os
from edge_agent import Agent, Question
def mark():
    with contextlib.suppress(ProcessLookupError):
        os.getpgid(0x4D41524B)  # count_instructions.c prints the count
def ask(n):
    return agent.ask(Question(f"What is {{11 + n}} + 7?", ("18", "19", "24")))
with Agent.open(model="demo") as agent:
    mark()
    ask(0)
    mark()
    for n in range({DECISIONS}):
        ask(1 + n)
    mark()
    for _ in range({RECALLS}):
        assert ask(0).recalled
    mark()
"""


def compile_python(folder: pathlib.Path) -> None:
    """Run the program once, uncounted: as long as its Python files are not compiled, every process compiles them."""
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"EDGE_AGENT_HOME": home, "PYTHONPATH": str(ROOT), "QEMU_CPU": PROCESSORS[-1]}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what is compiled must stay
        subprocess.run([folder / "venv/bin/python", "-c", PROGRAM], env=environment, check=True)


def executed(processor: str, folder: pathlib.Path, plugin: pathlib.Path) -> list[int]:
    """The instructions that the program, with a new home, had executed at each mark."""
    with tempfile.TemporaryDirectory() as home:
        log = pathlib.Path(home) / "log"
        environment = os.environ | {"EDGE_AGENT_HOME": home, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0", "QEMU_CPU": processor}
        one_cpu = ["taskset", "--cpu-list", str(max(os.sched_getaffinity(0)))]
        qemu = ["qemu-aarch64", "-plugin", str(plugin), "-d", "plugin", "-D", str(log), "-L", str(folder / "root")]
        python = ["-0", str(folder / "venv/bin/python"), str(folder / "root/usr/bin/python3.11")]
        subprocess.run([*one_cpu, *qemu, *python, "-c", PROGRAM], env=environment, check=True)
        return [int(line.split()[1]) for line in log.read_text().splitlines()]


def measure(processor: str, folder: pathlib.Path, plugin: pathlib.Path) -> dict[str, int]:
    """The instructions of each part."""
    opened, *marks = executed(processor, folder, plugin)[:4]
    first, more, recalled = (after - before for before, after in pairwise([opened, *marks]))
    return {"start": opened, "first_decision": first, "decision": more // DECISIONS, "recall": recalled // RECALLS}


def more_than_before(counts: dict[str, dict[str, int]], before: dict[str, dict[str, int]]) -> Iterator[str]:
    """A line for each count that grew by more than what differs between two runs of the same code."""
    for processor, parts in counts.items():
        for part, count in parts.items():
            if count > GROWTH * before[processor][part]:
                yield f"{processor}: {part.replace('_', ' ')} executes {count:,} instructions, before {before[processor][part]:,}"


def main() -> int:
    """Measure, print, and write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="the environment that `make test-arm` makes")
    parser.add_argument("--out", type=pathlib.Path, help="write the counts to this file")
    parser.add_argument("--check", type=pathlib.Path, help="fail if a count is more than 8 %% above the one in this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as built:
        plugin = pathlib.Path(built) / "count.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", plugin, ROOT / "benchmarks" / "count_instructions.c"], check=True)
        compile_python(args.folder.resolve())
        counts = {processor: measure(processor, args.folder.resolve(), plugin) for processor in PROCESSORS}
    for processor, parts in counts.items():
        print(f"{processor}: " + ", ".join(f"{name.replace('_', ' ')} {count / 1e6:,.1f} million" for name, count in parts.items()))
    if args.out:
        args.out.write_text(json.dumps(counts, indent=2) + "\n")
    grown: list[str] = []
    if args.check:
        grown = list(more_than_before(counts, json.loads(args.check.read_text())))
        print("\n".join(grown) or f"no count grew by more than {GROWTH - 1:.0%}")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
