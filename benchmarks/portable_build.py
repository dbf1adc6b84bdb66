"""Compares the llama.cpp of a wheelhouse, which chooses a variant for this processor, with the one that was compiled here.

    make wheelhouse ARCH=x86_64
    python -m benchmarks.portable_build dist/wheelhouse-x86_64 MODEL.gguf

Both decide the same questions with the same code, in processes that take turns. Prints the ratio of each pair's medians (above 1:
the portable one is slower) and whether both decide alike.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).parents[1]
WARM_UP = 2
PROGRAM = f"""
import json, pathlib, sys, time
from edge_agent.core.question import Question
from edge_agent.engine import llama
from edge_agent.engine.local_model import LocalModel
times, decisions = [], []
with LocalModel(pathlib.Path(sys.argv[1])) as model:
    for n in range(int(sys.argv[2]) + {WARM_UP}):
        question = Question(f"A shop sells {{n + 3}} kinds of bread and {{2 * n + 5}} of cake. How many is that?", ("18", "19", "24", "31"))
        started = time.perf_counter()
        reading = model.read(question)
        times.append(time.perf_counter() - started)
        decisions.append([reading.level, reading.letter])
print(json.dumps({{"variant": llama.variant(), "features": llama.cpu_features(), "times": times[{WARM_UP}:], "decisions": decisions}}))
"""


def decide(model: pathlib.Path, n_questions: int, llama_cpp: pathlib.Path | None) -> dict[str, list[float]]:
    """What one process measured, with the llama.cpp in this folder or the one that is installed."""
    path = os.pathsep.join([str(ROOT), *([str(llama_cpp)] if llama_cpp else [])])
    command = [sys.executable, "-c", PROGRAM, str(model), str(n_questions)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheelhouse", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--questions", type=int, default=10, help="for each process")
    args = parser.parse_args()
    ratios, same = [], True
    with tempfile.TemporaryDirectory() as folder:
        (wheel,) = args.wheelhouse.glob("llama_cpp_python-*.whl")
        zipfile.ZipFile(wheel).extractall(folder)
        for pair in range(args.pairs):
            order = [None, pathlib.Path(folder)][:: 1 if pair % 2 else -1]
            found = {bool(which): decide(args.model, args.questions, which) for which in order}
            native, portable = (statistics.median(found[which]["times"]) for which in (False, True))
            ratios.append(portable / native)
            same = same and found[False]["decisions"] == found[True]["decisions"]
            times = f"{native * 1000:.1f} ms compiled here, {portable * 1000:.1f} ms {found[True]['variant']}"
            print(f"pair {pair + 1}: {times}, {ratios[-1]:.3f}", flush=True)
    print(f"compiled here: {', '.join(map(str, found[False]['features']))}")
    print(f"{found[True]['variant']}: {', '.join(map(str, found[True]['features']))}")
    spread = f"median of {len(ratios)} pairs, {min(ratios):.3f} to {max(ratios):.3f}"
    print(f"ratio {statistics.median(ratios):.3f} ({spread}); same decisions: {same}")


if __name__ == "__main__":
    main()
