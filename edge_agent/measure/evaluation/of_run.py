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
from edge_agent.measure.run.run import Run
from edge_agent.model.answers import parse


def evaluate_run(run: Run, tau: float | None = None) -> Evaluation:
    """All figures of a run; `tau` is that of the model's profile by default. Raises `BadData` without rows."""
    profile = run.facts.profile
    return evaluate(run.results(), profile.levels, profile.tau if tau is None else tau, beside(run))


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
        notes=run.facts.notes,
    )


def _agreed(row: AnsweredRow, name: str) -> float:
    agreed = row.extra[name].agreed if name in row.extra else None
    return np.nan if agreed is None else float(agreed)


def _same(row: AnsweredRow) -> bool:
    level, letter = parse(row.printed or "")
    return level == row.reading.confidence and (not isinstance(row.reading, Reading) or letter == row.reading.letter)
