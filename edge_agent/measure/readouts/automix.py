"""AutoMix's self-verification with the same model: is this answer correct? The share of "correct" in 8 samples is the confidence.

As published (Aggarwal et al. 2024, arXiv 2310.12963), the model that answered is shown the question and its answer, says
"correct" or "incorrect" 8 times at a temperature, and the share of "correct" is the confidence. That is 9 passes a question.

What differs here, because FogGen models speak only their own format: the verification is a FogGen question with the options
"correct" and "incorrect", without worked examples. And the letter is not sampled 8 times by the model: one reading gives the
exact probability of "correct", and 8 seeded draws from it have the distribution of 8 samples at T = 1 (of the letter, after the
level that the reading chose). So 2 readings are run, and 9 passes are the price, as published.

Owns the verification question and the draws. Invariant: the same question, answer and seed give the same share.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from edge_agent.core import routing
from edge_agent.core.errors import BadQuestion
from edge_agent.core.question import Question
from edge_agent.core.records import Reading
from edge_agent.measure.readouts.orders import Reader

AUTOMIX = "automix"
"""The name of the readout, in `Results.scores` and in every table."""
N_SAMPLES = 8
_CORRECT, _INCORRECT = "correct", "incorrect"


@dataclass(frozen=True, slots=True)
class Verified:
    """`score` is the share of the samples that say "correct"; `correct_prob` is the probability they are drawn from.

    `n_passes` is the price as published: one answer and every sample. `n_read` readings were really run, and `ms` is their time.
    """

    score: float
    correct_prob: float
    n_passes: int
    n_read: int
    ms: float


def verification(question: Question, letter: str) -> Question:
    """The question that asks the model about its own answer."""
    options = "; ".join(question.options)
    answer = question.options[question.letters.index(letter)]
    return Question(f"{question.stem}\nPossible answers: {options}.\nIs the answer '{answer}' correct?", (_CORRECT, _INCORRECT))


def verify(model: Reader, question: Question, reading: Reading, n_samples: int = N_SAMPLES, seed: int = 0) -> Verified:
    """Ask the model about the answer of `reading`. `ms` includes that reading's own time.

    Raises `BadQuestion` for a question without options, or if the verification does not fit the context.
    """
    if not question.options:
        raise BadQuestion("The question has no options; this verification needs a model that chooses a letter.")
    started = time.perf_counter()
    (verdict,) = model.read_all([verification(question, reading.letter)])
    assert isinstance(verdict, Reading)  # it has options
    correct = verdict.answer_probs[0]
    draws = [routing.draw(question.fingerprint, f"automix:{seed}:{reading.letter}:{number}") for number in range(n_samples)]
    return Verified(
        score=sum(draw < correct for draw in draws) / n_samples,
        correct_prob=correct,
        n_passes=1 + n_samples,
        n_read=2,
        ms=(time.perf_counter() - started) * 1000 + reading.timings.total_ms,
    )
