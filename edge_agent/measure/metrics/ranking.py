"""How well a score puts questions in order: AUROC of correctness, and of the benefit of asking the cloud.

Owns the figures that depend on the order of the score alone: a rising transformation of the score changes none of them.
Invariant: questions with the same score count half, as if their order were drawn.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_agent.core.errors import BadData
from edge_agent.measure.metrics.columns import Floats, Weights, by_level, checked_weights, metric, ratio, shares

_DIGITS = 12  # 0.7 - 0.4 and 0.3 - 0 are one benefit


@metric
def auroc(weights: Weights | None, confidence: npt.ArrayLike, correct: npt.ArrayLike) -> Floats:
    """The probability that a right answer has a higher confidence than a wrong one, 0 to 1; ties count half.

    Uses ranks (Mann-Whitney U), O(n log n). `correct` holds only 0 and 1. nan if all answers are right or all are wrong.
    Source: Hanley & McNeil 1982, Radiology 143(1). Raises `BadData`.
    """
    score, right = shares(confidence=confidence, correct=correct)
    if ((right != 0) & (right != 1)).any():
        raise BadData("Not all entries of correct are 0 or 1; AUROC needs answers that are right or wrong.")
    return _auroc(weights, score, right)


@metric
def auroc_of_benefit(
    weights: Weights | None, confidence: npt.ArrayLike, edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike
) -> Floats:
    """AUROC of the benefit of routing: how well a low confidence marks the questions that only the cloud gets right, 0 to 1.

    A question has the benefit if the cloud is right and the edge model wrong, and lacks it otherwise (Jitkrittum et al. 2023,
    arXiv 2307.02764: deferring pays exactly there). Where a value is the probability of being right, as with a simulated cloud,
    a question counts with probability `(1 - edge) * cloud` as one that has it, and with the rest as one that lacks it.
    nan if all questions have it or none. Raises `BadData`.
    """
    score, edge, cloud = shares(confidence=confidence, edge_correct=edge_correct, cloud_correct=cloud_correct)
    return _auroc(weights, -score, (1 - edge) * cloud)


@metric
def benefit_concordance(
    weights: Weights | None, confidence: npt.ArrayLike, edge_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike
) -> Floats:
    """AUROC for a graded benefit: the share of pairs of questions in which the one that gains more has the lower confidence, 0 to 1.

    The benefit of a question is `cloud_correct - edge_correct`: -1 where routing does harm, 0 where it changes nothing, 1 where it
    helps, or a fraction where answers are graded. Pairs with the same benefit do not count, ties in confidence count half. Equals
    `auroc_of_benefit` where no question is harmed and answers are right or wrong. O(n log n). Source: the concordance index,
    Harrell et al. 1982, JAMA 247(18). nan if all benefits are equal. Raises `BadData`.
    """
    score, edge, cloud = shares(confidence=confidence, edge_correct=edge_correct, cloud_correct=cloud_correct)
    values, rank = np.unique(np.round(cloud - edge, _DIGITS), return_inverse=True)
    count = np.ones(len(score)) if weights is None else checked_weights(weights, len(score)).astype(np.float64)
    _, per_value, _ = by_level(weights, rank.astype(np.float64))
    pairs = (count.sum(axis=-1) ** 2 - (per_value**2).sum(axis=-1)) / 2
    certain = np.lexsort((rank, score))  # within a level rising, so that no tie counts
    with_ties = np.lexsort((-rank, score))  # falling, so that all ties count
    ordered = [_inversions(rank[order], count[..., order], len(values)) for order in (certain, with_ties)]
    return ratio((ordered[0] + ordered[1]) / 2, pairs)


def _auroc(weights: Weights | None, score: Floats, positive: Floats) -> Floats:
    """The share of pairs (positive, negative) in which the positive has the higher score; `positive` may be a fraction."""
    _, counts, (right,) = by_level(weights, score, positive)
    wrong = counts - right
    above = (right * (np.cumsum(wrong, axis=-1) - wrong / 2)).sum(axis=-1)
    return ratio(above, right.sum(axis=-1) * wrong.sum(axis=-1))


def _inversions(rank: npt.NDArray[np.intp], count: Floats, n_ranks: int) -> Floats:
    """The number of pairs whose earlier one has the higher rank, (...,); `count` (..., n) is how often each occurs.

    Two ranks differ at a highest bit: for each bit, pairs that agree above it are counted where the earlier has it and the later
    has not.
    """
    total = np.zeros(count.shape[:-1])
    for bit in range(max(n_ranks - 1, 0).bit_length()):
        order = np.argsort(rank >> (bit + 1), kind="stable")
        above, has = (rank >> (bit + 1))[order], (rank[order] >> bit) & 1
        here = count[..., order]
        ones = np.cumsum(here * has, axis=-1)
        start = np.searchsorted(above, above)  # where the group of equal upper bits begins
        earlier = np.concatenate([np.zeros((*ones.shape[:-1], 1)), ones], axis=-1)[..., start]
        total = total + (here * (1 - has) * (ones - earlier)).sum(axis=-1)
    return total
