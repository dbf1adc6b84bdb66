"""Selective prediction: how right the kept answers are when only the surest are kept.

Owns risk and coverage. The cloud plays no part here. Invariant: questions with the same confidence are kept in random order, and
the figures are expected values over that order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_agent.measure.metrics.columns import Floats, Weights, by_level, fraction, metric, ratio, shares


class RiskCoverage(NamedTuple):
    """The effect of every threshold, from the strictest on. All arrays are (k,), with k different confidences.

    Answers with `confidence >= tau` are kept: `coverage` is their share, `risk` their share of wrong answers.
    """

    tau: Floats
    coverage: Floats
    risk: Floats


def risk_coverage_curve(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> RiskCoverage:
    """The risk among the kept answers at every threshold. Source: El-Yaniv & Wiener 2010, JMLR 11. Raises `BadData`."""
    score, right = shares(confidence=confidence, correct=correct)
    values, counts, (wrong,) = by_level(None, score, 1 - right)
    kept, errors = np.cumsum(counts[::-1]), np.cumsum(wrong[::-1])
    return RiskCoverage(values[::-1].copy(), ratio(kept, counts.sum()), np.clip(ratio(errors, kept), 0, 1))


@metric
def aurc(weights: Weights | None, confidence: npt.ArrayLike, correct: npt.ArrayLike) -> Floats:
    """Area under the risk-coverage curve: the mean risk over the coverages 1/n, 2/n, ... 1; 0 to 1, lower is better.

    nan without questions. Source: Geifman, Uziel & El-Yaniv 2019 (ICLR, arXiv 1805.08206), with the expected value where they leave
    the order of ties open. Raises `BadData`.
    """
    score, right = shares(confidence=confidence, correct=correct)
    return _aurc(weights, score, 1 - right)


@metric
def e_aurc(weights: Weights | None, confidence: npt.ArrayLike, correct: npt.ArrayLike) -> Floats:
    """Excess AURC: `aurc` minus that of the best possible order of the same answers; 0 if all right ones come first.

    The best order is computed exactly, not by the paper's approximation for many answers. nan without questions.
    Source: Geifman, Uziel & El-Yaniv 2019 (ICLR, arXiv 1805.08206). Raises `BadData`.
    """
    score, right = shares(confidence=confidence, correct=correct)
    return np.maximum(_aurc(weights, score, 1 - right) - _aurc(weights, right, 1 - right), 0.0)


@metric
def accuracy_at_coverage(weights: Weights | None, confidence: npt.ArrayLike, correct: npt.ArrayLike, coverage: float) -> Floats:
    """The accuracy expected when the share `coverage` of the surest answers is kept; within a level they are drawn at random.

    nan without questions, with a nan coverage, and with a coverage of 0, which keeps nothing. Raises `BadData`.
    """
    score, right = shares(confidence=confidence, correct=correct)
    kept = fraction("coverage", coverage)
    _, counts, (rights,) = by_level(weights, score, right)
    counts, rights = counts[..., ::-1], rights[..., ::-1]
    n_kept = kept * counts.sum(axis=-1)
    before = np.cumsum(counts, axis=-1) - counts
    part = np.clip(ratio(n_kept[..., None] - before, counts), 0, 1)  # of each level
    return np.where(n_kept > 0, np.minimum(ratio(np.nansum(part * rights, axis=-1), n_kept), 1.0), np.nan)


def _aurc(weights: Weights | None, score: Floats, wrong: Floats) -> Floats:
    """With E errors among the N surer answers and the mean error u in a level, its j-th answer has the risk (E + j u) / (N + j),

    which is u + (E - N u) / (N + j): a sum over j is a difference of harmonic numbers.
    """
    _, counts, (errors,) = by_level(weights, score, wrong)
    counts, errors = counts[..., ::-1], errors[..., ::-1]
    after = np.cumsum(counts, axis=-1)
    n_before, errors_before = after - counts, np.cumsum(errors, axis=-1) - errors
    mean = np.divide(errors, counts, out=np.zeros(errors.shape), where=counts > 0)
    n = int(after.max(initial=0))
    harmonic = np.append(0.0, np.cumsum(1 / np.arange(1, n + 1)))
    passed = harmonic[after.astype(np.intp)] - harmonic[n_before.astype(np.intp)]
    risks = errors + (errors_before - n_before * mean) * passed
    return np.clip(ratio(risks.sum(axis=-1), counts.sum(axis=-1)), 0, 1)
