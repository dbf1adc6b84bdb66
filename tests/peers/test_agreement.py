"""Readings against llama.cpp's own grammar sampler, on two thousand held-out questions."""

from benchmarks.agreement import differences, held_out, noise
from edge_agent.engine.local_model import LocalModel
from tests.support.grammar import GrammarReference
from tests.support.paths import DEMO

N_QUESTIONS, N_NOISE = 2000, 50


def test_readings_and_grammar_differ_only_within_the_noise_of_the_arithmetic(demo_model: LocalModel) -> None:
    questions = held_out(N_QUESTIONS + N_NOISE)
    bound = noise(DEMO, questions[N_QUESTIONS:])
    with GrammarReference(DEMO) as reference:
        found = differences(demo_model, reference, questions[:N_QUESTIONS])
    assert all(difference.margin <= bound for difference in found), (bound, found)
    assert len(found) <= N_QUESTIONS // 200, found
