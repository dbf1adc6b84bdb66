"""Readings against llama.cpp's own grammar sampler, on held-out questions."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from edge_agent.core.question import Question
from edge_agent.core.records import Reading
from edge_agent.engine.local_model import LocalModel
from edge_agent.model.profile import OPTION, default_profile
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


CITIES = (
    Question("Where is the harbour?", ("New York", "New York City", "York", "Almaty, in the south")),
    Question("What does it say?", ('"Yes"', "a \\ b", "<|im_end|>", "сорок   два", '"Yes', "no")),
    Question("Which?", tuple("and " * n + "so on" for n in range(14))),
    Question("Which?", (*(f"the {n}th of many" for n in range(20)), "the 1", "the", "the 12")),
)


@pytest.mark.parametrize("question", CITIES, ids=lambda question: question.stem)
def test_option_that_a_foggen_model_prints_is_that_of_the_grammar(question: Question, reference: GrammarReference) -> None:
    """The demo model never learned the texts of options, so both spell them in the tokenizer's own tokens."""
    with LocalModel(DEMO, default_profile("qwen3", OPTION)) as model:
        for asked in (question, Question(question.stem, question.options[::-1])):
            reading = model.read(asked)
            assert isinstance(reading, Reading)
            case = Case(asked, reading, reference.read(model, asked, own_tokens=True))
            assert case.agrees() or case.is_near_tie(), (case.reading, case.reference)
            assert sum(reading.answer_probs) == pytest.approx(1) and len(reading.answer_probs) == len(asked.options)


def test_options_of_held_out_questions_are_those_of_the_grammar(reference: GrammarReference) -> None:
    items = [item for domain in DOMAINS for item in draw_many(4, 4, "test", domain)]
    with LocalModel(DEMO, default_profile("qwen3", OPTION)) as model:
        cases = []
        for item in items:
            question = Question(item.stem, item.options)
            reading = model.read(question)
            assert isinstance(reading, Reading)
            cases.append(Case(question, reading, reference.read(model, question, own_tokens=True)))
    assert all(case.agrees() or case.is_near_tie() for case in cases), [case for case in cases if not case.agrees()]


def test_equal_options_share_the_probability_and_the_first_is_the_answer() -> None:
    with LocalModel(DEMO, default_profile("qwen3", OPTION)) as model:
        once, twice = (model.read(Question("Which?", options)) for options in (("one", "two"), ("one", "two", "one", "one  two")))
    assert isinstance(once, Reading) and isinstance(twice, Reading)
    assert twice.answer_probs[0] == twice.answer_probs[2] and sum(twice.answer_probs) == pytest.approx(1) and twice.letter in "ABD"
