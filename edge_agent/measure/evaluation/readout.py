"""All figures of one readout, and its differences to the printed level.

Owns which metrics are computed from which columns. Invariants: two readouts are compared on the same questions, drawn together, and
by the same definition as each alone: a figure of routing rates the routed score, a figure of the answers the score itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edge_agent.measure import metrics
from edge_agent.measure.evaluation import routed
from edge_agent.measure.evaluation.figures import Bin, Compared, Readout
from edge_agent.measure.evaluation.routed import Floats, Scored
from edge_agent.measure.metrics import Threshold

COVERAGES = (0.5, 0.8, 0.9)
MOST_FOR_INTERVALS = 250_000
"""More questions get no bootstrap intervals: these would take minutes, and be narrower than half a point."""
_MOST_CELLS = 10_000_000  # questions x draws of a bootstrap: about a second
_LEAST_DRAWS, _DRAWS = 100, 1000


def figures(scored: Scored, printed: Scored, levels: Sequence[float], tau: float, passes: float, ms: float, other: str) -> Readout:
    """Everything about one readout; `printed` holds the same questions with the printed level, or what stands for it: the `other`.

    Without an `other` it is that itself.
    """
    deferred = scored.deferred(Threshold(tau, 0.0))
    domains, mean = routed.table(scored, Threshold(tau, 0.0))
    whole = routed.line("", scored.edge, scored.cloud, deferred)
    rate = float(printed.deferred(Threshold(tau, 0.0)).mean()) if len(deferred) else math.nan
    right = _is_right(scored.edge)
    answers, cloud = scored.answers, scored.has_cloud
    return Readout(
        questions=len(deferred),
        passes=passes,
        ms=ms,
        auroc=metrics.auroc(scored.score, right),
        auroc_of_benefit=metrics.auroc_of_benefit(*answers) if cloud else math.nan,
        ece=metrics.ece(scored.score, scored.edge, levels),
        brier=metrics.brier(scored.score, scored.edge),
        aurc=metrics.aurc(scored.score, scored.edge),
        accuracy_at={f"{share:g}": metrics.accuracy_at_coverage(scored.score, scored.edge, share) for share in COVERAGES},
        apgr=metrics.apgr(*answers) if cloud else math.nan,
        cpt_20=metrics.cpt(*answers, share=0.2) if cloud else math.nan,
        cpt_50=metrics.cpt(*answers, share=0.5) if cloud else math.nan,
        cpt_80=metrics.cpt(*answers, share=0.8) if cloud else math.nan,
        routed=whole.routed,
        pgr=metrics.pgr(whole.edge, whole.cloud, whole.system),
        oracle=metrics.oracle_accuracy(scored.edge, scored.cloud, whole.routed) if cloud else math.nan,
        ibc=_ibc(scored, whole.system, whole.edge, deferred),
        delta_ibc=metrics.system_delta_ibc(scored.edge, scored.cloud, deferred, 0.0, scored.cost) if cloud else math.nan,
        same_rate=metrics.accuracy_at_rate(*answers, rate) if cloud else math.nan,
        domains=domains,
        mean=mean,
        reliability=reliability(scored, levels),
        targets=routed.targets(scored),
        intervals=intervals(scored, deferred) if len(deferred) <= MOST_FOR_INTERVALS else {},
        compared=() if not other or len(deferred) > MOST_FOR_INTERVALS else compared(scored, printed, rate, other),
    )


def reliability(scored: Scored, levels: Sequence[float]) -> tuple[Bin, ...]:
    """How right the answers are whose score is nearest to each level."""
    found = metrics.reliability(scored.score, scored.edge, levels)
    columns = (found.level, found.n, found.mean_confidence, found.accuracy, found.low, found.high)
    return tuple(Bin(float(level), int(n), *map(float, others)) for level, n, *others in zip(*columns, strict=True))


def intervals(scored: Scored, deferred: routed.Bools) -> dict[str, tuple[float, float]]:
    """The 95 % bootstrap intervals over questions. ECE has none: see `metrics.ece`."""
    n_draws = _n_draws(scored)
    found = {
        "auroc": metrics.bootstrap(metrics.auroc, scored.score, _is_right(scored.edge), n_draws=n_draws),
        "brier": metrics.bootstrap(metrics.brier, scored.score, scored.edge, n_draws=n_draws),
    }
    if scored.has_cloud:
        found["apgr"] = metrics.bootstrap(metrics.apgr, *scored.answers, n_draws=n_draws)
        found["lift"] = metrics.bootstrap(metrics.system_lift, scored.edge, scored.cloud, deferred, n_draws=n_draws)
    return {name: (each.low, each.high) for name, each in found.items()}


def compared(scored: Scored, printed: Scored, rate: float, other: str) -> tuple[Compared, ...]:
    """The differences to the `other`, usually the printed level: AUROC, APGR, and the accuracy where both defer the same share `rate`."""
    n_draws = _n_draws(scored)
    found = [
        metrics.paired_difference(
            metrics.auroc, (scored.score, _is_right(scored.edge)), (printed.score, _is_right(printed.edge)), n_draws=n_draws
        )
    ]
    if scored.has_cloud:
        both = scored.answers, printed.answers
        found.append(metrics.paired_difference(metrics.apgr, *both, n_draws=n_draws))
        found.append(metrics.paired_difference(metrics.accuracy_at_rate, *both, n_draws=n_draws, rate=rate))
    return tuple(
        Compared(name, each.difference, each.interval.low, each.interval.high, _better(each.interval, other))
        for name, each in zip(("auroc", "apgr", "same_rate"), found, strict=False)
    )


def _n_draws(scored: Scored) -> int:
    return max(_LEAST_DRAWS, min(_DRAWS, _MOST_CELLS // max(1, len(scored.score))))


def _better(interval: metrics.Interval, other: str) -> str:
    return "this" if interval.low > 0 else other if interval.high < 0 else ""


def _is_right(edge: Floats) -> Floats:
    """Right or wrong, where AUROC needs it: a graded answer is right from 0.5 on."""
    return (edge >= 0.5).astype(np.float64)


def _ibc(scored: Scored, system: float, edge: float, deferred: routed.Bools) -> float:
    return metrics.ibc(system, edge, float(np.mean(np.where(deferred, scored.cost, 0.0))), 0.0) if scored.has_cloud else math.nan
