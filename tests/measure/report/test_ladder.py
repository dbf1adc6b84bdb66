"""The quantization ladder: paired by question, with a tau for each file that reaches the same share, and one file to take."""

import dataclasses

import numpy as np
import pytest

from edge_agent.core.errors import BadData
from edge_agent.measure.report.ladder import choose, climb
from edge_agent.measure.report.measured import Measured
from edge_agent.measure.results import Results
from tests.support.report_models import measured, results


def runs(n: int = 4000) -> list[Measured]:
    return [measured(results(n, kind="recorded", quantization=name, seed=seed)) for seed, name in enumerate(("F16", "Q8_0", "Q4_0"))]


def shifted(found: Results, by: float) -> Results:
    """The same answers, less or more sure: what a quantization does to a threshold."""
    return dataclasses.replace(found, scores={**found.scores, "confidence": np.clip(found.scores["confidence"] + by, 0, 1)})


def test_first_file_differs_from_itself_in_nothing() -> None:
    first = climb(runs())[0]
    assert (first.changed, first.difference, first.difference_low, first.difference_high) == (0, 0, 0, 0)
    assert first.routed == first.target


def test_changed_routes_are_paired_by_question_whatever_the_order_of_the_rows() -> None:
    one, other = runs(500)[:2]
    expected = float((one.deferred != other.deferred).mean())
    turned = dataclasses.replace(other, results=other.results.part(np.arange(500)[::-1]))
    assert expected > 0
    assert climb([one, other])[1].changed == climb([one, turned])[1].changed == pytest.approx(expected)


def test_only_common_questions_count() -> None:
    one, other = runs(500)[:2]
    half = dataclasses.replace(other, results=other.results.part(np.arange(0, 500, 2)))
    rungs = climb([one, half])
    assert [rung.questions for rung in rungs] == [250, 250]
    strange = dataclasses.replace(other, results=dataclasses.replace(other.results, fingerprints=tuple(map(str, range(500)))))
    with pytest.raises(BadData, match="no questions in common"):
        climb([one, strange])


def test_own_tau_reaches_the_share_where_the_first_files_tau_does_not() -> None:
    first, less_sure = runs()[0], measured(shifted(runs()[0].results, -0.25))
    rung = climb([first, less_sure])[1]
    assert rung.routed > rung.target + 0.1
    assert rung.reaches and rung.reached == pytest.approx(rung.target, abs=0.03)


def test_target_is_reached_within_its_interval_about_as_often_as_that_says() -> None:
    """The half that chooses the tau has a sampling error, too, so an interval of the other half alone would be too short."""
    drawn = np.random.default_rng(3)
    hits = []
    for _ in range(60):
        names = tuple(map(str, drawn.integers(0, 1 << 60, 400)))
        model = measured(dataclasses.replace(results(400, kind="recorded"), fingerprints=names))
        hits.append(climb([model, model])[1].reaches)
    assert sum(hits) >= 52


def test_fastest_file_that_costs_little_is_chosen() -> None:
    models = runs()
    speeds = {"F16": 30.0, "Q8_0": 20.0, "Q4_0": 10.0}
    timed = [
        dataclasses.replace(model, results=dataclasses.replace(model.results, read_ms=np.full(4000, speeds[name])))
        for name, model in zip(speeds, models, strict=True)
    ]
    assert choose(climb(timed))[0].name == "Q4_0"
    wrong = timed[2].results
    broken = dataclasses.replace(wrong, edge_correct=np.where(np.arange(4000) % 5 == 0, 0.0, wrong.edge_correct))
    best, why = choose(climb([timed[0], timed[1], dataclasses.replace(timed[2], results=broken)]))
    assert best.name == "Q8_0" and "fastest file that costs at most 1 point against F16" in why
    best, why = choose(climb([timed[0], dataclasses.replace(timed[2], results=broken)]))
    assert best.name == "F16" and "no faster file is sure to cost at most 1 point" in why


def test_files_are_named_by_what_tells_them_apart() -> None:
    same = [measured(results(50, kind="recorded", name=name)) for name in ("a", "b")]
    assert [rung.name for rung in climb(same)] == ["a", "b"]
    assert [rung.name for rung in climb([same[0], same[0]])] == ["1. a", "2. a"]
