"""A stored run as a report sees it.

Owns what is taken from a run file, and what a person's wishes change in it. Invariant: everything comes from the file; no model and
no cloud is asked.
"""

from __future__ import annotations

import math
import pathlib
from dataclasses import replace

from edge_agent.core import readouts
from edge_agent.core.errors import BadData
from edge_agent.measure.evaluation.of_run import beside
from edge_agent.measure.readouts import combine
from edge_agent.measure.report.measured import Measured, RoutingRule, mean_known
from edge_agent.measure.results import Results
from edge_agent.measure.run.run import Run
from edge_agent.model.calibration import Calibration


def measured(
    run: Run, tau: float | None = None, calibration: Calibration | None = None, cloud_ms: float | None = None, price: float | None = None
) -> Measured:
    """The run by the rule of `calibration`, or else by `tau`, or else by the model's own tau.

    `cloud_ms` and `price` of a call stand in where the run has none. Raises `BadData` if the run has no answers, or if the calibration
    is another model's.
    """
    facts, results = run.facts, run.results()
    if calibration:
        if not calibration.fits(facts.model.sha256, facts.model.adapter_sha256, facts.profile_sha256):
            raise BadData(
                f"The calibration {calibration.sha256[:12]} belongs to another model file than {facts.model.name}; give this model's."
            )
        results = _with_combined(results, calibration)
    rule = RoutingRule(results.reference, facts.profile.tau if tau is None else tau)
    if calibration:
        rule = RoutingRule(calibration.readout, calibration.tau, calibration.tie_share, calibration.salt)
    if rule.readout not in results.scores:
        raise BadData(
            f"The run of {facts.model.name} has no {rule.readout}, which the calibration needs; give a run on questions with options."
        )
    took_ms = mean_known(run.cloud_ms)
    known = beside(run)
    unfinished = () if run.is_complete else (f"The run is not finished: {len(results):,} of {facts.n_questions:,} questions are answered.",)
    return Measured(
        results=results,
        rule=rule,
        beside=replace(known, notes=(*unfinished, *known.notes)),
        data=pathlib.PurePath(facts.data).name or facts.data,  # a page that is mailed names no folders
        data_sha256=facts.data_sha256,
        size_bytes=facts.size_bytes or None,
        cloud_ms=cloud_ms if math.isnan(took_ms) else took_ms,
        price=price,
        calibration=calibration,
    )


def _with_combined(results: Results, calibration: Calibration) -> Results:
    """The results with the combined readout by the calibration's weights, where it uses that and the run has its parts."""
    if calibration.readout != readouts.COMBINED or readouts.ANSWER_PROB not in results.scores:
        return results
    return replace(results, scores={**results.scores, readouts.COMBINED: combine.scores(results.scores, calibration.weights)})
