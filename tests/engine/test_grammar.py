"""The walk over the trie against llama.cpp's own grammar sampler, on held-out questions."""

from dataclasses import dataclass

import pytest

from edge_agent.core.question import Question
from edge_agent.core.records import Reading
from edge_agent.engine.local_model import LocalModel
from models.recipe.bank import DOMAINS, draw_many

N_QUESTIONS = 504
NEAR_TIE = 0.05  # of probability between the two best, where the two ways of evaluating may differ


@dataclass(frozen=True)
class Case:
    question: Question
    reading: Reading
    reference: tuple[str, str]

    def agrees(self) -> bool:
        return (self.reading.level, self.reading.letter) == self.reference

    def is_near_tie(self) -> bool:
        """Whether the branch at which they part was between two almost equal ones."""
        level, letter = self.reference
        reading = self.reading
        if level != reading.level:
            at = next(i for i, (a, b) in enumerate(zip(level, reading.level, strict=False)) if a != b)
            here, one, other = (self._mass(text) for text in (level[:at], level[: at + 1], reading.level[: at + 1]))
            return abs(one - other) / here < NEAR_TIE
        return abs(reading.answer_probs[reading.letters.index(letter)] - max(reading.answer_probs)) < NEAR_TIE

    def _mass(self, start: str) -> float:
        """Probability of the levels that begin so."""
        pairs = zip(self.reading.levels, self.reading.level_probs, strict=True)
        return sum(probability for level, probability in pairs if level.startswith(start))


@pytest.fixture(scope="module")
def cases(demo_model: LocalModel) -> list[Case]:
    items = [item for domain in DOMAINS for item in draw_many(3, N_QUESTIONS // len(DOMAINS), "test", domain)]
    questions = [Question(item.stem, item.options) for item in items]
    return [Case(q, demo_model.read(q), demo_model.read_by_grammar(q)) for q in questions]


def test_every_answer_is_legal(cases: list[Case]) -> None:
    assert len(cases) == N_QUESTIONS
    assert all(c.reading.level in c.reading.levels and c.reading.letter in c.question.letters for c in cases)


def test_walk_and_grammar_agree_but_for_near_ties(cases: list[Case]) -> None:
    differing = [case for case in cases if not case.agrees()]
    assert all(case.is_near_tie() for case in differing), differing
    assert len(differing) <= N_QUESTIONS // 50, differing  # this demo model is unsure of most of today's questions


def test_grammar_of_the_tokenizers_own_tokens_answers_as_that_of_characters(cases: list[Case], demo_model: LocalModel) -> None:
    """The demo model has learned the format in these tokens, so they only differ where a model has not."""
    some = cases[::25]
    assert sum(demo_model.read_by_grammar(case.question, own_tokens=True) == case.reference for case in some) >= len(some) - 1


def test_model_is_sure_about_some_and_unsure_about_others(cases: list[Case]) -> None:
    kept = sum(case.reading.confidence >= 0.5 for case in cases)
    assert 0.1 * N_QUESTIONS < kept < 0.9 * N_QUESTIONS


def test_demo_model_speaks_the_format(cases: list[Case], demo_model: LocalModel) -> None:
    silent = [case for case in cases if case.reading.format_mass < demo_model.profile.format_mass_min]
    assert len(silent) <= N_QUESTIONS // 100
