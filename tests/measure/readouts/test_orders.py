"""Averages over option orders: unbiased, in the question's own letters, and each order asked once."""

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.errors import BadQuestion
from edge_agent.core.question import LETTERS, Question
from edge_agent.core.records import Reading, Timings
from edge_agent.engine.local_model import LocalModel
from edge_agent.measure.readouts import orders
from edge_agent.model.profile import LEVELS

COUNTS = st.integers(min_value=2, max_value=26)


class Biased:
    """A model with a preference for each place, beside what it knows: the text "w7" is worth e to the power of 7."""

    def __init__(self, bias: Sequence[float]) -> None:
        self.bias, self.asked = bias, []

    def read_all(self, questions: Sequence[Question]) -> list[Reading]:
        self.asked += questions
        return [self.read(question) for question in questions]

    def read(self, question: Question) -> Reading:
        weights = [math.exp(float(text[1:])) * bias for text, bias in zip(question.options, self.bias, strict=False)]
        probs = tuple(weight / sum(weights) for weight in weights)
        return Reading(
            levels=LEVELS, level_probs=(0.0, 0.0, 0.5, 0.5, 0.0), level="0.5", format_mass=1.0, letters=question.letters,
            answer_probs=probs, letter=question.letters[probs.index(max(probs))], timings=Timings(total_ms=7.0),
        )  # fmt: skip


def question_of(n: int) -> Question:
    return Question("Which one?", tuple(f"o{place}" for place in range(n)))


@given(COUNTS, st.sampled_from([orders.REVERSED, orders.ALL]), st.randoms())
def test_probabilities_come_back_to_their_own_letters(n: int, n_orders: int, rng: random.Random) -> None:
    """A model that knows the worth of each text and has no favourite place says the same in every order."""
    worths = rng.sample(range(n * 3), n)
    question = Question("Which one?", tuple(f"w{worth / 10}" for worth in worths))
    model = Biased([1.0] * n)
    found = orders.read(model, question, n_orders)
    assert found.letter == LETTERS[worths.index(max(worths))] and found.agreed
    assert found.answer_probs == pytest.approx(model.read(question).answer_probs)
    assert found.score == pytest.approx(max(found.answer_probs))
    assert found.n_passes == (2 if n_orders == orders.REVERSED else n) == len(model.asked)


@given(COUNTS)
def test_every_option_stands_at_every_place_once(n: int) -> None:
    shifts = orders.orders(n, orders.ALL)
    assert shifts[0] == tuple(range(n)) and all(sorted(places) == list(range(n)) for places in zip(*shifts, strict=True))
    assert orders.orders(n, orders.REVERSED) == [tuple(range(n)), tuple(reversed(range(n)))]
    assert orders.permuted(question_of(n), shifts[1]).options == (*question_of(n).options[1:], "o0")


@given(st.integers(min_value=2, max_value=8), st.randoms())
def test_a_preference_for_places_is_gone_after_all_shifts(n: int, rng: random.Random) -> None:
    """Where the model knows nothing, one reading follows its favourite place, and the mean over all shifts is even."""
    bias = rng.sample(range(1, 100), n)
    question = Question("Which one?", ("w1",) * n)
    found = orders.read(Biased(bias), question, orders.ALL)
    assert found.answer_probs == pytest.approx((1 / n,) * n)
    assert max(Biased(bias).read(question).answer_probs) > 1 / n + 1e-6


def test_the_reading_that_is_there_is_not_asked_again() -> None:
    model, question = Biased([5, 1, 1]), Question("Which one?", ("w0", "w0.5", "w0"))
    first = model.read(question)
    whole, rest = orders.read(model, question, orders.ALL), Biased([5, 1, 1])
    again = orders.read(rest, question, orders.ALL, first)
    assert len(rest.asked) == 2 and question not in rest.asked and again.n_passes == 3 and again.ms >= 7.0
    assert (again.letter, again.score, again.answer_probs) == (whole.letter, whole.score, whole.answer_probs)


def test_a_flipped_answer_is_not_agreed() -> None:
    favours_a = Biased([100, 1, 1])
    assert not orders.read(favours_a, Question("Which one?", ("w0", "w1", "w0.5")), orders.REVERSED).agreed
    assert orders.read(favours_a, Question("Which one?", ("w9", "w1", "w0")), orders.REVERSED).agreed
    twins = Question("Which one?", ("w1", "w0", "w1"))  # the same text at both ends is the same answer
    assert orders.read(favours_a, twins, orders.REVERSED).agreed


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("red", "blue", "all of the above"), True),
        (("red", "blue", "None of the above."), True),
        (("red", "blue", "both A and B"), True),
        (("red", "blue", "(A) and (B)"), True),
        (("red", "blue", "A, B and C"), True),
        (("red", "blue", "A & C only"), True),
        (("red", "blue", "Neither A nor B"), True),
        (("red", "blue", "answers B or C"), True),
        (("red", "blue", "None of these"), True),
        (("red", "blue", "All of these answers"), True),
        (("қызыл", "көк", "A және B"), True),
        (("қызыл", "көк", "жоғарыдағының барлығы"), True),
        (("да", "нет", "Все вышеперечисленное"), True),
        (("red", "blue", "green"), False),
        (("vitamins A and D", "vitamin C", "iron"), False),
        (("Type A", "Type B", "Type O"), False),
        (("a and b", "c", "d"), False),  # names in a formula, not letters
        (("A", "B", "C"), False),
        (("X and Y", "Y and Z", "X"), False),
        (("all people", "no one", "some people"), False),
        (("it rose above all others", "it fell", "it stayed"), False),
    ],
)
def test_options_that_point_at_others_are_found(options: tuple[str, ...], expected: bool) -> None:
    assert orders.refers(Question("Which one?", options)) is expected


def test_a_question_without_options_has_no_orders() -> None:
    with pytest.raises(BadQuestion, match="no options"):
        orders.read(Biased([]), Question("Why?", (), "open"))
    with pytest.raises(ValueError, match="3 orders"):
        orders.orders(5, 3)


def test_the_demo_model_is_asked_in_every_order(demo_model: LocalModel) -> None:
    question = Question("What is 12 + 7?", ("18", "19", "29"))
    single = demo_model.read(question)
    found = orders.read(demo_model, question, orders.ALL)
    singles = [demo_model.read(orders.permuted(question, order)) for order in orders.orders(3, orders.ALL)]
    by_hand = [
        sum(r.answer_probs[r_at] for r, r_at in zip(singles, places, strict=True)) / 3 for places in ((0, 2, 1), (1, 0, 2), (2, 1, 0))
    ]
    assert found.answer_probs == pytest.approx(by_hand, abs=0.02) and found.n_passes == 3 and found.ms > 0
    assert sum(found.answer_probs) == pytest.approx(1) and isinstance(single, Reading)
