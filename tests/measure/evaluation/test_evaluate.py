"""From columns to figures: FogGen's table counted by hand, what counts for what, and every readout beside the printed level."""

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.errors import BadData
from edge_agent.core.question import Question
from edge_agent.engine.local_model import LocalModel
from edge_agent.measure.evaluation import readout, tables
from edge_agent.measure.evaluation.evaluate import PER_CALL, Beside, evaluate
from edge_agent.measure.evaluation.figures import Evaluation
from edge_agent.measure.readouts import combine
from edge_agent.measure.results import CloudSource, Results
from edge_agent.model.profile import LEVELS
from models.recipe.bank import DOMAINS, draw_many
from tests.support.answered import read, results

LEVEL = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


def evaluated(columns: Results, tau: float = 0.5, beside: Beside | None = None) -> Evaluation:
    return evaluate(columns, LEVELS, tau, beside)


def drawn(n: int = 2000, seed: int = 0) -> Results:
    """Answers that are right as often as the expected level says; the printed level is that, rounded; the letter knows more."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(size=n)
    right = (rng.uniform(size=n) < truth).astype(float)
    seen = np.clip(truth + rng.normal(scale=0.3, size=n), 0, 1)
    more = {"expected_confidence": seen, "answer_prob": truth, "margin": truth**2, "noise": rng.uniform(size=n)}
    return results(np.round(seen * 4) / 4, right, more=more, domains=["even", "odd"] * (n // 2))


def test_table_of_the_demo_model_is_that_counted_by_hand(demo_model: LocalModel) -> None:
    """FogGen's table, from the readings alone, in plain Python."""
    asked = [(Question(i.stem, i.options), i.letter, domain) for domain in DOMAINS for i in draw_many(0, 8, "test", domain)]
    columns, readings = read(demo_model, asked, cloud_accuracy=0.9)
    for tau in (0.5, 0.75):
        table = evaluated(columns, tau).readouts["confidence"]
        assert [line.domain for line in table.domains] == sorted(DOMAINS) and table.mean.questions == 56
        for line in table.domains:
            own = [(r, q, gold) for r, (q, gold, domain) in zip(readings, asked, strict=True) if domain == line.domain]
            right = [r.letter == gold for r, _, gold in own]
            sent = [r.confidence < tau or r.format_mass < 0.5 for r, _, _ in own]
            system = sum(0.9 if away else good for good, away in zip(right, sent, strict=True)) / 8
            edge, rate = sum(right) / 8, sum(sent) / 8
            assert (line.questions, line.cloud, line.edge, line.routed) == (8, pytest.approx(0.9), edge, rate)
            assert line.system == pytest.approx(system) and line.random == pytest.approx((1 - rate) * edge + rate * 0.9)
            assert line.lift == pytest.approx(line.system - line.random) and line.edge_low <= edge <= line.edge_high
        for name in ("cloud", "edge", "random", "system", "routed", "lift"):
            assert getattr(table.mean, name) == pytest.approx(sum(getattr(line, name) for line in table.domains) / 7)


def test_means_are_those_of_the_domains_and_single_figures_those_of_all_questions() -> None:
    columns = results([1, 1, 1, 0], [1, 1, 1, 0], 1.0, domains=["big", "big", "big", "small"])
    found = evaluated(columns).readouts["confidence"]
    assert (found.mean.routed, found.routed, found.mean.edge, found.pgr) == (0.5, 0.25, 0.5, 1.0)


def test_reading_without_a_confidence_is_deferred_however_sure_it_is() -> None:
    found = evaluated(results([1, 1], [0, 1], 1.0, no_confidence=[True, False]))
    line = found.readouts["confidence"].mean
    assert (found.no_confidence.count, line.routed, line.system, line.lift) == (1, 0.5, 1.0, 0.25)
    assert found.readouts["confidence"].same_rate == 1.0


def test_equal_score_is_kept() -> None:
    columns = results([0.5, 0.25], [1, 0])
    assert [evaluated(columns, tau).readouts["confidence"].mean.routed for tau in (0.0, 0.25, 0.5, 0.51)] == [0, 0, 0.5, 1]


@given(st.lists(st.tuples(LEVEL, st.booleans()), min_size=1, max_size=20), LEVEL, LEVEL)
def test_a_higher_tau_never_keeps_more(rows: list[tuple[float, bool]], one: float, other: float) -> None:
    columns = results([level for level, _ in rows], [right for _, right in rows])
    low, high = (evaluated(columns, tau).readouts["confidence"] for tau in sorted((one, other)))
    assert low.routed <= high.routed


