"""Calibrations from answered questions: what is chosen, what is promised, and what is said where nothing can be."""

import json

import numpy as np
import pytest

from edge_agent.core import routing
from edge_agent.core.errors import BadData
from edge_agent.measure.calibrate import extra, words
from edge_agent.measure.calibrate.fit import Calibrated, fit
from edge_agent.measure.calibrate.goals import Goal, Price
from edge_agent.measure.calibrate.split import WITH_TEST, split
from edge_agent.measure.results import LIVE, RECORDED, SIMULATED, CloudSource, Results
from edge_agent.model import calibration
from tests.support.guarantee import results_of, synthetic

POOL = synthetic(4000)
GUARANTEE = Goal("max_local_error", 0.1, 0.05)


def made(goal: Goal = GUARANTEE, results: Results = POOL, **more: object) -> Calibrated:
    return fit(results, goal, data="pool", data_sha256="d" * 64, created_at="2026-01-01T00:00:00+00:00", **more)


def with_columns(results: Results = POOL, **columns: object) -> Results:
    return results_of(results.edge_correct, dict(results.scores), results.no_confidence, **columns)


def deferred(found: calibration.Calibration, results: Results) -> np.ndarray:
    scores = results.scores[found.readout]
    draws = [routing.draw(fingerprint, found.salt) for fingerprint in results.fingerprints]
    below = [routing.is_below(float(s), found.tau, found.tie_share, d) for s, d in zip(scores, draws, strict=True)]
    return np.array(below) | results.no_confidence


def test_guarantee_is_the_last_rejected_test_unchanged() -> None:
    found = made()
    assert found.calibration and found.tested and found.tests
    last = found.tested.n_rejected - 1
    assert (found.calibration.tau, found.calibration.tie_share) == (found.tests.cuts.taus[last], found.tests.cuts.ties[last])
    assert (found.tested.p_values[: last + 1] <= 0.05).all()
    assert found.calibration.questions == (800, 2800, 400) and found.calibration.delta == 0.05
    kept = ~deferred(found.calibration, POOL)
    assert (1 - POOL.edge_correct)[kept].mean() <= 0.1 and kept.mean() > 0.5


def test_same_data_makes_the_same_calibration() -> None:
    one, other = made().calibration, made().calibration
    assert one and other and one.to_json() == other.to_json()


def test_it_is_stored_and_loaded_again(tmp_path) -> None:
    found = made().calibration
    assert found and calibration.load(calibration.save(tmp_path, found)) == found


def test_answers_of_the_test_part_do_not_change_the_sequence() -> None:
    """The first part alone chooses: with every other answer turned around, the same taus are tested."""
    first = made()
    chose = split(POOL.fingerprints, "d" * 64, WITH_TEST).choose
    turned = 1 - POOL.edge_correct
    turned[chose] = POOL.edge_correct[chose]
    second = made(results=results_of(turned, dict(POOL.scores), POOL.no_confidence))
    assert first.tests and second.tests
    assert first.tests.cuts.taus.tolist() == second.tests.cuts.taus.tolist()
    assert second.calibration is None


def test_too_few_questions_are_a_result_with_a_number() -> None:
    found = made(results=POOL.part(np.arange(40)))
    assert found.calibration is None and found.needed and found.needed.questions and found.needed.questions > 40
    assert f"About {found.needed.questions:,} would be needed" in words.result(found)


def test_number_needed_is_enough_for_most() -> None:
    needed = made(results=POOL.part(np.arange(100)), goal=Goal("max_local_error", 0.05, 0.05)).needed
    assert needed and needed.questions
    found = 0
    for number in range(40):
        at = np.random.default_rng(number).choice(len(POOL), min(len(POOL), needed.questions), replace=False)
        goal = Goal("max_local_error", 0.05, 0.05)
        drawn = results_of(POOL.edge_correct[at], {n: c[at] for n, c in POOL.scores.items()}, POOL.no_confidence[at])
        found += fit(drawn, goal, data="", data_sha256=f"{number:064x}", created_at="").calibration is not None
    assert found >= 20


