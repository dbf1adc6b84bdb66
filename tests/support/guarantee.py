"""Draws many calibration sets from a pool of answered questions, and judges each calibration by the whole pool.

Owns the experiment that shows that a guarantee holds, and that it has power. `benchmarks/guarantee.py` runs it on the demo model,
the tests on a small pool. Invariant: the calibrations are made by `fit` itself, as for a person.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_agent.core.records import ModelFacts
from edge_agent.measure.calibrate import ltt
from edge_agent.measure.calibrate.choose import Ranking
from edge_agent.measure.calibrate.fit import fit
from edge_agent.measure.calibrate.goals import MAX_LOCAL_ERROR, Goal
from edge_agent.measure.calibrate.split import WITH_TEST
from edge_agent.measure.results import CloudSource, Floats, Results

DELTA = 0.05
_LEVEL = ("expected_confidence", "confidence")  # the readouts that need no letter
ENOUGH = 0.9  # an exact test of the test part's size must find a tau with this probability, for it to be a target of the power
SHARES = np.linspace(0.01, 1, 100)


def results_of(
    correct: Floats, scores: dict[str, Floats], no_confidence: np.ndarray | None = None, prefix: str = "question", **columns: object
) -> Results:
    """Results with these columns, of a model that is named by its hash only."""
    n = len(correct)
    nothing = np.full(n, np.nan)
    return Results(**{
        "model": ModelFacts("model", "a" * 64, "Q8_0", "qwen3", "{}"),
        "profile_sha256": "b" * 64,
        "cloud": CloudSource(),
        "ids": tuple(map(str, range(n))),
        "fingerprints": tuple(f"{prefix} {i}" for i in range(n)),
        "domains": ("all",) * n,
        "edge_correct": correct,
        "cloud_correct": nothing,
        "agrees": nothing,
        "no_confidence": np.zeros(n, dtype=bool) if no_confidence is None else no_confidence,
        "read_ms": nothing,
        "scores": scores,
        **columns,
    })  # fmt: skip


def synthetic(n: int, seed: int = 0) -> Results:
    """A pool like the demo model's: four fifths are right, most of them surely, and one in twelve of the sure answers is wrong.

    Its `expected_confidence` ranks well, `confidence` is that as a level of five, and 0.2 % have no confidence.
    """
    rng = np.random.default_rng(seed)
    rank = rng.random(n)  # of how hard a question is
    error = 1 / (1 + np.exp(-(10 * rank - 7)))
    correct = (rng.random(n) > error).astype(float)
    expected = np.clip(1 - 0.9 * rank**3 + 0.02 * rng.standard_normal(n), 0, 1)
    level = np.round(np.clip(expected + 0.1 * rng.standard_normal(n), 0, 1) * 4) / 4
    return results_of(correct, {"confidence": level, "expected_confidence": expected}, rng.random(n) < 0.002)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How often, of `splits` calibrations: `broken` the error over the pool is above the limit; `found` a tau was found; `good` it also
    keeps at least 0.8 of the share of the `target`: the largest share whose error is at most 0.7 of the limit and that a test
    of this size finds with probability `ENOUGH`; None if there is none. `mean_share` is what was kept where a tau was found.
    `empirical` is how often a mutant breaks the limit: the largest share whose
    observed error is at most the limit, without a test. `possible` is the power of a test of the best cut of all, which only the pool
    knows.
    """

    limit: float
    n: int
    splits: int
    broken: float
    found: float
    good: float
    target: float | None
    mean_share: float
    empirical: float
    possible: float


def most_broken(splits: int, delta: float = DELTA) -> float:
    """The share of broken limits that a true probability of `delta` exceeds in one experiment of 1,000."""
    from scipy.stats import binom

    return float(binom.ppf(0.999, splits, delta)) / splits


def least_found(splits: int, chance: float = 0.8) -> float:
    """The share found that a true chance of 0.8 falls below in one experiment of 1,000."""
    from scipy.stats import binom

    return float(binom.ppf(0.001, splits, chance)) / splits


