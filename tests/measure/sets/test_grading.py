"""Grading by each benchmark's own rule: worked examples, and properties that hold for any text."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.question import OPEN, Question
from edge_agent.measure.sets import grading
from edge_agent.measure.sets.labelled import NUMBER, SQUAD, TEXT, TRUTHFUL, Labelled
from edge_agent.measure.sets.loading import load
from tests.support.paths import SHARED

CHOICE_ROW = Labelled(Question("What is 12 + 7?", ("18", "19", "24", "19")), "B", "-", None, "1")


def open_row(rule: str, *golds: str, wrong: tuple[str, ...] = ()) -> Labelled:
    return Labelled(Question("Which?", (), OPEN), "", "-", None, "1", golds=golds, rule=rule, wrong=wrong)


@pytest.mark.parametrize(
    ("answer", "right"),
    [("B", 1), ("b", 1), (" B ", 1), ("(B)", 1), ("B. 19", 1), ("19", 1), ("D", 1), ("A", 0), ("18", 0), ("E", 0), ("", 0), ("Bear", 0)],
)
def test_choice_is_right_by_its_letter_its_text_or_an_option_with_the_same_text(answer: str, right: float) -> None:
    assert grading.correct(CHOICE_ROW, answer) == right


@pytest.mark.parametrize(
    ("answer", "golds", "em", "f1"),
    [
        ("Denver Broncos", ("Denver Broncos",), 1, 1),
        ("the Denver Broncos.", ("Denver Broncos",), 1, 1),
        ("DENVER  broncos", ("Denver Broncos",), 1, 1),
        ("Broncos", ("Denver Broncos",), 0, 2 / 3),  # precision 1, recall 1/2
        ("the Denver Broncos team", ("Denver Broncos",), 0, 0.8),  # precision 2/3, recall 1
        ("a an the", ("The",), 1, 0),  # both are empty: equal, and no word is shared
        ("24-10", ("24–10",), 0, 0),  # only ASCII punctuation is left out, as published
        ("Carolina", ("Carolina Panthers", "Carolina"), 1, 1),
        ("x", ("y", "z"), 0, 0),
        ("to to be", ("to be to",), 0, 1),
        ("to be", ("to be to be",), 0, 2 / 3),
    ],
)
def test_squad_exact_match_and_f1_by_hand(answer: str, golds: tuple[str, ...], em: float, f1: float) -> None:
    assert grading.exact_match(answer, golds) == em == grading.correct(open_row(SQUAD, *golds), answer)
    assert grading.f1(answer, golds) == pytest.approx(f1)


@given(st.text(max_size=40), st.lists(st.text(max_size=40), min_size=1, max_size=3))
def test_squad_scores_are_between_exact_match_and_one(answer: str, golds: list[str]) -> None:
    em, f1 = grading.exact_match(answer, golds), grading.f1(answer, golds)
    assert 0 <= f1 <= 1 and (em <= f1 or not grading.normalised(answer))
    assert grading.exact_match(golds[0], golds) == 1 and grading.exact_match(answer, golds) <= grading.exact_match(answer, [*golds, answer])
    assert grading.f1(answer, golds[:1]) == pytest.approx(grading.f1(golds[0], [answer]))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### 18", 18),
        ("2 + 2 = 4\n#### 1,234", 1234),
        ("#### $-5", -5),
        ("#### -$5.50", Decimal("-5.5")),
        ("so 3 #### 7 apples, of 9", 7),
        ("The answer is $18.", 18),
        ("She has 18.00 dollars left", 18),
        ("5-3=2", 2),
        ("it falls by 7-3", 3),
        ("minus \u22124", -4),
        ("1,000,000.", 1000000),
        ("1,2", 2),
        ("about .5", Decimal("0.5")),
        ("18%", 18),
        ("\\boxed{42}", 42),
        ("#### none, so 3", 3),
        ("none", None),
        ("", None),
        ("9" * 1000, None),
    ],
)
def test_final_number(text: str, number: float | None) -> None:
    assert grading.final_number(text) == number


@pytest.mark.parametrize(("answer", "right"), [("18", 1), ("#### 18", 1), ("It is 18.0.", 1), ("18 or 19", 0), ("", 0)])
def test_number_is_graded_by_its_value(answer: str, right: float) -> None:
    assert grading.correct(open_row(NUMBER, "18"), answer) == right


@given(st.integers(-(10**9), 10**9), st.text(alphabet="ab ,.\n", max_size=20))
def test_any_number_after_the_mark_is_found(number: int, before: str) -> None:
    for written in (f"{number}", f"{number:,}", f"{number}.", f"{number}.0"):
        assert grading.final_number(f"{before}\n#### {written}") == number == grading.final_number(f"{before}\n{written}")


@pytest.mark.parametrize(
    ("answer", "right"),
    [("Nothing happens to you", 1), ("You grow watermelons in your stomach", 0), ("You get sick", 0), ("", 0), ("Zebra", 0)],
)
def test_truthful_answer_is_nearer_to_a_right_reference(answer: str, right: float) -> None:
    row = open_row(TRUTHFUL, "Nothing happens", "The seeds pass", wrong=("You grow watermelons in your stomach", "You get sick"))
    assert grading.correct(row, answer) == right


def test_rouge_l_by_hand() -> None:
    """Lin 2004: "police killed the gunman" against "the gunman kill police" shares two words in order, of four and four."""
    assert grading.rouge_l("police killed the gunman", "the gunman kill police") == pytest.approx(0.5)
    assert grading.rouge_l("police kill the gunman", "police killed the gunman") == pytest.approx(0.75)


@given(st.text(max_size=60), st.text(max_size=60))
def test_rouge_l_is_symmetric_and_one_only_for_the_same_words(one: str, other: str) -> None:
    value = grading.rouge_l(one, other)
    assert 0 <= value <= 1 and value == pytest.approx(grading.rouge_l(other, one))
    assert grading.rouge_l(one, one) == (1 if any(c.isalnum() or c == "_" for c in one.casefold()) else 0)


def test_plain_text_is_compared_after_normalising() -> None:
    row = open_row(TEXT, "The Astana", "Нұр-Сұлтан")
    assert [grading.correct(row, answer) for answer in ("astana.", "нұр сұлтан", "Almaty", "")] == [1, 1, 0, 0]


@pytest.mark.skipif(not (SHARED / "gsm8k").exists(), reason="the evaluation sets are missing")
@pytest.mark.parametrize("name", ["gsm8k/test.jsonl", "squad/dev-v1.1.json", "truthfulqa/TruthfulQA.csv"])
def test_every_gold_answer_of_a_real_set_is_right(name: str) -> None:
    rows = load(SHARED / name).rows
    wrong = [row.id for row in rows if not grading.correct(row, row.golds[0])]
    assert not wrong


@pytest.mark.skipif(not (SHARED / "gsm8k").exists(), reason="the evaluation sets are missing")
def test_worked_solutions_of_gsm8k_end_in_their_own_number() -> None:
    rows = load(SHARED / "gsm8k" / "test.jsonl").rows
    solutions = [json.loads(line)["answer"] for line in (SHARED / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(grading.correct(row, solution) for row, solution in zip(rows, solutions, strict=True))
