"""What questions over one state cost when they are asked together, against single requests that each have a state of their own.

    python -m benchmarks.state FILE [--questions 8] [--tokens 400] [--rounds 5]

Each round reads the questions together over one new state of about that many tokens, then one by one, each over another new state;
a state is never in the cache before. The questions are typed ones: choices, yes or no, scores. The floor is the ratio of the
multiplications: tokens times the weights, and the token embeddings for each position whose logits are read.

The last line shows what evaluating the ends of all prompts in one batch could save at most: the time of their tokens in batches as
large as they fit against one batch for each.
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
import statistics
import time
from collections.abc import Iterator, Sequence

from edge_agent.core.question import Question
from edge_agent.core.records import OpenReading, Reading
from edge_agent.core.typed import Rounds, TypedQuestion
from edge_agent.engine.local_model import LocalModel
from edge_agent.engine.passes import MAX_READS

WORDS = ("the", "order", "was", "paid", "but", "nobody", "sent", "a", "letter", "and", "my", "account", "shows", "two", "charges")


def state(model: LocalModel, number: int, n_tokens: int) -> str:
    """A text of about `n_tokens` tokens that differs from the others from its first word on."""
    text, empty = f"Case {number}:", len(model.prompt_tokens(Question("x", ("a", "b"))))
    for i in itertools.count():
        if len(model.prompt_tokens(Question(text, ("a", "b")))) - empty >= n_tokens:
            return text
        text += " " + " ".join(WORDS[(number + i * 7 + k) % len(WORDS)] for k in range(8)) + "."
    raise AssertionError


def questions(text: str, n: int) -> list[Question]:
    """Typed questions over one state."""
    asked: list[TypedQuestion] = []
    for i in range(n):
        kind = i % 3
        if kind == 0:
            names: list[tuple[str, object]] = [("Billing", "payments and refunds"), ("Technical", "bugs"), ("Sales", None), ("Other", None)]
            asked.append(TypedQuestion.choice(text, f"Which team takes letter {i}?", names))
        elif kind == 1:
            asked.append(TypedQuestion.yes_no(text, f"Does the customer ask for money back in letter {i}?"))
        else:
            asked.append(TypedQuestion.score(text, f"How angry is letter {i}?", ["calm", "annoyed", "angry", "furious"]))
    return [question for one in asked for question in Rounds(one).questions]


def operations(model: LocalModel, readings: Sequence[Reading | OpenReading]) -> float:
    """The multiplications of some readings."""
    n_new = sum(reading.timings.n_prompt_tokens - reading.timings.n_cached_tokens for reading in readings)
    n_reads = sum(min(MAX_READS, len(reading.levels)) * reading.timings.n_forward for reading in readings)
    return (model.n_parameters - model.n_embedding) * n_new + model.n_embedding * n_reads


def timed(model: LocalModel, requests: Sequence[list[Question]]) -> tuple[float, list[Reading | OpenReading]]:
    """The time of some requests one after another, in ms, and their readings."""
    started = time.perf_counter()
    readings = [reading for request in requests for reading in model.read_all(request)]
    return (time.perf_counter() - started) * 1000, readings


def ends(model: LocalModel, text: str, n: int, n_end: int) -> tuple[float, float]:
    """The time of `n` ends of prompts with `n_end` tokens behind a cached state, in ms: one batch for each, and as few as possible."""
    tokens = model.prompt_tokens(Question(f"{text} {text} {text}", ("a", "b")))
    cached = model.prompt_tokens(Question(text, ("a", "b")))
    at = len(cached) - 20  # the state, without the question's end
    per_batch = max(1, model.n_batch // n_end)
    sizes = [n_end * min(per_batch, n - start) for start in range(0, n, per_batch)]
    single = statistics.median(model.time_evaluation(tokens[: at + n_end], at) for _ in range(5))
    return n * single, sum(statistics.median(model.time_evaluation(tokens[: at + size], at) for _ in range(5)) for size in sizes)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with LocalModel(given.file) as model:
        numbers: Iterator[int] = itertools.count()
        model.read(Question("Warm up?", ("yes", "no")))
        together: list[float] = []
        single: list[float] = []
        floors: list[float] = []
        for _ in range(given.rounds):
            one = questions(state(model, next(numbers), given.tokens), given.questions)
            many = [[questions(state(model, next(numbers), given.tokens), given.questions)[i]] for i in range(given.questions)]
            (ms, shared), (all_ms, own) = timed(model, [one]), timed(model, many)
            together.append(ms)
            single.append(all_ms)
            floors.append(operations(model, shared) / operations(model, own))
        n_new = [reading.timings.n_prompt_tokens - reading.timings.n_cached_tokens for reading in shared]
        n_end = round(statistics.median(n_new))
        separate_ms, joined_ms = ends(model, state(model, next(numbers), given.tokens), given.questions, n_end)
    ratios = sorted(ms / all_ms for ms, all_ms in zip(together, single, strict=True))
    print(f"{given.questions} questions over one state of {given.tokens} tokens, {given.rounds} rounds, {given.file.name}")
    print(f"new tokens of each question      {n_new}")
    print(f"together, ms (median)            {statistics.median(together):.0f}")
    print(f"single requests, ms (median)     {statistics.median(single):.0f}")
    print(f"ratio (lowest, median, highest)  {ratios[0]:.3f} {statistics.median(ratios):.3f} {ratios[-1]:.3f}")
    print(f"floor (multiplications)          {statistics.median(floors):.3f}")
    print(f"ends of {n_end} tokens, ms            {separate_ms:.0f} one by one, {joined_ms:.0f} in as few batches as possible")


if __name__ == "__main__":
    main()
