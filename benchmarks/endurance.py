"""Ten thousand decisions in one process: does the memory stay constant, and do the answers stay the same?

python -m benchmarks.endurance MODEL.gguf [--decisions 10000] [--questions 200]
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time

from benchmarks.agreement import held_out
from edge_agent.engine.local_model import LocalModel
from edge_agent.measure.bench.sample import memory


def main() -> None:
    """Print memory and time for some passes, and how the answers of the last pass differ from the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--decisions", type=int, default=10_000)
    parser.add_argument("--questions", type=int, default=200)
    arguments = parser.parse_args()
    questions = held_out(arguments.questions)
    passes = max(2, arguments.decisions // len(questions))
    first: list[tuple[object, ...]] = []
    with LocalModel(arguments.model) as model:
        for number in range(passes):
            started = time.perf_counter()
            readings = [model.read(question) for question in questions]
            answers = [(r.level, r.answer, r.level_probs) for r in readings]
            first = first or answers
            if number % max(1, passes // 10) == 0 or number == passes - 1:
                anonymous, _ = memory()
                each_ms = (time.perf_counter() - started) * 1000 / len(questions)
                print(f"pass {number + 1:4}/{passes}  {(anonymous or 0) / 1e6:8.1f} MB  {each_ms:6.2f} ms each", flush=True)
    differing = sum(a[:2] != b[:2] for a, b in zip(first, answers, strict=True))
    same_bits = sum(a == b for a, b in zip(first, answers, strict=True))
    total = passes * len(questions)
    print(f"{total} decisions; in the last pass {differing} answers differ from the first, and {same_bits} readings are identical")
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
