"""Several questions in one turn: the same readings as one by one, their common beginning evaluated once, nobody starved."""

import itertools
import threading

import numpy as np
import pytest

from edge_agent.core.errors import BadQuestion, ModelBusy
from edge_agent.core.question import Question
from edge_agent.core.records import OpenReading, Reading
from edge_agent.engine.local_model import QUESTIONS_A_TURN, LocalModel
from tests.support.paths import DEMO

STATE = "A customer writes: I was charged twice for one order, and nobody answers my letters. " * 4


def over(state: str, n: int) -> list[Question]:
    return [Question(f"{state}\n\nWhich number is {i}?", (str(i), str(i + 1), "none")) for i in range(n)]


def evaluated(readings: list[Reading | OpenReading]) -> int:
    """How many tokens of prompts were evaluated."""
    return sum(reading.timings.n_prompt_tokens - reading.timings.n_cached_tokens for reading in readings)


def test_readings_are_those_of_the_questions_one_by_one() -> None:
    questions = [*over(STATE, 5), Question("Which?", ("a", "b")), Question(f"{STATE}\n\nWhich?", tuple("abcdefghijklmnopqrstuvwxyz"))]
    with LocalModel(DEMO) as together, LocalModel(DEMO) as alone:
        readings = together.read_all(questions)
        for question, reading in zip(questions, readings, strict=True):
            expected = alone.read(question)
            assert isinstance(reading, Reading) and isinstance(expected, Reading)
            assert (reading.level, reading.letter, reading.letters) == (expected.level, expected.letter, question.letters)
            assert np.allclose(reading.level_probs, expected.level_probs, atol=0.02)
            assert np.allclose(reading.answer_probs, expected.answer_probs, atol=0.02)


def test_common_state_is_evaluated_once(demo_model: LocalModel) -> None:
    questions = over(STATE, 8)
    n_state = len(demo_model.prompt_tokens(Question(STATE, ("a", "b"))))
    demo_model.read(Question("Something else", ("a", "b")))
    readings = demo_model.read_all(questions)
    cached = sorted(reading.timings.n_cached_tokens for reading in readings)
    assert cached[0] < 120 and cached[1] > 0.9 * n_state
    assert evaluated(readings) < n_state + 8 * 40


def test_states_in_turn_are_read_one_after_another(demo_model: LocalModel) -> None:
    """Whatever the order of the questions, each state is evaluated once."""
    other = STATE.replace("customer", "tenant")
    mixed = [question for pair in zip(over(STATE, 4), over(other, 4), strict=True) for question in pair]
    readings = demo_model.read_all(mixed)
    assert evaluated(readings) < evaluated(demo_model.read_all([*over(f"Again. {STATE}", 4), *over(f"Again. {other}", 4)])) + 40
    assert [reading.letters for reading in readings] == ["ABC"] * 8


def test_one_question_that_does_not_fit_refuses_all_before_any_work(demo_model: LocalModel) -> None:
    before, seen = demo_model.n_forward, []
    with pytest.raises(BadQuestion, match="shorten the question"):
        demo_model.read_all([*over(STATE, 2), Question("word " * 3000, ("a", "b"))], lambda i, level: seen.append(i))
    with pytest.raises(BadQuestion, match="with its options"):
        demo_model.read_all([*over(STATE, 2), Question("Who?", (), "open")], lambda i, level: seen.append(i))
    assert demo_model.n_forward == before and seen == []


def test_no_question_comes_between_until_the_turn_is_over_and_then_one_does() -> None:
    order: list[str] = []
    with LocalModel(DEMO) as model:
        other = threading.Thread(target=lambda: model.read(Question("Mine?", ("a", "b")), lambda level: order.append("other")))

        def on_level(i: int, _: object) -> None:
            order.append("mine")
            if len(order) == 1:
                other.start()
                while model.n_waiting == 0:
                    pass

        readings = model.read_all(over(STATE, 35), on_level)
        other.join()
    assert order.index("other") == QUESTIONS_A_TURN == 16 and order.count("mine") == 35
    n_state = max(reading.timings.n_cached_tokens for reading in readings)
    assert sum(reading.timings.n_cached_tokens < n_state / 2 for reading in readings) == 2  # the state was read again after the other


def test_full_line_does_not_stop_questions_of_which_some_are_read() -> None:
    def on_level(i: int, _: object) -> None:
        model._line._limit = 0  # as full as it can be, and not for a moment only

    with LocalModel(DEMO) as model:
        assert len(model.read_all(over(STATE, QUESTIONS_A_TURN + 1), on_level)) == QUESTIONS_A_TURN + 1
        with pytest.raises(ModelBusy):
            model.read(Question("Mine?", ("a", "b")))


def test_caller_who_gives_up_leaves_a_model_that_works(demo_model: LocalModel) -> None:
    with pytest.raises(ModelBusy, match="did not answer within"):
        demo_model.read_all(over(STATE, 40), timeout_s=0.05)
    assert demo_model.read(Question("short", ("a", "b"))).answer in "AB" and demo_model.n_waiting == 0


def test_timings_count_the_wait_for_the_questions_before(demo_model: LocalModel) -> None:
    times = [reading.timings for reading in demo_model.read_all(over(STATE, 4))]
    waited = sorted(time.waited_ms for time in times)
    assert waited[0] < 50 and all(later > earlier for earlier, later in itertools.pairwise(waited))
    assert all(time.total_ms == pytest.approx(time.waited_ms + time.prefill_ms + time.decode_ms, rel=0.05, abs=20) for time in times)


def test_no_question_is_no_work(demo_model: LocalModel) -> None:
    assert demo_model.read_all([]) == []