def test_undefined_figures_are_null() -> None:
    found = evaluated(results([1.0], [1]))
    assert math.isnan(found.readouts["confidence"].auroc) and found.to_dict()["readouts"]["confidence"]["auroc"] is None
    json.dumps(found.to_dict(), allow_nan=False)
    assert found.difficulties == {} and found.greedy is None and found.orders is None
    with pytest.raises(BadData, match="no answered questions"):
        evaluated(results([], []))


def test_levels_and_difficulties_are_groups_of_the_printed_level() -> None:
    beside = Beside(difficulties=(1, 2, None, 2))
    found = evaluated(results([1.0, 0.25, 0.25, 0.75], [1, 0, 1, 1]), beside=beside)
    assert {level: (share.questions, share.count) for level, share in found.levels.items()} == {
        "0.0": (0, 0), "0.25": (2, 1), "0.5": (0, 0), "0.75": (1, 1), "1.0": (1, 1),
    }  # fmt: skip
    assert {number: (share.questions, share.count) for number, share in found.difficulties.items()} == {1: (1, 1), 2: (2, 1)}
    bins = found.readouts["confidence"].reliability
    assert [(each.level, each.questions) for each in bins] == [(0.0, 0), (0.25, 2), (0.5, 0), (0.75, 1), (1.0, 1)] and bins[1].right == 0.5


def test_questions_without_a_gold_answer_or_a_cloud_answer_are_left_out_and_counted() -> None:
    gap = np.nan
    found = evaluated(results([1, 0, 1, 0], [1, 0, gap, 0], [1, 1, 1, gap], cloud=CloudSource("live", "big")))
    own = found.readouts["confidence"]
    assert own.questions == 2 == own.mean.questions and own.mean.system == 1.0
    assert found.right.questions == 3 and len(found.notes) == 2
    assert "1 of 4 questions have no gold answer" in found.notes[0] and "1 of 4 questions have no answer of the cloud" in found.notes[1]


def test_without_a_cloud_the_rate_is_known_and_the_gain_is_not() -> None:
    found = evaluated(replace(drawn(), cloud=CloudSource(), cloud_correct=np.full(2000, np.nan)))
    own = found.readouts["expected_confidence"]
    assert 0 < own.mean.routed < 1 and own.auroc > 0.5 and own.targets
    undefined = (own.mean.system, own.mean.lift, own.apgr, own.cpt_50, own.ibc, own.oracle, own.same_rate)
    assert all(map(math.isnan, undefined)) and [each.figure for each in own.compared] == ["auroc"]
    assert not [note for note in found.notes if "no answer of the cloud" in note]


def test_a_better_readout_is_told_from_a_worse_one_and_from_the_same() -> None:
    columns = drawn()
    same = replace(columns, scores={**columns.scores, "same": columns.scores["confidence"]})
    found = evaluated(same).readouts
    assert {each.figure: each.better for each in found["answer_prob"].compared} == dict.fromkeys(("auroc", "apgr", "same_rate"), "this")
    assert {each.better for each in found["noise"].compared} == {"printed"}
    assert [(each.difference, each.low, each.high, each.better) for each in found["same"].compared] == [(0, 0, 0, "")] * 3
    assert found["confidence"].compared == () and all(each.low < each.difference < each.high for each in found["noise"].compared)
    assert found["noise"].mean.lift == pytest.approx(0, abs=0.04)  # routing by noise is random routing


def test_combined_is_measured_on_the_half_that_it_was_not_fitted_on() -> None:
    columns = drawn()
    half = combine.fitting_half(columns.fingerprints)
    found = evaluated(columns)
    assert found.readouts["combined"].questions == (~half).sum() and len(found.weights) == 5
    other = replace(columns, edge_correct=np.where(half, columns.edge_correct, 1 - columns.edge_correct))
    assert evaluated(other).weights == found.weights
    assert found.readouts["combined"].auroc > found.readouts["confidence"].auroc
    assert list(found.readouts) == ["confidence", "expected_confidence", "answer_prob", "margin", "combined", "noise"]


def test_combined_is_left_out_where_it_cannot_be_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = drawn(200)
    all_right = evaluated(replace(columns, edge_correct=np.ones(200)))
    assert "combined" not in all_right.readouts and "was not fitted" in all_right.notes[0]
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    without = evaluated(columns)
    assert "combined" not in without.readouts and "[calibrate]" in without.notes[0]


