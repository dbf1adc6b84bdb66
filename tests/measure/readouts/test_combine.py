"""The combined readout: fitted on one half alone, and no worse than its parts on the other."""

import sys

import numpy as np
import pytest

from edge_agent.core import readouts
from edge_agent.core.errors import BadData
from edge_agent.core.records import Reading, Timings
from edge_agent.measure import metrics
from edge_agent.measure.readouts import combine
from edge_agent.model.profile import LEVELS

N = 6000
FINGERPRINTS = [f"{i:064x}" for i in range(N)]


@pytest.fixture(scope="module")
def drawn() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Scores that each know a part of what makes an answer right."""
    rng = np.random.default_rng(1)
    about_level, about_letter = rng.normal(size=N), rng.normal(size=N)
    right = (rng.uniform(size=N) < 1 / (1 + np.exp(-1.2 * about_level - 1.2 * about_letter))).astype(float)
    level, letter = 1 / (1 + np.exp(-about_level)), 1 / (1 + np.exp(-about_letter))
    scores = {"confidence": np.round(level * 4) / 4, "expected_confidence": level, "answer_prob": letter, "margin": letter**2}
    return scores, right


def halves(scores: dict[str, np.ndarray], right: np.ndarray) -> tuple[tuple[float, ...] | None, dict[str, np.ndarray], np.ndarray]:
    """The weights of one half, and the scores and answers of the other."""
    half = combine.fitting_half(FINGERPRINTS)
    weights = combine.fit({name: column[half] for name, column in scores.items()}, right[half])
    return weights, {name: column[~half] for name, column in scores.items()}, right[~half]


def test_half_of_the_questions_are_to_fit_on_and_always_the_same() -> None:
    half = combine.fitting_half(FINGERPRINTS)
    assert half.mean() == pytest.approx(0.5, abs=0.03)
    assert combine.fitting_half(FINGERPRINTS[::-1]).tolist() == half[::-1].tolist()


def test_it_beats_its_parts_on_questions_that_it_never_saw(drawn: tuple[dict[str, np.ndarray], np.ndarray]) -> None:
    weights, others, right = halves(*drawn)
    assert weights is not None and len(weights) == readouts.N_WEIGHTS
    combined = metrics.auroc(combine.scores(others, weights), right)
    assert combined > max(metrics.auroc(others[part], right) for part in combine.PARTS) + 0.05


def test_it_equals_its_only_good_part() -> None:
    rng = np.random.default_rng(2)
    good = rng.uniform(size=N)
    right = (rng.uniform(size=N) < good).astype(float)
    scores = {"confidence": np.full(N, 0.5), "expected_confidence": good, "answer_prob": np.full(N, 0.5), "margin": np.zeros(N)}
    weights, others, right = halves(scores, right)
    assert weights is not None
    assert metrics.auroc(combine.scores(others, weights), right) == pytest.approx(metrics.auroc(others["expected_confidence"], right))


def test_the_measuring_half_changes_no_weight(drawn: tuple[dict[str, np.ndarray], np.ndarray]) -> None:
    scores, right = drawn
    half = combine.fitting_half(FINGERPRINTS)
    turned = np.where(half, right, 1 - right)
    assert halves(scores, right)[0] == halves(scores, turned)[0] != halves(scores, 1 - right)[0]


def test_weights_are_those_of_scikit_learn(drawn: tuple[dict[str, np.ndarray], np.ndarray]) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    scores, right = drawn
    theirs = linear.LogisticRegression(C=1 / (combine.L2 * N), tol=1e-10, max_iter=1000)
    theirs.fit(np.column_stack([scores[part] for part in combine.PARTS]), right)
    assert combine.fit(scores, right) == pytest.approx([theirs.intercept_[0], *theirs.coef_[0]], abs=1e-3)


def test_scores_are_those_of_a_reading_to_the_bit() -> None:
    reading = Reading(
        levels=LEVELS, level_probs=(0.1, 0.1, 0.2, 0.3, 0.3), level="0.75", format_mass=1.0, letters="ABC",
        answer_probs=(0.61, 0.3, 0.09), letter="A", timings=Timings(),
    )  # fmt: skip
    weights = (-1.3, 0.7, 2.1, 0.4, -0.9)
    columns = {part: np.array([readouts.score(reading, part)], float) for part in combine.PARTS}
    assert combine.scores(columns, weights)[0] == readouts.score(reading, readouts.COMBINED, weights)


def test_nothing_to_fit_is_said_softly(drawn: tuple[dict[str, np.ndarray], np.ndarray]) -> None:
    scores, right = drawn
    assert combine.fit(scores, np.ones(N)) is None and combine.fit(scores, np.full(N, np.nan)) is None
    assert combine.fit({"confidence": scores["confidence"]}, right) is None
    with_gaps = np.where(np.arange(N) % 2, right, np.nan)
    assert combine.fit(scores, with_gaps) == combine.fit({name: column[1::2] for name, column in scores.items()}, right[1::2])


def test_answers_that_can_be_told_apart_exactly_give_finite_weights() -> None:
    right = (np.arange(100) >= 50).astype(float)
    weights = combine.fit(dict.fromkeys(combine.PARTS, right), right)
    assert weights is not None and np.isfinite(weights).all() and max(map(abs, weights)) < 50


def test_without_scipy_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, drawn: tuple[dict, np.ndarray]) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(BadData, match=r"\[calibrate\]"):
        combine.fit(*drawn)
