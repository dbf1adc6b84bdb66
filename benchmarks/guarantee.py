"""Does the guarantee of `edge-agent calibrate --max-local-error` hold, and does it find what there is?

    python -m benchmarks.guarantee [--questions 10000] [--splits 1000] [--quantizations F16,Q8_0,Q4_K_M,Q4_0] [--with-replacement]

Each quantization of the demo model answers held-out questions of the bank once; the answers are kept in build/guarantee. Calibration sets
are then drawn from them, without replacement, and each calibration is judged by the error over the whole pool. Drawing without
replacement makes the errors of a test part hypergeometric, which spreads less than the binomial of independent questions, and so breaks
a limit a little less often; --with-replacement draws independent questions, for which the binomial is exact.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time
from dataclasses import asdict

import numpy as np

from edge_agent.core import readouts
from edge_agent.core.question import Question
from edge_agent.core.records import Reading
from edge_agent.engine.local_model import LocalModel
from edge_agent.measure.results import Results
from models.recipe.bank import DOMAINS, draw_many
from tests.support.guarantee import DELTA, Outcome, experiment, most_broken, results_of
from tests.support.paths import ROOT

FOLDER = ROOT / "build" / "guarantee"
QUANTIZATIONS = ("F16", "Q8_0", "Q4_K_M", "Q4_0")
LIMITS, SIZES = (0.05, 0.1, 0.2), (50, 100, 200, 500, 1000, 2000)
SEED = 15
_READ = (readouts.CONFIDENCE, readouts.EXPECTED, readouts.ANSWER_PROB, readouts.MARGIN)


def pool(quantization: str, n: int) -> Results:
    """The demo model's answers to `n` held-out questions, asked once and kept in build/guarantee."""
    path = FOLDER / f"{quantization}-{n}.npz"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **answers(ROOT / "models" / "demo" / f"FogGen-demo-{quantization}.gguf", n))
    with np.load(path) as columns:
        scores = {name: columns[name] for name in _READ}
        return results_of(columns["correct"], scores, columns["no_confidence"], fingerprints=tuple(columns["fingerprints"].tolist()))


def answers(path: pathlib.Path, n: int) -> dict[str, np.ndarray]:
    """The columns of one model file's answers."""
    items = [item for domain in DOMAINS for item in draw_many(SEED, -(-n // len(DOMAINS)), "test", domain)][:n]
    rows, fingerprints = [], []
    with LocalModel(path) as model:
        for item in items:
            question = Question(item.stem, item.options)
            reading = model.read(question)
            assert isinstance(reading, Reading)
            right = reading.letter in question.same_as(item.letter)
            rows.append([right, reading.format_mass < model.profile.format_mass_min, *(readouts.score(reading, name) for name in _READ)])
            fingerprints.append(question.fingerprint)
    correct, no_confidence, *scores = np.array(rows, dtype=float).T
    columns = {"correct": correct, "no_confidence": no_confidence > 0, "fingerprints": np.array(fingerprints)}
    return columns | dict(zip(_READ, scores, strict=True))


def line(quantization: str, found: Outcome) -> str:
    """One line of the table."""
    target = "none" if found.target is None else f"{found.target:.0%}"
    good = "" if found.target is None else f"{found.good:.1%}"
    share = f"{found.mean_share:.0%}" if found.found else ""
    return (
        f"| {quantization} | {found.limit:.0%} | {found.n:,} | {found.broken:.1%} | {found.empirical:.1%} | {1 - found.found:.1%} "
        f"| {share} | {target} | {good} | {found.possible:.1%} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--splits", type=int, default=1_000)
    parser.add_argument("--quantizations", default=",".join(QUANTIZATIONS))
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--with-replacement", action="store_true")
    parser.add_argument("--json", type=pathlib.Path, help="Also write the figures to this file.")
    wanted = parser.parse_args()
    started, rows = time.monotonic(), []
    print(
        "| file | limit | questions | broken | broken without a test | no tau | kept | target | found and kept 0.8 of it | best possible |"
    )
    print("|" + "---|" * 10)
    for quantization in wanted.quantizations.split(","):
        answered = pool(quantization, wanted.questions)
        for limit in LIMITS:
            for n in map(int, wanted.sizes.split(",")):
                found = experiment(answered, limit, n, wanted.splits, SEED, wanted.with_replacement)
                rows.append({"quantization": quantization, **asdict(found)})
                print(line(quantization, found), flush=True)
    worst, weakest = max(row["broken"] for row in rows), min((row["good"] for row in rows if row["target"] is not None), default=1.0)
    allowed = most_broken(wanted.splits)
    print(f"\nThe limit is broken in at most {worst:.1%} of the splits; {DELTA:.0%} are allowed, {allowed:.1%} with Monte-Carlo error.")
    print(f"Where there is a target, at least {weakest:.1%} of the splits find it. {time.monotonic() - started:.0f} s.")
    if wanted.json:
        wanted.json.write_text(json.dumps({"delta": DELTA, "splits": wanted.splits, "rows": rows}, indent=1) + "\n")
    if worst > allowed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
