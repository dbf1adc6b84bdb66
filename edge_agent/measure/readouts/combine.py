"""Fits the weights of the readout `combined`: one logistic function of the numbers that a reading holds.

Owns the split into halves and the fit. The formula is `core.readouts`'. Invariant: which half a question is in depends on the
question alone, so what is measured on one half was never seen by a fit on the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edge_agent.core import readouts, routing
from edge_agent.core.errors import BadData
from edge_agent.core.installation import install_command

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

PARTS = (readouts.CONFIDENCE, readouts.EXPECTED, readouts.ANSWER_PROB, readouts.MARGIN)
"""The readouts that are combined, in the order of the weights after the constant."""
L2 = 1e-3
"""The penalty on the mean loss; it keeps weights finite where the halves can be told apart exactly."""


def fitting_half(fingerprints: Sequence[str], salt: str = "combine") -> Bools:
    """True for the questions to fit on, about half of them; the others are to measure on. Shape (n,)."""
    return np.array([routing.draw(fingerprint, salt) < 0.5 for fingerprint in fingerprints], bool)


def fit(scores: Mapping[str, Floats], correct: npt.ArrayLike) -> tuple[float, ...] | None:
    """The weights (constant, then `PARTS`) that best predict `correct` (0 or 1; nan is left out), by logistic regression.

    None where there is nothing to fit: a part is missing (answers in words have no letter), or all answers are right or all
    wrong. Raises `BadData` without scipy.
    """
    right = np.asarray(correct, np.float64)
    if not all(part in scores for part in PARTS):
        return None
    known = ~np.isnan(right)
    terms, right = _terms(scores)[known], right[known]
    if not len(right) or right.min() == right.max():
        return None
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise BadData(f"The combined readout is fitted by scipy, which is not installed; run: {install_command('calibrate')}") from error
    penalty = L2 * np.array([0.0, *(1.0 for _ in PARTS)])  # the constant is free

    def loss(weights: Floats) -> tuple[float, Floats]:
        total = terms @ weights
        error = 1 / (1 + np.exp(-np.clip(total, -500, 500))) - right
        value = np.mean(np.logaddexp(0.0, total) - right * total) + 0.5 * np.sum(penalty * weights**2)
        return float(value), terms.T @ error / len(right) + penalty * weights

    found = minimize(loss, np.zeros(1 + len(PARTS)), jac=True, method="L-BFGS-B")
    return tuple(float(weight) for weight in found.x)


def scores(columns: Mapping[str, Floats], weights: Sequence[float]) -> Floats:
    """The combined score of every question, (n,); the same as `core.readouts.score` of its reading, to the bit."""
    return np.array([readouts.combined(weights, tuple(map(float, row[1:]))) for row in _terms(columns)], np.float64)


def _terms(columns: Mapping[str, Floats]) -> Floats:
    """A constant and the parts, (n, 5)."""
    parts = [np.asarray(columns[part], np.float64) for part in PARTS]
    return np.column_stack([np.ones(len(parts[0])), *parts])
