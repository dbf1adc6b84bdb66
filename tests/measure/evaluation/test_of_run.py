"""From a run to its figures: what the rows know beside the readings."""

import io

import pytest

from edge_agent.core.records import Reading, Timings
from edge_agent.measure.evaluation.of_run import beside, evaluate_run
from edge_agent.measure.run import run
from edge_agent.measure.run.answered import ALL_ORDERS, AnsweredRow, RunOptions
from edge_agent.measure.run.clouds import Simulated
from edge_agent.measure.sets import loading
from edge_agent.model.profile import LEVELS
from tests.support.run_data import FILES, data


def row(printed: str | None) -> AnsweredRow:
    """A row for a question with three options, answered with 0.75 and A."""
    reading = Reading(
        levels=LEVELS, level_probs=(0.0, 0.0, 0.0, 1.0, 0.0), level="0.75", format_mass=1.0, letters="ABC",
        answer_probs=(0.5, 0.3, 0.2), letter="A", timings=Timings(),
    )  # fmt: skip
    return AnsweredRow("1", "0" * 64, "-", None, "A", reading, 1.0, 10.0, printed)


def test_a_run_brings_every_readout_its_price_and_the_flips() -> None:
    made = run.answer(data(20), FILES, Simulated(0.9), RunOptions(orders=ALL_ORDERS, automix=True, greedy=True))
    found = evaluate_run(made, 0.75)
    assert {"confidence", "answer_prob", "margin", "orders_2", "orders_all", "automix"} <= set(found.readouts) and found.tau == 0.75
    for name in ("orders_2", "orders_all", "automix"):
        assert found.readouts[name].ms == pytest.approx(sum(each.extra[name].ms for each in made.rows) / 20)
    assert [found.readouts[name].passes for name in ("confidence", "orders_2", "automix")] == [1, 2, 9]
    assert found.orders is not None and found.orders.flipped.questions == 20
    assert found.orders.flipped.count == sum(not each.extra["orders_2"].agreed for each in made.rows)
    right = sum(each.extra["orders_all"].right for each in made.rows)
    readout = found.readouts["orders_all"]
    assert sum(line.edge * line.questions for line in readout.domains) == pytest.approx(right)
    assert found.greedy is not None and found.greedy.keeps_format.questions == 20
    assert evaluate_run(made).tau == made.facts.profile.tau


def test_options_that_point_at_others_are_counted_where_orders_are_asked() -> None:
    lines = b'{"question": "Which?", "options": ["red", "blue", "all of the above"], "answer": "A"}\n'
    asked = loading.read(io.BytesIO(lines * 2), "two")
    notes = [evaluate_run(run.answer(asked, FILES, Simulated(), RunOptions(orders=number))).notes for number in (0, 2)]
    assert not any("points at others" in note for note in notes[0])
    assert any(note.startswith("2 of 2 questions have an option that points at others") for note in notes[1])


@pytest.mark.parametrize(
    ("printed", "keeps"),
    [
        ("Confidence: 0.75\nFinal answer: C", True),
        ("Confidence:0.750\nso\nFinal  answer :C", True),  # the published expressions let this through
        ("Confidence: 0.8\nFinal answer: C", False),
        ("Confidence: 0.75\nFinal answer: D", False),
        ("Confidence: 0.7.5\nFinal answer: C", False),
        ("Confidence: high\nFinal answer: C", False),
        ("Final answer: C", False),
        ("Confidence: 0.75", False),
        ("", False),
    ],
)
def test_format_is_kept_when_a_level_and_a_letter_are_printed(printed: str, keeps: bool) -> None:
    assert row(printed).keeps_format is keeps


def test_printed_answers_are_compared_with_the_reading() -> None:
    facts = run.answer(data(1), FILES, Simulated()).facts
    printed = ("Confidence: 0.75\nFinal answer: A", "Confidence: 0.75\nFinal answer: B", "B")
    columns = beside(run.Run(facts, tuple(row(text) for text in printed)))
    assert columns.keeps_format is not None and columns.keeps_format.tolist() == [1, 1, 0]
    assert columns.same_as_printed is not None and columns.same_as_printed.tolist() == [1, 0, 0]
    assert beside(run.Run(facts, (row(None),))).keeps_format is None