def test_wanted_rates_are_reached_within_a_single_level() -> None:
    """All scores are equal, so only the draws can part them. Thresholds come from the other half."""
    found = evaluated(results(np.full(4000, 0.5), np.ones(4000), 1.0)).readouts["confidence"]
    assert [target.target for target in found.targets] == [0.1, 0.2, 0.3, 0.5]
    for target in found.targets:
        assert target.tau == 0.5 and target.tie_share == pytest.approx(target.target)
        assert target.achieved == pytest.approx(target.target, abs=4 * math.sqrt(0.25 / target.questions))
        assert target.low < target.achieved < target.high and target.questions < 2500


def test_costs_are_calls_or_prices() -> None:
    columns = results([0, 1, 1, 1], [0, 1, 1, 0], 1.0)
    free = evaluated(columns)
    assert free.costs == PER_CALL and free.readouts["confidence"].ibc == pytest.approx(0.25 / 0.25)
    assert free.readouts["confidence"].delta_ibc == pytest.approx(0.25 / 0.25 / 0.5 - 1)
    priced = replace(columns, cloud=CloudSource("recorded", "big", None, 2.0, 8.0))
    priced = replace(priced, cloud_tokens=(np.array([100.0, 100, 100, np.nan]), np.array([50.0, 1, 1, np.nan])))
    found = evaluated(priced)
    assert "prices of 2 and 8" in found.costs and "1 calls are not known" in found.notes[0]
    assert found.readouts["confidence"].ibc == pytest.approx(0.25 / ((100 * 2 + 50 * 8) / 1e6 / 4))


def test_orders_have_their_own_answers_and_say_how_often_they_flip() -> None:
    gap = np.nan
    columns = results([1, 1, 0, 0], [1, 0, 0, 0], 1.0, more={"orders_2": [1, 1, 0.2, 0.2]}, passes={"orders_2": 2})
    beside = Beside(correct={"orders_2": np.array([1.0, 1, 0, 1])}, agreed={"orders_2": np.array([1.0, 0, 1, gap])}, ms={"orders_2": 21.0})
    found = evaluated(columns, beside=beside)
    own = found.readouts["orders_2"]
    assert (own.mean.edge, own.passes, own.ms) == (0.75, 2, 21.0) and found.right.share == 0.25
    assert found.orders is not None and (found.orders.flipped.count, found.orders.flipped.questions) == (1, 3)
    assert found.orders.moved.questions == 0


def test_open_answers_have_the_two_readouts_of_the_level_and_may_be_graded() -> None:
    columns = results([1, 0.25, 1, 0.5], [1, 0, 0.6, 0.4], more={"expected_confidence": [0.9, 0.2, 0.8, 0.5]})
    found = evaluated(columns)
    assert list(found.readouts) == ["confidence", "expected_confidence"] and found.readouts["confidence"].auroc == 1.0
    assert found.right.share == 0.5 and found.right.count == 2 and "graded" in found.notes[0]
    assert found.readouts["confidence"].mean.edge == 0.5


def test_format_is_compared_among_those_that_keep_it() -> None:
    beside = Beside(keeps_format=np.array([1.0, 1, 0]), same_as_printed=np.array([1.0, 0, 0]))
    greedy = evaluated(results([1, 1, 1], [1, 1, 1]), beside=beside).greedy
    assert greedy is not None
    assert (greedy.keeps_format.count, greedy.keeps_format.questions, greedy.same.count, greedy.same.questions) == (2, 3, 1, 2)


def test_very_many_questions_get_no_intervals_and_a_note() -> None:
    n = readout.MOST_FOR_INTERVALS + 1
    found = evaluated(results(np.arange(n) % 5 / 4, np.arange(n) % 3 == 0, more={"other": np.arange(n) % 7 / 6}))
    assert "More than 250,000 questions" in found.notes[0] and found.readouts["other"].compared == ()
    assert found.readouts["other"].intervals == {} and found.readouts["other"].auroc > 0 and list(tables.lines(found, 80))


def test_json_keeps_the_names_that_programs_read() -> None:
    data = evaluated(drawn(200)).to_dict()
    assert data["simulated_cloud_accuracy"] == 0.95 and "a simulated cloud" in data["cloud"]["words"]
    assert set(data["right"]) == {"questions", "count", "share", "low", "high"}
    line = {"domain", "questions", "cloud", "edge", "edge_low", "edge_high", "random", "system", "routed", "lift"}
    assert set(data["readouts"]["confidence"]["mean"]) == line and data["readouts"]["confidence"]["mean"]["edge_low"] is None
    assert {"auroc", "ece", "brier", "apgr", "cpt_50", "cpt_80"} <= set(data["readouts"]["confidence"])
    live = evaluated(replace(drawn(200), cloud=CloudSource("live", "big"))).to_dict()
    assert live["simulated_cloud_accuracy"] is None and live["cloud"]["words"] == "the cloud big"
