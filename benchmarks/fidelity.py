"""How quantization changes the answers: every quantization, with and without an importance matrix, merged or as an adapter.

    python -m benchmarks.fidelity BASE ADAPTER --questions held-out.jsonl --for-matrix training.jsonl [--quants Q2_K,Q3_K_M,...]

The reference is the merged model in BF16. For every question this measures the KL divergence (in nats) of the levels and the
letters from the reference, and whether the level or the letter changes. The effect of the matrix is a paired difference over
questions, with a 95 % bootstrap interval. Letter probabilities are those after each model's own level. The importance matrix
is collected from the reference with the questions of --for-matrix, which must not contain any of --questions.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
from typing import Any

import numpy as np
from tqdm import tqdm

from convert import imatrix
from convert.adapter import export_adapter
from convert.export import Conversion, export
from edge_agent.core.question import Question
from edge_agent.core.records import Reading
from edge_agent.engine.local_model import LocalModel
from edge_agent.measure.sets import loading

LADDER = "Q2_K,Q3_K_M,IQ4_XS,Q4_0,Q4_K_M,Q5_K_M,Q6_K,Q8_0"
RESAMPLES = 2000


def read(path: pathlib.Path, questions: list[Question], adapter: pathlib.Path | None = None) -> list[Reading]:
    """The readings of all questions by one file."""
    with LocalModel(path, adapter=adapter) as model:
        return [model.read(question) for question in tqdm(questions, desc=path.name, unit="question", leave=False, disable=None)]


def divergence(reference: list[Reading], readings: list[Reading]) -> np.ndarray:
    """KL(reference, other) of levels plus letters, in nats; shape (questions,)."""

    def kl(p: tuple[float, ...], q: tuple[float, ...]) -> float:
        a, b = (np.maximum(np.array(values, np.float64), 1e-12) for values in (p, q))
        return float((a * np.log(a / b)).sum())

    pairs = zip(reference, readings, strict=True)
    return np.array([kl(a.level_probs, b.level_probs) + kl(a.answer_probs, b.answer_probs) for a, b in pairs])


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean."""
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def row(name: str, path: pathlib.Path, reference: list[Reading], readings: list[Reading], tau: float) -> dict[str, Any]:
    """One line of the table."""
    kl, pairs = divergence(reference, readings), list(zip(reference, readings, strict=True))
    return {
        "model": name, "mb": path.stat().st_size / 1e6, "kl": float(kl.mean()), "kl_interval": interval(kl),
        "other_level": float(np.mean([a.level != b.level for a, b in pairs])),
        "other_letter": float(np.mean([a.letter != b.letter for a, b in pairs])),
        "other_route": float(np.mean([(a.confidence >= tau) != (b.confidence >= tau) for a, b in pairs])),
    }  # fmt: skip


def main() -> None:
    """Convert, read and compare. Prints a table, and writes one JSON line for each row to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=pathlib.Path)
    parser.add_argument("adapter", type=pathlib.Path)
    parser.add_argument("--questions", type=pathlib.Path, required=True)
    parser.add_argument("--for-matrix", type=pathlib.Path, required=True)
    parser.add_argument("--quants", default=LADDER)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--tau", type=float, default=0.5)
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    questions = [labelled.question for labelled in loading.load(arguments.questions, arguments.limit).rows]
    training = [labelled.question for labelled in loading.load(arguments.for_matrix, 500).rows]
    quants = arguments.quants.split(",")
    with tempfile.TemporaryDirectory() as scratch:
        compare(arguments, pathlib.Path(scratch), quants, questions, training)


def compare(
    arguments: argparse.Namespace, out: pathlib.Path, quants: list[str], questions: list[Question], training: list[Question]
) -> None:
    """Measure one quantization after another."""
    base, adapter = arguments.base, arguments.adapter
    reference_file = export(Conversion(base, [adapter], ["BF16"], "merged"), out)[0].path
    lora = export_adapter(base, [adapter], out, "lora").path
    imatrix.save(imatrix.collect(reference_file, training), out / "matrix.gguf", arguments.for_matrix.name)
    plain = {f.quantization: f.path for f in export(Conversion(base, [adapter], quants, "plain"), out)}
    helped = {f.quantization: f.path for f in export(Conversion(base, [adapter], quants, "imatrix", matrix=out / "matrix.gguf"), out)}
    bases = {f.quantization: f.path for f in export(Conversion(base, [], ["BF16", *quants], "base"), out)}
    reference = read(reference_file, questions)

    def report(name: str, path: pathlib.Path, readings: list[Reading]) -> None:
        found = row(name, path, reference, readings, arguments.tau)
        low, high = found["kl_interval"]
        changed = " ".join(f"{found[key]:7.2%}" for key in ("other_level", "other_letter", "other_route"))
        print(f"{name:26} {found['mb']:8.1f} MB  KL {found['kl']:.5f} [{low:.5f}, {high:.5f}]  level, letter, route {changed}", flush=True)
        if arguments.out:
            with arguments.out.open("a") as file:
                file.write(json.dumps({"questions": len(questions), **found}) + "\n")

    report("BF16, base + adapter", bases["BF16"], read(bases["BF16"], questions, lora))
    for quant in quants:
        without, with_matrix = read(plain[quant], questions), read(helped[quant], questions)
        report(quant, plain[quant], without)
        report(f"{quant}, imatrix", helped[quant], with_matrix)
        gain = divergence(reference, without) - divergence(reference, with_matrix)
        low, high = interval(gain)
        print(f"{'':26} the matrix reduces the KL by {gain.mean():.5f} [{low:.5f}, {high:.5f}]", flush=True)
        report(f"{quant} base + adapter", bases[quant], read(bases[quant], questions, lora))


if __name__ == "__main__":
    main()
