"""Typed questions: their wording, the rounds of many options, and the figures of typed APIs."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.errors import BadData, BadQuestion
from edge_agent.core.question import Question
from edge_agent.core.typed import (
    MAX_OPTIONS,
    Rounds,
    TypedKind,
    TypedQuestion,
    confidence,
    expected_score,
    score_confidence,
    tempered,
)

STATE = "I was charged twice."


def names(n: int) -> list[tuple[str, object]]:
    return [(f"team {i}", None) for i in range(n)]


def distribution(weights: list[float]) -> list[float]:
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def distributions(n: int) -> st.SearchStrategy[list[float]]:
    weight = st.one_of(st.just(0.0), st.floats(1e-300, 1.0), st.floats(0.1, 1.0))
    return st.lists(weight, min_size=n, max_size=n).filter(lambda row: math.fsum(row) > 1e-290).map(distribution)


@st.composite
def played(draw: st.DrawFn) -> Rounds:
    """A choice between 2 to 255 options, with every round answered."""
    rounds = Rounds(TypedQuestion.choice(STATE, "Which?", names(draw(st.integers(2, MAX_OPTIONS)))))
    while not rounds.is_over:
        rounds.answered([draw(distributions(len(question.options))) for question in rounds.questions])
    return rounds


def test_choice_puts_the_state_first_and_one_option_a_line() -> None:
    asked = TypedQuestion.choice({"text": STATE}, "Which team?", [("Billing", {"owns": ["invoices", "refunds"]}), ("Sales", None)])
    (question,) = Rounds(asked).questions
    assert question.user_message == "text: I was charged twice.\n\nWhich team?\nA. Billing: owns: invoices, refunds\nB. Sales"


def test_yes_or_no_is_a_choice_with_yes_first() -> None:
    (question,) = Rounds(TypedQuestion.yes_no(STATE, "Is it about money?", if_true="Money\nis named.")).questions
    assert question.user_message == f"{STATE}\n\nIs it about money?\nA. Yes: Money is named.\nB. No"


def test_score_has_its_levels_in_order() -> None:
    (question,) = Rounds(TypedQuestion.score(STATE, "How angry?", ["Calm", {"label": "Angry"}])).questions
    assert question.options == ("Calm", "label: Angry")


def test_questions_over_one_state_begin_with_the_same_text() -> None:
    asked = [TypedQuestion.choice(STATE, "Which?", names(3)), TypedQuestion.yes_no(STATE, "Right?"), TypedQuestion.score(STATE, "?", "ab")]
    assert all(one.stem.startswith(f"{STATE}\n\n") for one in asked)


@pytest.mark.parametrize("state", ["", " ", None, {}, []])
def test_without_state_or_instructions_something_is_asked(state: Any) -> None:
    assert TypedQuestion.choice(state, None, names(2)).stem == "Which option fits best?"
    assert TypedQuestion.yes_no(state, "").stem == "Yes or no?"
    assert TypedQuestion.score(state, [], ["a", "b"]).stem == "Which level fits best?"


def test_options_that_would_be_the_same_get_their_numbers() -> None:
    asked = TypedQuestion.choice(
        STATE, "?", [("é", None), ("e\u0301", None), ("a  b", None), ("a\nb", None), ("a b (option 3)", None), ("c", None)]
    )
    assert asked.options == ("é (option 1)", "e\u0301 (option 2)", "a b (option 3) (option 3)", "a b (option 4)", "a b (option 3)", "c")


def test_option_without_a_visible_name_is_shown_as_an_empty_text() -> None:
    assert TypedQuestion.choice(STATE, "?", [("", None), (" \n", "none"), ("x", "")]).options == ('""', '"": none', "x")


@given(st.lists(st.tuples(st.text(), st.one_of(st.none(), st.text())), min_size=2, max_size=60))
def test_any_names_can_be_asked(options: list[tuple[str, object]]) -> None:
    for question in Rounds(TypedQuestion.choice(STATE, "?", options)).questions:
        question.check_options_differ()
        assert len(question.user_message.split("\n")) == 3 + len(question.options)


@pytest.mark.parametrize("n", [0, 1, 256])
def test_number_of_options_is_checked(n: int) -> None:
    with pytest.raises(BadQuestion, match="needs 2 to 255"):
        TypedQuestion.choice(STATE, "?", names(n))


@pytest.mark.parametrize("n", [0, 1, 11])
def test_number_of_levels_is_checked(n: int) -> None:
    with pytest.raises(BadQuestion, match="needs 2 to 10"):
        TypedQuestion.score(STATE, "?", [f"level {i}" for i in range(n)])


@pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
def test_text_that_utf8_cannot_hold_is_refused(text: str) -> None:
    for make in (
        lambda: TypedQuestion.choice(text, "?", names(2)),
        lambda: TypedQuestion.choice(STATE, text, names(30)),
        lambda: TypedQuestion.choice(STATE, "?", [*names(40), (text, None)]),
        lambda: TypedQuestion.score(STATE, "?", ["a", text]),
    ):
        with pytest.raises(BadQuestion, match="UTF-8"):
            make()


def test_never_send_is_kept_in_every_round() -> None:
    rounds = Rounds(TypedQuestion.choice(STATE, "?", names(30), never_send=True))
    assert [question.never_send for question in rounds.questions] == [True, True]


@pytest.mark.parametrize(("n", "sizes"), [(2, [2]), (26, [26]), (27, [13, 14]), (53, [17, 18, 18]), (255, [25] * 5 + [26] * 5)])
def test_rounds_have_few_groups_of_about_the_same_size(n: int, sizes: list[int]) -> None:
    rounds = Rounds(TypedQuestion.choice(STATE, "?", names(n)))
    assert sorted(len(question.options) for question in rounds.questions) == sizes
    assert [option for question in rounds.questions for option in question.options] == [name for name, _ in names(n)]
    assert rounds.is_last == (n <= 26)


def test_winners_meet_in_the_last_round() -> None:
    rounds = Rounds(TypedQuestion.choice(STATE, "?", names(28)))
    rounds.answered([[0.5, 0.3] + [0.2 / 12] * 12, [0.0] * 13 + [1.0]])
    assert rounds.is_last and [question.options for question in rounds.questions] == [("team 0", "team 27")]
    rounds.answered([[0.4, 0.6]])
    probs = rounds.probabilities
    assert rounds.winner == 27 and probs[14:27] == (0.0,) * 13
    assert probs[1] / probs[0] == pytest.approx(0.3 / 0.5) and probs[27] / probs[0] == pytest.approx(0.6 / 0.4)


@given(played())
def test_probabilities_sum_to_one_and_the_winner_has_the_largest(rounds: Rounds) -> None:
    probs = rounds.probabilities
    assert len(probs) == len(rounds.asked.options) and all(0 <= p <= 1 for p in probs)
    assert math.fsum(probs) == pytest.approx(1) and probs[rounds.winner] == max(probs)


@given(st.integers(2, 26).flatmap(distributions))
def test_one_round_leaves_the_probabilities_as_they_are(row: list[float]) -> None:
    rounds = Rounds(TypedQuestion.choice(STATE, "?", names(len(row))))
    rounds.answered([row])
    assert rounds.probabilities == pytest.approx(row) and row[rounds.winner] == max(row)


@given(st.lists(st.floats(0.01, 1.0), min_size=27, max_size=MAX_OPTIONS))
def test_answers_that_follow_the_axiom_are_found_again(weights: list[float]) -> None:
    rounds = Rounds(TypedQuestion.choice(STATE, "?", names(len(weights))))
    while not rounds.is_over:
        rounds.answered([distribution([weights[int(text[5:])] for text in question.options]) for question in rounds.questions])
    assert rounds.probabilities == pytest.approx(distribution(weights))


@pytest.mark.parametrize("probs", [[], [[0.5, 0.5]], [[0.5, 0.3, math.nan]], [[0.0, 0.0, 0.0]], [[2.0, -1.0, 0.0]], [[0.3, 0.3, 0.4]] * 2])
def test_probabilities_that_cannot_be_right_are_refused(probs: list[list[float]]) -> None:
    rounds = Rounds(TypedQuestion.choice(STATE, "?", names(3)))
    with pytest.raises(BadData):
        rounds.answered(probs)
    with pytest.raises(BadData):
        _ = rounds.probabilities
    rounds.answered([[0.3, 0.3, 0.4]])
    with pytest.raises(BadData):
        rounds.answered([[0.3, 0.3, 0.4]])


@given(st.integers(2, MAX_OPTIONS).flatmap(distributions))
def test_confidences_are_between_0_and_1(row: list[float]) -> None:
    assert 0 <= confidence(row) <= 1 and 0 <= score_confidence(row) <= 1 and 0 <= expected_score(row) <= len(row) - 1 + 1e-9


def test_confidence_is_0_at_chance_and_1_for_certain() -> None:
    assert confidence([0.25] * 4) == 0 and confidence([0, 1, 0]) == 1
    assert confidence([0.7, 0.2, 0.1]) == pytest.approx(0.55)


def test_confidence_of_a_score_counts_the_distance() -> None:
    assert score_confidence([0, 1, 0]) == 1 and score_confidence([0.5, 0, 0.5]) == 0
    assert score_confidence([0.8, 0.2, 0]) == pytest.approx(0.7) and score_confidence([0.8, 0, 0.2]) == pytest.approx(0.4)


def test_expected_score_is_the_mean_level() -> None:
    assert expected_score([0.1, 0.2, 0.7]) == pytest.approx(1.6)


def test_kinds_are_named_once() -> None:
    assert [kind.value for kind in TypedKind] == ["choice", "yes_no", "score"]
    assert isinstance(Rounds(TypedQuestion.yes_no(STATE, "?")).questions[0], Question)


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=9), st.floats(0, 1))
def test_tempered_probabilities_keep_their_order_and_have_the_wanted_largest(counts: list[int], most: float) -> None:
    probs = [count / sum(counts) for count in counts]
    found = tempered(probs, most)
    assert math.fsum(found) == pytest.approx(1)
    pairs = [(i, j) for i in range(len(probs)) for j in range(len(probs)) if counts[i] > counts[j]]
    assert all(found[i] > found[j] or found[i] == found[j] == 0 or math.isclose(found[i], found[j]) for i, j in pairs)
    assert max(found) == found[counts.index(max(counts))]
    n_top = counts.count(max(counts))
    if 1.01 / len(counts) < most <= 0.999 / n_top and n_top < len(counts):
        assert max(found) == pytest.approx(most, abs=1e-6)


def test_tempered_probabilities_of_one_that_is_as_likely_as_chance_are_nearly_alike() -> None:
    assert tempered([0.7, 0.2, 0.1], 1 / 3) == pytest.approx([1 / 3] * 3, abs=0.001)
    assert tempered([0.7, 0.2, 0.1], 0.0)[0] == max(tempered([0.7, 0.2, 0.1], 0.0))
