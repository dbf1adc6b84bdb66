"""Small faults that would break the promise of a calibration: each test fails if that fault is made.

The pool of the guarantee's own experiment has room between its error and the limit, so a test with twice the delta would pass there.
Here every cut errs a hair above the limit, or a part of the questions says the opposite of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom

from edge_agent.core import routing
from edge_agent.measure.calibrate.fit import Calibrated, fit
from edge_agent.measure.calibrate.goals import Goal
from edge_agent.measure.calibrate.split import WITH_TEST, Parts, split
from edge_agent.measure.readouts import combine
from edge_agent.measure.results import LIVE, CloudSource, Floats, Results
from tests.support.guarantee import results_of

SHA256 = "d" * 64
LEVEL = ("expected_confidence", "confidence")
ALL = (*LEVEL, "answer_prob", "margin")


def made(results: Results, limit: float = 0.1, delta: float = 0.05, sha256: str = SHA256, **more: object) -> Calibrated:
    return fit(results, Goal("max_local_error", limit, delta), data="pool", data_sha256=sha256, created_at="2026-01-01T00:00:00Z", **more)


def parts_of(results: Results) -> Parts:
    return split(results.fingerprints, SHA256, WITH_TEST)


def kept_by(results: Results, scores: Floats, tau: float, tie_share: float) -> np.ndarray:
    """Which questions a device would keep, one by one by the rule of the route."""
    draws = (routing.draw(fingerprint, SHA256[:16]) for fingerprint in results.fingerprints)
    below = [routing.is_below(float(score), tau, tie_share, draw) for score, draw in zip(scores, draws, strict=True)]
    return ~np.array(below) & ~results.no_confidence


def ranked(n: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Scores, and answers that are right where the score is high: nearly always in the upper half, by chance in the lower."""
    rng = np.random.default_rng(seed)
    score = rng.random(n)
    return score, (rng.random(n) > np.where(score > 0.5, 0.02, 0.5)).astype(float)


@pytest.mark.parametrize("continuous", [True, False])
def test_a_model_that_errs_a_hair_above_the_limit_passes_in_delta_of_all_tries(continuous: bool) -> None:
    """Whatever is found breaks the promise here, so a test with 1.5 times the delta fails this, and one that never rejects, too.

    A large delta tells the two apart with few tries: with 500, it would be exceeded by three standard errors in 1 of 700.
    """
    delta, tries, n = 0.3, 500, 300
    rng = np.random.default_rng(1)
    broken = 0
    for number in range(tries):
        scores = rng.random(n) if continuous else np.full(n, 0.75)
        pool = results_of((rng.random(n) >= 0.2001).astype(float), {"confidence": scores})
        broken += made(pool, 0.2, delta, f"{number:064x}").calibration is not None
    assert 0.6 * delta < broken / tries <= delta + 3 * (delta * (1 - delta) / tries) ** 0.5


def test_one_error_more_than_delta_allows_is_no_rejection() -> None:
    """The first test at its edge: with the most errors whose p-value is at most delta it rejects, with one more it does not."""
    score, right = ranked(6000)
    right[parts_of(results_of(right, {"confidence": score})).test] = 1
    found = made(results_of(right, {"confidence": score}))
    assert found.tests and found.calibration
    test = parts_of(results_of(right, {"confidence": score})).test
    kept = kept_by(results_of(right, {"confidence": score}), score, found.tests.cuts.taus[0], found.tests.cuts.ties[0])
    first = np.intersect1d(np.flatnonzero(kept), test)
    most = int(np.flatnonzero(binom.cdf(np.arange(len(first)), len(first), 0.1) <= 0.05)[-1])
    assert binom.cdf(most + 1, len(first), 0.1) < 1.5 * 0.05  # so close that a larger delta would reject
    for errors, rejects in ((most, True), (most + 1, False)):
        right[test] = 1
        right[first[:errors]] = 0
        again = made(results_of(right, {"confidence": score}))
        assert again.tested and (again.tested.kept[0], again.tested.errors[0]) == (len(first), errors)
        assert (again.tested.n_rejected > 0) == (again.calibration is not None) == rejects