@pytest.mark.parametrize(("limit", "n"), [(0.01, 40), (0.05, 12), (0.001, 1000), (0.00001, 100)])
def test_without_any_error_seen_more_questions_are_said_to_help(limit: float, n: int) -> None:
    found = made(Goal("max_local_error", limit, 0.05), results_of(np.ones(n), {"confidence": np.ones(n)}))
    assert found.calibration is None and found.needed and found.needed.questions
    fewest = np.log(0.05) / np.log1p(-limit) / 0.7
    assert fewest < found.needed.questions < 4 * fewest


def test_accuracy_of_a_single_question_is_not_certain() -> None:
    right = np.ones(4)
    found = made(Goal("accuracy", 0.9), results_of(right, {"confidence": right}, cloud=CloudSource(RECORDED, "file"), cloud_correct=right))
    figure = found.measured["accuracy"]
    assert figure.value == figure.high == 1 and figure.low < 0.5


def test_what_is_said_to_help_does_not_promise_more_tries_for_nothing() -> None:
    found = made(results=POOL.part(np.arange(40)))
    assert "two tries at this delta have up to 10% together" in words.result(found)


@pytest.mark.parametrize(("n", "top"), [(5000, 0.05), (20_000, 0.05), (5000, 0.08)])
def test_a_small_share_of_sure_answers_is_found(n: int, top: float) -> None:
    """Only the surest few are right; the cut lies far from the widest one."""
    for seed in range(3):
        rng = np.random.default_rng([n, seed])
        score = rng.random(n)
        right = (rng.random(n) > np.where(score > 1 - top, 0.01, 0.45)).astype(float)
        found = made(results=results_of(right, {"expected_confidence": score}, prefix=f"{seed}"))
        assert found.calibration and found.measured["cloud_rate"].value > 0.85


def test_a_model_that_is_never_good_enough_needs_another_model() -> None:
    found = made(results=results_of(np.arange(2000) % 2.0, {"confidence": np.ones(2000)}))
    assert found.calibration is None and found.needed and found.needed.questions is None
    assert "would not help" in words.result(found)


def test_a_level_can_be_kept_in_part() -> None:
    """One level only, of which every question is right: ties by draw still reach a rate."""
    results = results_of(np.ones(2000), {"confidence": np.ones(2000)})
    found = made(Goal("cloud_rate", 0.3), results).calibration
    assert found and found.tie_share == pytest.approx(0.3, abs=0.01)
    assert deferred(found, results).mean() == pytest.approx(0.3, abs=0.04)


def test_rate_needs_no_gold_answer_and_takes_the_printed_level() -> None:
    results = results_of(np.full(len(POOL), np.nan), dict(POOL.scores), POOL.no_confidence)
    found = made(Goal("cloud_rate", 0.2), results)
    assert found.calibration and found.readout == "confidence" and "local_error" not in found.measured
    assert found.calibration.local_error is None and found.calibration.curve == ()
    assert found.measured["cloud_rate"].low <= 0.2 <= found.measured["cloud_rate"].high


def test_a_few_missing_gold_answers_change_no_readout_and_no_figure() -> None:
    every, some = made(Goal("cloud_rate", 0.2)), POOL.edge_correct.copy()
    some[::100] = np.nan
    found = made(Goal("cloud_rate", 0.2), results_of(some, dict(POOL.scores), POOL.no_confidence))
    assert every.readout == found.readout == "expected_confidence" and "gold answer" in found.reason
    assert found.measured["local_error"].n == pytest.approx(0.99 * every.measured["local_error"].n, abs=8)
    assert any("40 questions have no gold answer" in note for note in found.notes)


