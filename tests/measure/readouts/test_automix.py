"""AutoMix's verification: seeded draws from the model's own judgement, and its price."""

from collections.abc import Sequence

import pytest

from edge_agent.core.errors import BadQuestion
from edge_agent.core.question import Question
from edge_agent.core.records import Reading, Timings
from edge_agent.engine.local_model import LocalModel
from edge_agent.measure.readouts import automix
from edge_agent.model.profile import LEVELS

QUESTION = Question("What is 12 + 7?", ("18", "19"))


def reading(letters: str, probs: tuple[float, ...]) -> Reading:
    return Reading(
        levels=LEVELS, level_probs=(0.0, 0.0, 1.0, 0.0, 0.0), level="0.5", format_mass=1.0, letters=letters,
        answer_probs=probs, letter=letters[probs.index(max(probs))], timings=Timings(total_ms=5.0),
    )  # fmt: skip


class Judge:
    """A model that finds every answer correct with one probability."""

    def __init__(self, correct: float) -> None:
        self.correct, self.asked = correct, []

    def read_all(self, questions: Sequence[Question]) -> list[Reading]:
        self.asked += questions
        return [reading("AB", (self.correct, 1 - self.correct)) for _ in questions]


def test_the_model_is_asked_about_its_own_answer() -> None:
    judge = Judge(1.0)
    found = automix.verify(judge, QUESTION, reading("AB", (0.1, 0.9)))
    (asked,) = judge.asked
    assert "12 + 7" in asked.stem and "'19'" in asked.stem and asked.options == ("correct", "incorrect")
    assert (found.score, found.correct_prob, found.n_passes, found.n_read) == (1.0, 1.0, 9, 2) and found.ms >= 5.0
    assert automix.verify(Judge(0.0), QUESTION, reading("AB", (0.1, 0.9))).score == 0.0


def test_draws_belong_to_question_answer_and_seed() -> None:
    def score(stem: str = "q", answer: tuple[float, float] = (0.9, 0.1), seed: int = 0) -> float:
        return automix.verify(Judge(0.5), Question(stem, ("a", "b")), reading("AB", answer), 200, seed).score

    assert score() == score()
    assert len({score(), score(stem="r"), score(answer=(0.1, 0.9)), score(seed=1)}) == 4


def test_shares_have_the_distribution_of_eight_samples() -> None:
    """Mean and variance of a binomial share: p and p (1 - p) / 8."""
    n, p = 4000, 0.3
    shares = [automix.verify(Judge(p), Question(f"q{i}", ("a", "b")), reading("AB", (0.9, 0.1))).score for i in range(n)]
    mean = sum(shares) / n
    variance = sum((share - mean) ** 2 for share in shares) / n
    assert mean == pytest.approx(p, abs=4 * (p * (1 - p) / 8 / n) ** 0.5)
    assert variance == pytest.approx(p * (1 - p) / 8, rel=0.1) and {share * 8 for share in shares} <= set(range(9))


def test_a_question_without_options_is_refused() -> None:
    with pytest.raises(BadQuestion, match="no options"):
        automix.verify(Judge(1.0), Question("Why?", (), "open"), reading("AB", (0.9, 0.1)))


def test_the_demo_model_verifies(demo_model: LocalModel) -> None:
    first = demo_model.read(QUESTION)
    assert isinstance(first, Reading)
    found = automix.verify(demo_model, QUESTION, first)
    assert found == automix.Verified(found.score, found.correct_prob, 9, 2, found.ms) and 0 <= found.score <= 1
    assert found.score == automix.verify(demo_model, QUESTION, first).score