def test_answers_without_a_confidence_are_never_kept_so_the_test_does_not_count_them() -> None:
    """All of them are right and sure: counted, they would hide the errors of the others."""
    score, right = ranked(4000)
    without = np.arange(4000) % 2 == 0
    test = parts_of(results_of(right, {"confidence": score})).test
    in_test = np.isin(np.arange(4000), test)
    right[in_test] = np.arange(4000)[in_test] % 6 != 1  # of those with a confidence, a third is wrong
    score[without], right[without] = 1.0, 1.0
    pool = results_of(right, {"confidence": score}, without)
    found = made(pool)
    assert found.calibration is None and found.tests and found.tested
    for cut, n_kept in enumerate(found.tested.kept):
        kept = kept_by(pool, score, found.tests.cuts.taus[cut], found.tests.cuts.ties[cut])[test]
        assert (n_kept, found.tested.errors[cut]) == (kept.sum(), (1 - right[test])[kept].sum())


@pytest.mark.parametrize("elsewhere", ["test", "report"])
def test_readout_is_chosen_by_the_first_part_alone(elsewhere: str) -> None:
    """`confidence` is the best of the first part, `answer_prob` is perfect in the other one."""
    score, right = ranked(4000)
    rng = np.random.default_rng(2)
    parts = parts_of(results_of(right, {"confidence": score}))
    columns = {"expected_confidence": rng.random(4000), "confidence": score, "answer_prob": rng.random(4000), "margin": rng.random(4000)}
    at = getattr(parts, elsewhere)
    columns["confidence"][at], columns["answer_prob"][at] = rng.random(len(at)), right[at]
    assert made(results_of(right, columns)).readout == "confidence"
    columns["confidence"][parts.choose], columns["answer_prob"][parts.choose] = rng.random(len(parts.choose)), score[parts.choose]
    assert made(results_of(right, columns)).readout != "confidence"


class Watched:
    """The combination that `fit` is given; it keeps what it was fitted on."""

    def __init__(self) -> None:
        self.seen: list[tuple[list[float], list[float]]] = []

    def fit(self, scores: Mapping[str, Floats], correct: npt.ArrayLike) -> tuple[float, ...] | None:
        self.seen.append((scores["margin"].tolist(), np.asarray(correct).tolist()))
        return combine.fit(scores, correct)

    def scores(self, columns: Mapping[str, Floats], weights: Sequence[float]) -> Floats:
        return combine.scores(columns, weights)


def test_combination_is_fitted_on_the_first_part_alone() -> None:
    """And its weights do not move when every answer of the other parts is turned around."""
    rng = np.random.default_rng(3)
    columns = {name: rng.random(2000) for name in ALL}
    right = (rng.random(2000) < columns["answer_prob"]).astype(float)
    choose = parts_of(results_of(right, columns)).choose
    turned = 1 - right
    turned[choose] = right[choose]
    watched = Watched()
    for answers in (right, turned):
        made(results_of(answers, dict(columns)), readout="combined", combination=watched)
    margins, answers = columns["margin"][choose].tolist(), right[choose].tolist()
    assert watched.seen == [(margins, answers), (margins, answers)]


def test_figures_and_disagreement_are_of_the_third_part_alone() -> None:
    """There, and only there, every answer is wrong and every second one is not the cloud's. Equal scores are kept by the stored draws."""
    score, right = ranked(4000)
    score = np.round(score * 4) / 4
    report = parts_of(results_of(right, {"confidence": score})).report
    right[report] = 0
    agrees = np.ones(4000)
    agrees[report] = np.arange(len(report)) % 2
    pool = replace(
        results_of(right, {"confidence": score}), cloud=CloudSource(LIVE, "big"), cloud_correct=np.ones(4000), agrees=agrees
    )  # fmt: skip
    found = made(pool)
    assert found.calibration and found.calibration.disagreement and found.measured["local_error"].value == 1.0
    kept = kept_by(pool, score, found.calibration.tau, found.calibration.tie_share)[report]
    known = found.calibration.disagreement
    assert 0 < found.calibration.tie_share < 1 and found.calibration.salt == SHA256[:16]
    assert (known.kept, known.different) == (kept.sum(), (1 - agrees[report])[kept].sum())
    assert found.measured["cloud_rate"].value == pytest.approx(1 - kept.mean())
