"""What a model that prints no confidence knows, and how well it knows it: by letters, and by the texts of the options.

    python -m benchmarks.plain_models read MODEL.gguf --data DATA --out RUN.jsonl [--questions 500] [--threads 2] [--prior-every 4]
                                      [--letters 500] [--sets arc-easy,openbookqa,mmlu]
    python -m benchmarks.plain_models table RUN.jsonl [RUN.jsonl ...] [--splits 200] [--limits 0.1,0.2]
    python -m benchmarks.plain_models runs RUN.db [RUN.db ...] [--splits 200] [--limits 0.1,0.2]

`read` asks ARC-Easy, OpenBookQA and MMLU (DATA has the folders arc-easy, openbookqa, mmlu and routellm-mmlu) and writes one line for each
question: the log-probability of every option's text, with its end and without, its tokens and bytes, and of every letter, in the given
order and reversed. From these, `table` computes every normalisation and readout, without asking again. An interrupted run goes on where
it was. The questions come in a fixed random order, the sets in turn, so that a shorter run is a sample of a longer one. `runs` has the
same figures, and those of the printed level, for a FogGen model, from the files that `edge-agent eval DATA --rows RUN.db` writes.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import pathlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edge_agent.core.errors import BadQuestion
from edge_agent.core.question import Question
from edge_agent.engine import options
from edge_agent.engine.answers import Answers
from edge_agent.engine.llama import Llama, Options
from edge_agent.measure.metrics import auroc, lift
from edge_agent.measure.results import Results
from edge_agent.measure.run import run_file
from edge_agent.measure.run.run import Run
from edge_agent.measure.sets import grading, recorded
from edge_agent.measure.sets.labelled import Labelled
from edge_agent.measure.sets.loading import load
from edge_agent.model import gguf, prompt
from edge_agent.model.profile import LETTER, OPTION, Way, plain_profile
from tests.support.guarantee import experiment, results_of

SETS = {"arc-easy": "arc-easy/test.jsonl", "openbookqa": "openbookqa/test.jsonl", "mmlu": "mmlu/test"}
GPT_4, SIMULATED = "gpt-4-1106-preview", 0.95  # where nobody recorded a cloud, one that is right with this probability
SEED = 11
NORMALISED = ("none", "tokens", "bytes", "prior")
READOUTS = ("answer_prob", "margin", "entropy")
FEWEST = 20  # questions for a line of the table
LEVELS_HEAD = """\
| run | n | right | levels used | AUROC level | expected | answer_prob | margin | sent at its tau | lift |"""
HEAD = """\
| model | set | way | n | right | AUROC answer_prob | margin | entropy | lift, half sent | order changes |"""


def asked(data: pathlib.Path, name: str, n: int) -> list[tuple[Labelled, float]]:
    """The first `n` questions of a set in a random order, each with whether GPT-4 was right (nan if nobody asked it)."""
    rows = list(load(data / SETS[name]).rows)
    right = recorded.load(data / "routellm-mmlu", rows, GPT_4).correct if name == "mmlu" else np.full(len(rows), math.nan)
    pairs = list(zip(rows, map(float, right), strict=True))
    random.Random(SEED).shuffle(pairs)
    return pairs[:n]


class Reader:
    """One open model, read both ways."""

    def __init__(self, path: pathlib.Path, n_threads: int) -> None:
        metadata = gguf.read_header(path).metadata
        self._ways = {kind: plain_profile(metadata, Way("plain", kind)) for kind in (LETTER, OPTION)}
        chosen = Options(n_threads=n_threads, n_threads_batch=n_threads)
        self._llama = Llama(path, chosen.for_quantization(gguf.read_header(path).quantization), reads_options=True)
        self._answers = {kind: Answers(self._llama, profile) for kind, profile in self._ways.items()}

    def option(self, question: Question, with_prior: bool) -> dict[str, list[float]]:
        """The log-probabilities of the options' texts, `sums`, and with the end of the answer, `ends`; of the same without the question."""
        profile, answers = self._ways[OPTION], self._answers[OPTION]
        paths = answers.paths(question)
        ended = [(*path, *answers.end) for path in paths]
        found = {"tokens": [float(len(path)) for path in paths], "bytes": [float(len(option.encode())) for option in question.options]}
        for name, text in [("", profile.user_message(question)), ("prior_", "")][: 1 + with_prior]:
            before = prompt.tokens(self._llama, profile.segments(text))
            both = answers.log_probs(before, [*ended, *paths])
            found |= {f"{name}ends": both[: len(paths)], f"{name}sums": both[len(paths) :]}
        return found

    def letter(self, question: Question) -> list[float]:
        """The log-probabilities of the letters."""
        profile, answers = self._ways[LETTER], self._answers[LETTER]
        return answers.log_probs(prompt.tokens(self._llama, profile.segments(profile.user_message(question))), answers.paths(question))


