"""What a decision costs on an ARM board, reckoned from counts and published rates: nobody measured edge-agent there.

    python -m benchmarks.pi_cost FILE [--questions 8] [--json]

Counts the passes of real decisions: the tokens of each, and the places where the output layer is read. A pass takes as long as
its multiplications at the rate that a published prompt (llama-bench's pp) ran at, or as reading all weights once at the rate of
published single tokens (tg), whichever is longer. `pi_rates.toml` has the published figures with their sources. Left out are
attention (4 % of the multiplications at 160 tokens and the 0.6B shape) and everything beside the model.

A decision takes longer than that: its batches are smaller than a long prompt, and what is left out takes time. How much longer was
measured where both could be: `results/amd-epyc-2-ladder.csv` has the rates and the decisions of nine files. The range for a board
is the fastest rate with the smallest of these nine ratios, to the slowest rate with the largest. The last lines do the same for
this machine.
"""

import argparse
import csv
import json
import pathlib
import re
import statistics
import time
import tomllib
from collections.abc import Callable
from typing import Any, NamedTuple

from edge_agent.core.question import Question
from edge_agent.engine.local_model import LocalModel
from edge_agent.measure.sets import loading
from edge_agent.model.gguf import read_header

RATES = pathlib.Path(__file__).with_name("pi_rates.toml")
LADDER = pathlib.Path(__file__).parent / "results" / "amd-epyc-2-ladder.csv"
PREFILL_TOKENS, DECODE_TOKENS = 256, 16
OTHER = Question("Which of these is a colour?", ("red", "seven", "Monday"))
READS = 4  # of the output layer in a decision of one pass
SHAPE_06B = (440_467_456, 155_582_464)  # weights for each token, and for each read of the output layer
CORES = 4  # of every board here; a row with `multiplies_per_s` was measured on one
KINDS = ("nothing cached", "system message cached", "read while it was typed")


class Pass(NamedTuple):
    """One evaluation: its tokens, and at how many of them the output layer is read."""

    n_tokens: int
    n_reads: int


class Rate(NamedTuple):
    """Multiplications a second and bytes of weights a second; None where nobody published it."""

    multiplies_per_s: float | None
    bytes_per_s: float | None


class Counts(NamedTuple):
    """What a pass of one file multiplies and reads."""

    quantization: str
    n_multiplied: int  # weights for each token
    n_output: int  # weights for each read of the output layer
    n_bytes: int


def shape(path: pathlib.Path, model: LocalModel) -> Counts:
    """The counts of an open model. Its embeddings are its output layer, as in Qwen3-0.6B and Gemma 3."""
    header = read_header(path)
    n_bytes = path.stat().st_size - min(place.offset for place in header.tensors.values())
    return Counts(header.quantization, model.n_parameters - model.n_embedding, model.n_embedding, n_bytes)


def recorded(model: LocalModel, work: Callable[[], object]) -> list[Pass]:
    """The passes that `work` needs."""
    llama, passes = model._llama, []
    decode = llama._decode

    def counting(n_tokens: int) -> None:
        passes.append(Pass(n_tokens, sum(map(bool, llama._batch.logits[:n_tokens]))))
        decode(n_tokens)

    llama._decode = counting  # type: ignore[method-assign]  # of this one object, for a while
    try:
        work()
    finally:
        del llama._decode
    return passes


def counted(model: LocalModel, question: Question) -> dict[str, list[Pass]]:
    """The passes of one decision, from Enter on, for each of `KINDS`."""
    found = {}
    for kind in KINDS:
        model.read(OTHER)  # what is cached afterwards: the system message and another question
        if kind == KINDS[0]:
            model._line.run(lambda: model._llama.keep(0))
        elif kind == KINDS[2]:
            while not model.draft(model.profile.user_message(question), complete=True).result():
                pass
        found[kind] = recorded(model, lambda: model.read(question))
    return found


def seconds(passes: list[Pass], of: Counts, rate: Rate) -> float:
    """How long some passes take."""
    total = 0.0
    for one in passes:
        multiplied = one.n_tokens * of.n_multiplied + one.n_reads * of.n_output
        compute = multiplied / rate.multiplies_per_s if rate.multiplies_per_s else 0.0
        total += max(compute, of.n_bytes / rate.bytes_per_s if rate.bytes_per_s else 0.0)
    return total


def published(path: pathlib.Path = RATES) -> list[dict[str, Any]]:
    """The rows of published figures."""
    return list(tomllib.loads(path.read_text())["measured"])


def family(quantization: str) -> str:
    """Q4_K of Q4_K_M: files of one family spend most of their time in one arithmetic."""
    return re.sub(r"_[SML]$", "", quantization)


def rates(rows: list[dict[str, Any]], board: str, quantization: str) -> tuple[Rate, Rate, bool]:
    """The slowest and the fastest published rate of a board, and whether they are of this quantization or of others."""
    of_board = [row for row in rows if row["board"] == board]
    same = [row for row in of_board if row["quantization"] == family(quantization)]
    enough = any("multiplied" in row or "multiplies_per_s" in row for row in same) and any("decoded_bytes" in row for row in same)
    used = same if enough else of_board
    multiplies, read = [], []
    for row in used:
        for sign in (-1, 1):
            factor = 1 + sign * row.get("error", 0)
            if "multiplies_per_s" in row:
                multiplies.append(CORES * row["multiplies_per_s"] * factor)
            elif "prefill_per_s" in row:
                multiplies.append(row["prefill_per_s"] * row["multiplied"] * factor)
            if "decode_per_s" in row:
                read.append(row["decode_per_s"] * row["decoded_bytes"] * factor)
    return Rate(min(multiplies), min(read)), Rate(max(multiplies), max(read)), enough


