"""How long the metrics take over many questions, beside scikit-learn where it has the same figure.

    python -m benchmarks.metrics [--rows 1000000] [--sample 16200]

Each time is the best of three, in milliseconds, over `rows` questions: with the five levels as the score and with a continuous one.
The last column is the 95 % interval of the figure from 1,000 resamples of `sample` questions with a continuous score, in seconds.
scikit-learn's column is empty where it has no such figure or is not installed. All answers are drawn; no model runs.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edge_agent.measure import metrics
from edge_agent.measure.bench import machine

LEVELS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
Columns = Mapping[str, np.ndarray]
Case = tuple[metrics.Metric[...], tuple[str, ...], dict[str, Any]]
SCORED, ROUTED = ("score", "edge"), ("score", "edge", "cloud")
CASES: dict[str, Case] = {
    "AUROC": (metrics.auroc, SCORED, {}),
    "AUROC of the benefit": (metrics.auroc_of_benefit, ROUTED, {}),
    "graded benefit": (metrics.benefit_concordance, ROUTED, {}),
    "ECE": (metrics.ece, SCORED, {"levels": LEVELS}),
    "Brier": (metrics.brier, SCORED, {}),
    "AURC": (metrics.aurc, SCORED, {}),
    "E-AURC": (metrics.e_aurc, SCORED, {}),
    "accuracy at coverage": (metrics.accuracy_at_coverage, SCORED, {"coverage": 0.8}),
    "APGR": (metrics.apgr, ROUTED, {}),
    "CPT(50 %)": (metrics.cpt, ROUTED, {"share": 0.5}),
    "lift": (metrics.system_lift, ("edge", "cloud", "deferred"), {}),
    "delta-IBC": (metrics.system_delta_ibc, ("edge", "cloud", "deferred"), {"edge_cost": 1, "cloud_cost": 50}),
    "oracle": (metrics.oracle_accuracy, ("edge", "cloud"), {"rate": 0.2}),
}


def questions(n: int) -> tuple[Columns, Columns]:
    """Answers of a model whose score is the chance that it is right: by level, and continuous."""
    rng = np.random.default_rng(0)
    score = rng.random(n)
    answers = {"edge": (rng.random(n) < score).astype(float), "cloud": (rng.random(n) < 0.8).astype(float)}
    by_level = np.round(score * 4) / 4
    return {**answers, "score": by_level, "deferred": by_level < 0.5}, {**answers, "score": score, "deferred": score < 0.5}


def best_ms(work: Callable[[], object]) -> float:
    """The shortest of three runs, in milliseconds."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times) * 1000


def peers(columns: Columns) -> dict[str, Callable[[], object]]:
    """The same figures of scikit-learn, if it is installed."""
    try:
        from sklearn import metrics as peer
    except ImportError:
        return {}
    helped = (1 - columns["edge"]) * columns["cloud"]
    return {
        "AUROC": lambda: peer.roc_auc_score(columns["edge"], columns["score"]),
        "AUROC of the benefit": lambda: peer.roc_auc_score(helped, -columns["score"]),
        "Brier": lambda: peer.brier_score_loss(columns["edge"], columns["score"]),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--sample", type=int, default=16_200)
    args = parser.parse_args()
    by_level, continuous = questions(args.rows)
    _, sample = questions(args.sample)
    theirs = peers(continuous)
    total, resampling = 0.0, 0.0
    print(f"{args.rows:,} questions, numpy {np.__version__}, {machine.describe(1).processor}")
    print(f"{'figure':22}{'levels ms':>11}{'continuous ms':>15}{'scikit-learn ms':>17}{'interval s':>12}")
    for name, (figure, names, parameters) in CASES.items():
        level_ms, continuous_ms = (
            best_ms(functools.partial(figure, *(columns[column] for column in names), **parameters)) for columns in (by_level, continuous)
        )
        started = time.perf_counter()
        metrics.bootstrap(figure, *(sample[column] for column in names), **parameters)
        interval_s = time.perf_counter() - started
        peer_ms = f"{best_ms(theirs[name]):.0f}" if name in theirs else ""
        print(f"{name:22}{level_ms:11.0f}{continuous_ms:15.0f}{peer_ms:>17}{interval_s:12.2f}")
        total, resampling = total + level_ms + continuous_ms, resampling + interval_s
    curves_ms = best_ms(lambda: metrics.deferral_curve(continuous["score"], continuous["edge"], continuous["cloud"]))
    rate_ms = best_ms(lambda: metrics.threshold_for_rate(continuous["score"], 0.2))
    started = time.perf_counter()
    columns = [by_level[name] for name in ROUTED]
    metrics.bootstrap(metrics.apgr, *columns)
    print(f"deferral curve {curves_ms:.0f} ms, threshold for a rate {rate_ms:.0f} ms (continuous)")
    print(f"interval of APGR over all {args.rows:,} questions by level: {time.perf_counter() - started:.2f} s")
    print(f"all figures, both scores: {total / 1000:.1f} s; all intervals: {resampling:.1f} s")


if __name__ == "__main__":
    main()
