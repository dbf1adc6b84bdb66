"""What does a decision by the texts of the options cost, beside what it must cost?

    python -m benchmarks.options MODEL.gguf [MODEL.gguf ...] [--n 12] [--rounds 3]

Each model is read as a plain one; it is asked questions that come with edge-agent, and the tokens before the question are cached. A
decision must evaluate some tokens and read the whole vocabulary at some places. The floor is the time of llama.cpp alone for one
batch of one sequence with as many tokens and as many places: ms per token is that of the batch without a read, divided by its tokens;
ms per read is what the reads add to it, divided by their number. It knows no options, copies no logits and computes no softmax. Both are
measured for each question in turn with its decision, and the least of the rounds counts. Normalisation without the question is left
out: it is a second pass.
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import time
from collections.abc import Callable

import numpy as np

from edge_agent.core.question import Question
from edge_agent.engine import options
from edge_agent.engine.answers import Answers
from edge_agent.engine.llama import Llama, Options
from edge_agent.measure.sets.loading import built_in
from edge_agent.model import gguf, prompt
from edge_agent.model.profile import OPTION, Way, plain_profile

ALLOWED = 1.15


def bare(llama: Llama, n_cached: int, tokens: list[int], reads: set[int]) -> float:
    """The ms of llama.cpp alone for `tokens` in one sequence after the first `n_cached`, with a read after each of `reads`."""
    llama.keep(n_cached)
    for i, token in enumerate(tokens):
        llama._put(i, token, n_cached + i, (0,), i in reads)
    started = time.perf_counter()
    llama._decode(len(tokens))
    if reads:
        llama._view(max(reads))  # waits for the result
    return (time.perf_counter() - started) * 1000


def least(work: Callable[[], float], n_rounds: int) -> float:
    """The least time of the rounds."""
    return min(work() for _ in range(n_rounds))


def measure(path: pathlib.Path, questions: list[Question], n_rounds: int) -> list[tuple[int, int, float, float, float]]:
    """For each question: tokens, reads, ms per token, ms per read, and the ms of the decision."""
    header = gguf.read_header(path)
    profile = plain_profile(header.metadata, Way("plain", OPTION))
    rows = []
    with contextlib.closing(Llama(path, Options().for_quantization(header.quantization), reads_options=True)) as llama:
        answers = Answers(llama, profile)
        head = prompt.tokens(llama, prompt.prefix(profile.segments("")))
        for question in questions:
            before, paths = prompt.tokens(llama, profile.segments(profile.user_message(question))), answers.paths(question)
            batches = list(options.batches({path[:i] for path in paths for i in range(len(path))}, llama.limits))
            n_reads = sum(len(tree.reads) for _, tree in batches)
            n_tokens = len(before) - len(head) + n_reads - 1
            if len(batches) > 1 or n_tokens > llama.limits.n_tokens:
                continue  # the floor is that of one batch
            any_tokens = [*before[len(head) :], *[token for path in paths for token in path]][:n_tokens]

            def decide(before: list[int] = before, question: Question = question) -> float:
                llama.keep(len(head))
                while llama.prefill(head, llama.limits.n_tokens):
                    pass
                started = time.perf_counter()
                tokens = prompt.tokens(llama, profile.segments(profile.user_message(question)))
                legal = answers.legal(question)
                assert isinstance(legal, list)
                answers.probs(question, legal, answers.log_probs(tokens, legal))
                return (time.perf_counter() - started) * 1000

            places = set(range(n_tokens - n_reads, n_tokens))
            decision, none, all_ = (
                least(work, n_rounds)
                for work in (
                    decide,
                    lambda tokens=any_tokens: bare(llama, len(head), tokens, set()),  # type: ignore[misc]  # defaults bind this round
                    lambda tokens=any_tokens, places=places: bare(llama, len(head), tokens, places),  # type: ignore[misc]  # defaults bind this round
                )
            )
            rows.append((n_tokens, n_reads, none / n_tokens, (all_ - none) / n_reads, decision))
    return rows


def main() -> None:
    """Print a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=pathlib.Path, nargs="+")
    parser.add_argument("--n", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()
    print("| model | questions | tokens | whole-vocabulary reads | ms per token | ms per read | floor, ms | decision, ms | ratio |")
    print("|" + "---|" * 9)
    worst = 0.0
    for path in wanted.models:
        rows = np.array(measure(path, built_in()[: wanted.n], wanted.rounds))
        tokens, reads, token_ms, read_ms, decision = rows.T
        floor = tokens * token_ms + reads * read_ms
        ratio = float(decision.sum() / floor.sum())
        worst = max(worst, ratio)
        print(
            f"| {path.name} | {len(rows)} | {tokens.mean():.1f} | {reads.mean():.1f} | {np.median(token_ms):.2f} "
            f"| {np.median(read_ms):.3f} | {floor.mean():.1f} | {decision.mean():.1f} | {ratio:.3f} |",
            flush=True,
        )
    if worst > ALLOWED:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