def longer(path: pathlib.Path = LADDER) -> tuple[float, float]:
    """The smallest and the largest ratio of a measured decision to the reckoned one, over the files that one run measured.

    `edge-agent bench --csv` wrote them, for files of the 0.6B shape.
    """
    ratios = []
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            of = Counts(row["quantization"], *SHAPE_06B, int(row["size_bytes"]))
            rate = Rate(float(row["prefill_per_s"]) * of.n_multiplied, float(row["decode_per_s"]) * of.n_bytes)
            n_forward = float(row["n_forward"])
            assert n_forward == 1, f"{path} has a decision of {n_forward} passes; this reckons with one"
            reckoned = seconds([Pass(round(float(row["n_tokens"])), READS)], of, rate)
            ratios.append(float(row["decision_p50_ms"]) / 1000 / reckoned)
    return min(ratios), max(ratios)


def here(model: LocalModel, of: Counts) -> Rate:
    """The rates of this machine, measured as llama-bench does: a long prompt, and single tokens."""
    text = model.prompt_tokens(OTHER)
    filler = (text * (PREFILL_TOKENS // len(text) + 1))[:PREFILL_TOKENS]
    prefill_s = min(model.time_evaluation(filler, 0) for _ in range(3)) / 1000
    lengths = range(PREFILL_TOKENS - DECODE_TOKENS, PREFILL_TOKENS)
    single_s = statistics.median(model.time_evaluation(filler[: n + 1], n) for n in lengths) / 1000
    return Rate((PREFILL_TOKENS * of.n_multiplied + of.n_output) / prefill_s, of.n_bytes / single_s)


def checked(model: LocalModel, of: Counts, questions: list[Question]) -> tuple[Rate, list[tuple[float, float]]]:
    """The rates of this machine, and the reckoned and the measured seconds of each decision with the system message cached."""
    rate = here(model, of)
    pairs = []
    for question in questions:
        took: list[float] = []

        def decide(question: Question = question, took: list[float] = took) -> None:
            started = time.perf_counter()
            model.read(question)
            took.append(time.perf_counter() - started)

        passes = recorded(model, decide)
        pairs.append((seconds(passes, of, rate), took[0]))
    return rate, pairs


def main() -> None:
    """Count, reckon and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    questions = loading.built_in()[: given.questions]
    with LocalModel(given.file) as model:
        of = shape(given.file, model)
        each = [counted(model, question) for question in questions]
        model.read(questions[0])
        rate, pairs = checked(model, of, questions[1:])
    rows, boards = published(), {}
    least, most = longer()
    for board in dict.fromkeys(row["board"] for row in rows):
        slow, fast, same = rates(rows, board, of.quantization)
        boards[board] = {"of_this_quantization": same} | {
            kind: [
                round(factor * statistics.median(seconds(one[kind], of, rate) for one in each), 2)
                for rate, factor in ((fast, least), (slow, most))
            ]
            for kind in KINDS
        }
    counts = {
        kind: {
            "passes": statistics.mean(len(one[kind]) for one in each),
            "tokens": statistics.mean(sum(one.n_tokens for one in decision[kind]) for decision in each),
            "reads": statistics.mean(sum(one.n_reads for one in decision[kind]) for decision in each),
        }
        for kind in KINDS
    }
    ratio = statistics.median(measured / reckoned for reckoned, measured in pairs)
    if given.json:
        print(
            json.dumps(
                {"shape": of._asdict(), "counts": counts, "reckoned_s": boards, "here": rate._asdict(), "longer_here": ratio}, indent=1
            )
        )
        return
    print(f"{given.file.name}, {of.quantization}: {of.n_multiplied / 1e6:.0f} M multiplications a token, {of.n_output / 1e6:.0f} M a read")
    print(f"of the output layer, {of.n_bytes / 1e6:.0f} MB of weights a pass; the mean of {len(each)} questions:\n")
    print(f"{'':24}  passes  tokens   reads  G multiplications")
    for kind, count in counts.items():
        work = (count["tokens"] * of.n_multiplied + count["reads"] * of.n_output) / 1e9
        print(f"{kind:24} {count['passes']:7.1f} {count['tokens']:7.0f} {count['reads']:7.1f} {work:18.1f}")
    print("\nReckoned, not measured, in seconds (~: from other quantizations of the board)")
    print(f"{'':31}" + "".join(f"{kind:>25}" for kind in KINDS))
    for board, row in boards.items():
        cells = "".join(f"{row[kind][0]:18.2f} - {row[kind][1]:4.2f}" for kind in KINDS)
        print(f"{'' if row['of_this_quantization'] else '~'}{board}".ljust(31) + cells)
    measured = statistics.median(took for _, took in pairs)
    print(f"\nThis machine, {rate.multiplies_per_s / 1e9:.0f} G multiplications and {rate.bytes_per_s / 1e9:.1f} GB of weights a second:")
    print(f"a decision took {measured:.3f} s (median), {ratio:.2f} times as long as reckoned (median of {len(pairs)} pairs;")
    print(f"{least:.2f} to {most:.2f} in the run of nine files that the ranges above are stretched by)")


if __name__ == "__main__":
    main()