def read(wanted: argparse.Namespace) -> None:
    """Write the lines that are missing in the run."""
    out, done = wanted.out, {(row["set"], row["id"]) for row in (_lines([wanted.out]) if wanted.out.exists() else [])}
    reader = Reader(wanted.model, wanted.threads)
    sets = [[(name, i, *pair) for i, pair in enumerate(asked(wanted.data, name, wanted.questions))] for name in wanted.sets.split(",")]
    with out.open("a") as file:
        for name, i, row, cloud in (each for turn in itertools.zip_longest(*sets) for each in turn if each):
            if (name, row.id) in done:
                continue
            question = row.question
            with contextlib.suppress(BadQuestion):  # too long for the model, as on a device
                turned = Question(question.stem, question.options[::-1]) if i < wanted.letters and i % 2 == 0 else None
                found = {
                    "set": name, "id": row.id, "model": wanted.model.name, "fingerprint": question.fingerprint, "cloud": cloud,
                    "right": [grading.correct(row, letter) for letter in question.letters],
                    "option": reader.option(question, i % wanted.prior_every == 0),
                    "letter": reader.letter(question) if i < wanted.letters else None,
                    "reversed": reader.letter(turned)[::-1] if turned else None,
                }  # fmt: skip
                file.write(json.dumps(found) + "\n")
                file.flush()


def _lines(paths: Sequence[pathlib.Path]) -> list[dict[str, Any]]:
    return [json.loads(line) for path in paths for line in path.read_text().splitlines() if line.endswith("}")]


def scores(row: dict[str, Any], way: str) -> list[float] | None:
    """The scores of the answers by a way: letter, reversed, or a normalisation of the options' texts (`tokens+end`: with their ends)."""
    if way in ("letter", "reversed"):
        return row[way]  # type: ignore[no-any-return]  # JSON that `read` wrote
    how, end = way.removesuffix("+end"), "ends" if way.endswith("+end") else "sums"
    found, extra = row["option"], way.endswith("+end")
    if how == "prior":
        return [a - b for a, b in zip(found[end], found[f"prior_{end}"], strict=True)] if "prior_sums" in found else None
    if how == "none":
        return found[end]  # type: ignore[no-any-return]  # JSON that `read` wrote
    return [a / (b + extra) for a, b in zip(found[end], found[how], strict=True)]


def figures(rows: list[dict[str, Any]], way: str, n_splits: int, limits: Sequence[float]) -> dict[str, str]:
    """The figures of one way over the rows that have it, as the table prints them."""
    columns: dict[str, list[float]] = {name: [] for name in ("right", "cloud", *READOUTS)}
    changed, both = 0, 0
    for row in rows:
        found = scores(row, way)
        if found is None:
            continue
        probs = sorted(options.answer_probs(found, [(i,) for i in range(len(found))]))
        best = found.index(max(found))
        columns["right"].append(row["right"][best])
        columns["cloud"].append(SIMULATED if math.isnan(row["cloud"]) else row["cloud"])
        columns["answer_prob"].append(probs[-1])
        columns["margin"].append(probs[-1] - probs[-2])
        columns["entropy"].append(max(0.0, 1 + math.fsum(p * math.log(p) for p in probs if p > 0) / math.log(len(probs))))
        if way == "letter" and row["reversed"]:
            both, changed = both + 1, changed + (best != row["reversed"].index(max(row["reversed"])))
    values = {name: np.array(column) for name, column in columns.items()}
    right = values.pop("right")
    out = {"n": f"{len(right):,}", "right": f"{right.mean():.1%}"}
    out |= {f"auroc {name}": f"{float(auroc(values[name], right)):.2f}" for name in READOUTS}
    keep = values["answer_prob"] >= np.median(values["answer_prob"])  # tau at the median: half goes to the cloud
    system = float(np.where(keep, right, values["cloud"]).mean())
    gained = lift(system, float(right.mean()), float(values["cloud"].mean()), float((~keep).mean()))
    out |= {"lift": f"{100 * gained:+.1f}", "changed": f"{changed / both:.0%}" if both else ""}
    pool = results_of(right, {name: values[name] for name in READOUTS}, fingerprints=tuple(map(str, range(len(right)))))
    return out | guaranteed(pool, n_splits, limits)


