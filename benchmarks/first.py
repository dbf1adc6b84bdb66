"""The first decision of a new process: edge-agent and llama-cpp-python, in turns.

    python -m benchmarks.first MODEL.gguf [--repeats 5]

Each side is a new process that imports, opens the file and answers one question; the clock starts before the imports.
edge-agent opens the file like `edge-agent ask`, and has used it before on this device, so its hash and its evaluated system
message are stored. llama-cpp-python opens it with `Llama(...)` and completes with the grammar; its time is normalised to the
14 tokens of a normal answer.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from benchmarks.peers import ANSWER_TOKENS, BUILTIN, grammar, prompt
from edge_agent.core.question import Question

OURS = """
import json, sys, time
started = time.perf_counter()
from edge_agent import Agent, Question
request = json.load(sys.stdin)
with Agent.open(model=request["model"], policy="only_local", one_question=True) as agent:
    agent.ask(Question.from_json(request["question"]), refresh=True)
    print((time.perf_counter() - started) * 1000)
"""
THEIRS = """
import json, os, sys, time
started = time.perf_counter()
import llama_cpp
request = json.load(sys.stdin)
n = os.cpu_count()
model = llama_cpp.Llama(request["model"], n_ctx=2048, n_batch=512, n_threads=n, n_threads_batch=n, verbose=False)
legal = llama_cpp.LlamaGrammar.from_string(request["grammar"], verbose=False)
ends = []
for _ in model.create_completion(request["prompt"], grammar=legal, temperature=0, max_tokens=64, stream=True):
    ends.append(time.perf_counter())
each = (ends[-1] - ends[0]) / max(1, len(ends) - 1)
print((ends[0] - started + each * request["answer_tokens"]) * 1000)
"""


def once(program: str, request: dict[str, object], home: str) -> float:
    """The time of one new process, in ms."""
    environment = {**os.environ, "EDGE_AGENT_HOME": home}
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(request), capture_output=True, text=True, env=environment, check=True
    )
    return float(done.stdout.split()[-1])


def main() -> None:
    """Run both in turns and print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    questions = [Question.from_json(json.loads(line)) for line in BUILTIN.read_text().splitlines()]
    times: dict[str, list[float]] = {"edge-agent": [], "llama-cpp-python": []}
    with tempfile.TemporaryDirectory() as home:
        for number in range(arguments.repeats + 1):
            question = questions[number % len(questions)]
            request = {
                "model": str(arguments.model.resolve()), "question": {"question": question.stem, "options": list(question.options)},
                "prompt": prompt(question), "grammar": grammar(question), "answer_tokens": ANSWER_TOKENS,
            }  # fmt: skip
            took = once(OURS, request, home), once(THEIRS, request, home)
            if number:  # the first run only fills the page cache and the home folder
                for name, value in zip(times, took, strict=True):
                    times[name].append(value)
    for name, values in times.items():
        print(f"{name:18} {statistics.median(values):8.0f} ms  ({', '.join(f'{value:.0f}' for value in values)})")
    print(f"ratio {statistics.median(a / b for a, b in zip(*times.values(), strict=True)):.2f}")


if __name__ == "__main__":
    main()