def test_accuracy_is_of_questions_with_both_answers() -> None:
    some = POOL.edge_correct.copy()
    some[::3] = np.nan
    cloud = CloudSource(SIMULATED, accuracy=0.95)
    found = made(Goal("cloud_rate", 0.2), results_of(some, dict(POOL.scores), cloud=cloud, cloud_correct=np.full(len(POOL), 0.95)))
    assert found.measured["accuracy"].n == pytest.approx(found.questions[2] * 2 / 3, abs=40)


def test_without_gold_answers_there_is_no_guarantee() -> None:
    results = results_of(np.full(50, np.nan), {"confidence": np.ones(50)})
    with pytest.raises(BadData, match="gold answer"):
        made(results=results)


def test_questions_without_gold_are_left_out_and_said() -> None:
    correct = POOL.edge_correct.copy()
    correct[:100] = np.nan
    found = made(results=results_of(correct, dict(POOL.scores), POOL.no_confidence))
    assert sum(found.questions) == len(POOL) - 100 and any("100 questions" in note for note in found.notes)


def test_repeated_questions_count_once() -> None:
    names = tuple(f"question {i % 3000}" for i in range(len(POOL)))
    found = made(results=with_columns(fingerprints=names))
    assert sum(found.questions) == 3000 and any("1000 rows repeat" in note for note in found.notes)


def test_a_letter_readout_is_chosen_only_if_clearly_better() -> None:
    same = dict(POOL.scores) | {"answer_prob": POOL.scores["expected_confidence"]}
    assert made(results=results_of(POOL.edge_correct, same, POOL.no_confidence)).readout == "expected_confidence"
    rng = np.random.default_rng(0)
    better = dict(POOL.scores) | {"answer_prob": np.clip(POOL.edge_correct * 0.5 + 0.5 * rng.random(len(POOL)), 0, 1)}
    found = made(results=results_of(POOL.edge_correct, better, POOL.no_confidence), letter_ms=42.0)
    assert found.readout == "answer_prob" and found.letter_ms == 42.0
    assert any("42 ms later" in line for line in words.lines(found))


def test_a_readout_can_be_forced_and_must_be_there() -> None:
    assert made(readout="confidence").readout == "confidence"
    with pytest.raises(BadData, match="margin"):
        made(readout="margin")


def test_averages_over_orders_are_never_chosen() -> None:
    rng = np.random.default_rng(0)
    scores = dict(POOL.scores) | {"orders_all": POOL.edge_correct * 0.9 + 0.1 * rng.random(len(POOL))}
    assert made(results=results_of(POOL.edge_correct, scores, POOL.no_confidence)).readout == "expected_confidence"


def test_accuracy_with_a_simulated_cloud_is_called_simulated() -> None:
    cloud = CloudSource(SIMULATED, accuracy=0.95)
    results = with_columns(cloud=cloud, cloud_correct=np.full(len(POOL), 0.95))
    found = made(Goal("accuracy", 0.9), results)
    assert found.calibration and found.measured["accuracy"].low <= 0.9 <= found.measured["accuracy"].high
    assert "simulated" in words.result(found)
    nothing = made(Goal("accuracy", 0.999), results)
    assert nothing.calibration is None and nothing.best_accuracy and 0.9 < nothing.best_accuracy < 0.999
    assert "No tau reaches" in words.result(nothing)


def test_accuracy_needs_a_cloud() -> None:
    with pytest.raises(BadData, match="cloud"):
        made(Goal("accuracy", 0.9))


def test_budget_is_spent_and_not_more() -> None:
    goal = Goal("budget", 3.0, None, 10_000, Price(1.0, 4.0, (100.0, 50.0)))  # 0.0003 a question, so 3 a day for all
    everything = made(goal).measured["cost_per_day"]
    assert everything.value == pytest.approx(3.0)
    found = made(Goal("budget", 0.6, None, 10_000, Price(1.0, 4.0, (100.0, 50.0)))).measured
    assert found["cost_per_day"].low <= 0.6 <= found["cost_per_day"].high
    assert found["cloud_rate"].low <= 0.2 <= found["cloud_rate"].high