def guaranteed(pool: Results, n_splits: int, limits: Sequence[float]) -> dict[str, str]:
    """For each limit: the share that calibrations on half of the pool keep, what the pool allows, how often none came, or a bad one.

    What it allows is `Outcome.target`, with how often a calibration found 0.8 of that.
    """
    out = {}
    for limit in limits:
        made = experiment(pool, limit, len(pool) // 2, n_splits, SEED)
        share = f"{made.mean_share:.0%}" if made.found else "-"
        target = f"{made.target:.0%} ({made.good:.0%})" if made.target else "-"
        out[f"kept at {limit:.0%}"] = f"{share} | {target} | {1 - made.found:.0%} | {made.broken:.1%}"
    return out


def printed(path: pathlib.Path, n_splits: int, limits: Sequence[float]) -> str:
    """The line of one run of a FogGen model."""
    facts, rows = run_file.load(path)
    results = Run(facts, tuple(rows[number] for number in sorted(rows))).results()
    right, level = results.edge_correct, results.scores["confidence"]
    keep = (level >= facts.profile.tau) & ~results.no_confidence
    system = float(np.where(keep, right, SIMULATED).mean())
    gained = lift(system, float(right.mean()), SIMULATED, float((~keep).mean())) + 0.0
    cells = [path.stem, f"{len(results):,}", f"{right.mean():.1%}", str(len(set(level)))]
    cells += [f"{float(auroc(results.scores[name], right)):.2f}" for name in ("confidence", "expected_confidence", "answer_prob", "margin")]
    cells += [f"{(~keep).mean():.0%}", f"{100 * gained:+.1f}"]
    return f"| {' | '.join([*cells, *guaranteed(results, n_splits, limits).values()])} |"


def _table(paths: Sequence[pathlib.Path], n_splits: int, ways: Sequence[str], limits: Sequence[float]) -> Iterator[str]:
    rows = _lines(paths)
    for model, name, way in itertools.product(sorted({row["model"] for row in rows}), SETS, ways):
        mine = [row for row in rows if (row["model"], row["set"]) == (model, name) and scores(row, way) is not None]
        if len(mine) >= FEWEST:
            yield f"| {model} | {name} | {way} | {' | '.join(figures(mine, way, n_splits, limits).values())} |"


def main() -> None:
    """Read, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    reading, table = commands.add_parser("read"), commands.add_parser("table")
    reading.add_argument("model", type=pathlib.Path)
    reading.add_argument("--data", type=pathlib.Path, required=True)
    reading.add_argument("--out", type=pathlib.Path, required=True)
    reading.add_argument("--questions", type=int, default=500)
    reading.add_argument("--threads", type=int, default=2)
    reading.add_argument("--prior-every", type=int, default=4)
    reading.add_argument("--letters", type=int, default=500, help="How many questions of each set are also asked by letters.")
    reading.add_argument("--sets", default=",".join(SETS))
    table.add_argument("runs", type=pathlib.Path, nargs="+")
    table.add_argument("--ways", default="letter,none,tokens,bytes,prior,none+end,tokens+end")
    runs = commands.add_parser("runs")
    runs.add_argument("runs", type=pathlib.Path, nargs="+")
    for each in (table, runs):
        each.add_argument("--splits", type=int, default=200)
        each.add_argument("--limits", default="0.1,0.2", help="Shares of errors that a calibration guarantees.")
    wanted = parser.parse_args()
    if wanted.command == "read":
        read(wanted)
        return
    limits = [float(limit) for limit in wanted.limits.split(",")]
    is_table = wanted.command == "table"
    head = (HEAD if is_table else LEVELS_HEAD) + "".join(f" kept at {limit:.0%} | possible | no tau | broken |" for limit in limits)
    print(head + "\n" + "|" + "---|" * head.count(" |"))
    for line in (
        _table(wanted.runs, wanted.splits, wanted.ways.split(","), limits)
        if is_table
        else (printed(path, wanted.splits, limits) for path in wanted.runs)
    ):
        print(line, flush=True)


if __name__ == "__main__":
    main()
