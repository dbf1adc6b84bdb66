"""Evaluates a run: its rows become columns, and the columns figures.

Owns the way from a run to what `evaluate` takes. Works from a run file as well as from a run just made; the model is not needed.
"""

from __future__ import annotations

import numpy as np

from edge_agent.core.records import Reading
from edge_agent.measure.evaluation.evaluate import Beside, evaluate
from edge_agent.measure.evaluation.figures import Evaluation
from edge_agent.measure.readouts.orders import ORDERS_2, ORDERS_ALL
from edge_agent.measure.run.answered import AnsweredRow
from edge_agent.measure.run.reader import GOLDS_BETWEEN
from edge_agent.measure.run.run import Run
from edge_agent.measure.sets import grading
from edge_agent.model.answers import parse
from edge_agent.model.calibration import Calibration


def evaluate_run(run: Run, tau: float | None = None, calibration: Calibration | None = None) -> Evaluation:
    """All figures of a run; `tau` is that of the model's profile by default. Raises `BadData` without rows.

    With a `calibration`, which must be this model's, there is also what the device does by it.
    """
    profile = run.facts.profile
    return evaluate(run.results(), profile.levels, profile.tau if tau is None else tau, beside(run), calibration)


def beside(run: Run) -> Beside:
    """What the rows know beside the results."""
    rows = run.rows
    extras = sorted({name for row in rows for name in row.extra})
    orders = [name for name in extras if name in (ORDERS_2, ORDERS_ALL)]
    was_printed = any(row.printed is not None for row in rows)
    return Beside(
        difficulties=tuple(row.difficulty for row in rows),
        correct={name: run.answers_by_order(name) for name in orders},
        agreed={name: np.array([_agreed(row, name) for row in rows], np.float64) for name in orders},
        ms={name: float(np.mean([row.extra[name].ms for row in rows if name in row.extra])) for name in extras},
        keeps_format=np.array([row.keeps_format for row in rows], np.float64) if was_printed else None,
        same_as_printed=np.array([_same(row) for row in rows], np.float64) if was_printed else None,
        f1=_f1(run),
        notes=run.facts.notes,
    )


def _f1(run: Run) -> float:
    """SQuAD's mean F1 of the answers; nan for other sets."""
    if run.facts.form != "squad":
        return np.nan
    return float(np.mean([grading.f1(row.reading.answer, row.gold.split(GOLDS_BETWEEN)) for row in run.rows]))


def _agreed(row: AnsweredRow, name: str) -> float:
    agreed = row.extra[name].agreed if name in row.extra else None
    return np.nan if agreed is None else float(agreed)


def _same(row: AnsweredRow) -> bool:
    level, letter = parse(row.printed or "")
    return level == row.reading.confidence and (not isinstance(row.reading, Reading) or letter == row.reading.letter)