@pytest.mark.parametrize("money", [0.0, 0.01])
def test_budget_that_questions_without_confidence_exceed_stores_nothing(money: float) -> None:
    """40 % always go to the cloud: 0.12 a day at 0.0003 each and 1,000 questions a day."""
    results = results_of(POOL.edge_correct, dict(POOL.scores), np.arange(len(POOL)) % 5 < 2)
    found = made(Goal("budget", money, None, 1000, Price(1.0, 4.0, (100.0, 50.0))), results)
    assert found.calibration is None and found.least_cost == pytest.approx(0.12, abs=0.01)
    assert "No tau keeps to" in words.result(found) and "0.12 a day" in words.result(found)


def test_rate_that_questions_without_confidence_exceed_is_said() -> None:
    results = results_of(POOL.edge_correct, dict(POOL.scores), np.arange(len(POOL)) % 5 < 2)
    found = made(Goal("cloud_rate", 0.2), results)
    assert found.least_rate == pytest.approx(0.4, abs=0.02) and "always go to the cloud" in words.result(found)
    assert made(Goal("cloud_rate", 0.5), results).least_rate is None


@pytest.mark.parametrize("tokens", [(100.0, 50.0), None])
def test_estimated_tokens_are_said(tokens: tuple[float, float] | None) -> None:
    counts = np.full(len(POOL), 100.0)
    results = with_columns(cloud=CloudSource(SIMULATED, accuracy=0.9, estimated_tokens=True), cloud_tokens=(counts, counts))
    found = made(Goal("budget", 0.6, None, 10_000, Price(1.0, 4.0, tokens)), results)
    assert any("estimated" in note for note in found.notes) == (tokens is None)


@pytest.mark.parametrize("price", [None, Price(0.0, 0.0, (1.0, 1.0)), Price(1.0, 1.0)])
def test_budget_without_prices_or_tokens_is_refused(price: Price | None) -> None:
    with pytest.raises(BadData, match="--prompt"):
        made(Goal("budget", 3.0, None, 100, price))


@pytest.mark.parametrize(("kind", "known"), [(LIVE, True), (RECORDED, True), (SIMULATED, False)])
def test_disagreement_is_of_kept_answers_that_chose_nothing(kind: str, known: bool) -> None:
    agrees = np.where(np.arange(len(POOL)) % 4 == 0, 0.0, 1.0)
    found = made(results=with_columns(cloud=CloudSource(kind, "a cloud", 0.95), agrees=agrees)).calibration
    assert found and (found.disagreement is not None) == known
    if found.disagreement:
        assert found.disagreement.kept <= found.questions[2]
        assert found.disagreement.different / found.disagreement.kept == pytest.approx(0.25, abs=0.1)


def test_curve_never_falls() -> None:
    found = made().calibration
    assert found and len(found.curve) > 3
    assert (np.diff([x for x, _ in found.curve]) > 0).all() and (np.diff([y for _, y in found.curve]) >= 0).all()


def test_json_has_every_test() -> None:
    data = words.to_dict(made())
    json.dumps(data, allow_nan=False)
    assert data["qualified"] and len(data["tests"]) >= data["n_rejected"] > 0
    json.dumps(words.to_dict(made(results=POOL.part(np.arange(40)))), allow_nan=False)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_a_handful_of_questions_is_no_error(n: int) -> None:
    some = POOL.part(np.arange(n))
    assert made(results=some).calibration is None
    assert made(Goal("cloud_rate", 0.5), some).calibration is not None
    words.lines(made(Goal("cloud_rate", 0.5), some))


def test_missing_scipy_is_one_sentence_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "scipy.stats", None)
    with pytest.raises(BadData, match=r"needs scipy.*\[calibrate\]"):
        extra.scipy("stats")