def experiment(pool: Results, limit: float, n: int, splits: int, seed: int = 0, with_replacement: bool = False) -> Outcome:
    """Calibrate on `splits` draws of `n` questions, and judge each by the pool."""
    rng = np.random.default_rng([seed, n, round(1000 * limit)])
    goal = Goal(MAX_LOCAL_ERROR, limit, DELTA)
    rankings = {name: Ranking.of(scores, ~pool.no_confidence, 1 - pool.edge_correct) for name, scores in pool.scores.items()}
    target, possible = targets(rankings, limit, round(WITH_TEST[1] * n))
    broken = found = good = empirical = 0
    shares = []
    for number in range(splits):
        drawn = _drawn(pool, rng.choice(len(pool), n, replace=with_replacement))
        made = fit(drawn, goal, data="pool", data_sha256=f"{seed:08x}{n:08x}{number:048x}", created_at="2026-01-01T00:00:00Z")
        if made.calibration:
            kept, wrong = kept_and_wrong(rankings[made.readout], made.calibration.tau, made.calibration.tie_share)
            found += 1
            broken += wrong > limit * kept
            good += target is not None and kept / len(pool) >= 0.8 * target
            shares.append(kept / len(pool))
        empirical += _empirical_breaks(rankings[_readouts(rankings)[0]], drawn, limit)
    mean = float(np.mean(shares)) if shares else math.nan
    return Outcome(limit, n, splits, broken / splits, found / splits, good / splits, target, mean, empirical / splits, possible)


def _readouts(scores: Mapping[str, object]) -> tuple[str, ...]:
    """The readouts that need no letter; those of a plain model, which has no levels, all need one."""
    return _LEVEL if _LEVEL[0] in scores else tuple(scores)


def kept_and_wrong(ranking: Ranking, tau: float, tie_share: float) -> tuple[float, float]:
    """How many questions of a pool a tau keeps, and how many of them are wrong, on average over all draws."""
    counts, wrong = np.r_[0.0, ranking.counts], np.r_[0.0, ranking.wrong]
    above, at_least = (int(np.searchsorted(-ranking.values, -tau, side=side)) for side in ("left", "right"))
    kept, errors = (all_[above] + (1 - tie_share) * (all_[at_least] - all_[above]) for all_ in (counts, wrong))
    return float(kept), float(errors)


def targets(rankings: Mapping[str, Ranking], limit: float, n_test: int) -> tuple[float | None, float]:
    """The share that should be found (see `Outcome`), and the power of a test of the best cut of all, which only the pool knows."""
    best, possible = None, 0.0
    for ranking in (rankings[name] for name in _readouts(rankings)):
        keep = ranking.n_kept * SHARES
        error, share = ranking.errors(keep) / keep, keep / ranking.n
        power = ltt.power(np.floor(share * n_test), error, limit, DELTA)
        possible = max(possible, float(power.max()))
        reached = share[(error <= 0.7 * limit) & (power >= ENOUGH)]
        if len(reached) and (best is None or reached.max() > best):
            best = float(reached.max())
    return best, possible


def _drawn(pool: Results, at: np.ndarray) -> Results:
    """The drawn questions; drawn twice, a question counts as another one."""
    scores = {name: column[at] for name, column in pool.scores.items()}
    return results_of(pool.edge_correct[at], scores, pool.no_confidence[at])


def _empirical_breaks(pool: Ranking, drawn: Results, limit: float) -> bool:
    """Whether the mutant breaks the limit: the most that is kept with an observed error of at most the limit, without any test."""
    ranking = Ranking.of(drawn.scores[_readouts(drawn.scores)[0]], ~drawn.no_confidence, 1 - drawn.edge_correct)
    fine = np.flatnonzero(ranking.wrong <= limit * ranking.counts)
    if not len(fine):
        return False
    kept, wrong = kept_and_wrong(pool, float(ranking.values[fine[-1]]), 0.0)
    return wrong > limit * kept
