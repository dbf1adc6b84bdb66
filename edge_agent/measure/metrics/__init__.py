"""The metrics of routing and calibration: pure functions over arrays and accuracies, under the names that the field uses.

Owns the list of names; the formulas, with their sources, stand in the files beside. Does not know models, files or questions. Every
share is a fraction 0 to 1, never a percentage. Invariant: an undefined figure (no data, only one class, no gap) is nan, never a
made-up number, and input that cannot be a share raises `BadData`.

Arrays have one dimension and one entry for each question, of anything that numpy converts to floats. `edge_correct` and
`cloud_correct` are 1 where that model is right and 0 where it is wrong (or, for a simulated cloud, the probability of being
right). `confidence` is the score of the edge model, of any readout. `deferred` is true where the cloud was asked.

A `Metric` is a function of such columns that returns a float; `bootstrap` and `paired_difference` take one and give its interval:

    auroc(score, right)
    bootstrap(auroc, score, right)
    paired_difference(auroc, (score, right), (other_score, right))
"""

from edge_agent.measure.metrics.calibration import Reliability, brier, ece, kl_divergence, reliability
from edge_agent.measure.metrics.columns import Metric, metric
from edge_agent.measure.metrics.costs import CostCurve, call_costs, cost_accuracy_curve, delta_ibc, ibc, system_delta_ibc
from edge_agent.measure.metrics.intervals import Difference, Interval, bootstrap, bootstrap_mean, mean, paired_difference, wilson
from edge_agent.measure.metrics.ranking import auroc, auroc_of_benefit, benefit_concordance
from edge_agent.measure.metrics.routing import (
    Curve,
    DeferralCurve,
    accuracy_at_rate,
    apgr,
    cpt,
    deferral_curve,
    lift,
    oracle_accuracy,
    oracle_curve,
    pgr,
    random_accuracy,
    random_line,
    system_accuracy,
    system_lift,
    system_pgr,
)
from edge_agent.measure.metrics.selective import RiskCoverage, accuracy_at_coverage, aurc, e_aurc, risk_coverage_curve
from edge_agent.measure.metrics.thresholds import (
    AchievedRate,
    Threshold,
    achieved_rate,
    deferred_by,
    threshold_for_accuracy,
    threshold_for_cost,
    threshold_for_rate,
)

__all__ = [
    "AchievedRate",
    "CostCurve",
    "Curve",
    "DeferralCurve",
    "Difference",
    "Interval",
    "Metric",
    "Reliability",
    "RiskCoverage",
    "Threshold",
    "accuracy_at_coverage",
    "accuracy_at_rate",
    "achieved_rate",
    "apgr",
    "aurc",
    "auroc",
    "auroc_of_benefit",
    "benefit_concordance",
    "bootstrap",
    "bootstrap_mean",
    "brier",
    "call_costs",
    "cost_accuracy_curve",
    "cpt",
    "deferral_curve",
    "deferred_by",
    "delta_ibc",
    "e_aurc",
    "ece",
    "ibc",
    "kl_divergence",
    "lift",
    "mean",
    "metric",
    "oracle_accuracy",
    "oracle_curve",
    "paired_difference",
    "pgr",
    "random_accuracy",
    "random_line",
    "reliability",
    "risk_coverage_curve",
    "system_accuracy",
    "system_delta_ibc",
    "system_lift",
    "system_pgr",
    "threshold_for_accuracy",
    "threshold_for_cost",
    "threshold_for_rate",
    "wilson",
]
