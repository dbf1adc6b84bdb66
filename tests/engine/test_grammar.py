"""Readings against llama.cpp's own grammar sampler, on held-out questions."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from edge_agent.core.question import Question
from edge_agent.core.records import Reading
from edge_agent.engine.local_model import LocalModel
from models.recipe.bank import DOMAINS, draw_many
from tests.support.grammar import GrammarReference
from tests.support.paths import DEMO

N_QUESTIONS = 504
NEAR_TIE = 0.05  # of probability between the two best; closer than this, the two ways of evaluating may differ


@dataclass(frozen=True)
class Case:
    question: Question
    reading: Reading
    reference: tuple[str, str]

    def agrees(self) -> bool:
        return (self.reading.level, self.reading.letter) == self.reference

    def is_near_tie(self) -> bool:
        """Whether the two choices at the branch where they differ were almost equal."""
        level, letter = self.reference
        reading = self.reading
        if level != reading.level:
            at = next(i for i, (a, b) in enumerate(zip(level, reading.level, strict=False)) if a != b)
            here, one, other = (self._mass(text) for text in (level[:at], level[: at + 1], reading.level[: at + 1]))
            return abs(one - other) / here < NEAR_TIE
        return abs(reading.answer_probs[reading.letters.index(letter)] - max(reading.answer_probs)) < NEAR_TIE

    def _mass(self, start: str) -> float:
        """The probability of the levels that begin like this."""
        pairs = zip(self.reading.levels, self.reading.level_probs, strict=True)
        return sum(probability for level, probability in pairs if level.startswith(start))


@pytest.fixture(scope="module")
def reference() -> Iterator[GrammarReference]:
    with GrammarReference(DEMO) as opened:
        yield opened


@pytest.fixture(scope="module")
def cases(demo_model: LocalModel, reference: GrammarReference) -> list[Case]:
    items = [item for domain in DOMAINS for item in draw_many(3, N_QUESTIONS // len(DOMAINS), "test", domain)]
    questions = [Question(item.stem, item.options) for item in items]
    return [Case(q, demo_model.read(q), reference.read(demo_model, q)) for q in questions]


def test_every_answer_is_legal(cases: list[Case]) -> None:
    assert len(cases) == N_QUESTIONS
    assert all(c.reading.level in c.reading.levels and c.reading.letter in c.question.letters for c in cases)


def test_readings_and_grammar_agree_except_for_near_ties(cases: list[Case]) -> None:
    differing = [case for case in cases if not case.agrees()]
    assert all(case.is_near_tie() for case in differing), differing
    assert len(differing) <= N_QUESTIONS // 50, differing  # the demo model is unsure of many of these questions


def test_grammar_of_tokens_gives_the_answers_of_the_grammar_of_characters(
    cases: list[Case], demo_model: LocalModel, reference: GrammarReference
) -> None:
    """The demo model has learned the format in the tokenizer's own tokens, so both grammars agree for it."""
    some = cases[::25]
    assert sum(reference.read(demo_model, case.question, own_tokens=True) == case.reference for case in some) >= len(some) - 1


def test_model_is_sure_about_some_and_unsure_about_others(cases: list[Case]) -> None:
    kept = sum(case.reading.confidence >= 0.5 for case in cases)
    assert 0.1 * N_QUESTIONS < kept < 0.9 * N_QUESTIONS


def test_demo_model_speaks_the_format(cases: list[Case], demo_model: LocalModel) -> None:
    silent = [case for case in cases if case.reading.format_mass < demo_model.profile.format_mass_min]
    assert len(silent) <= N_QUESTIONS // 100
