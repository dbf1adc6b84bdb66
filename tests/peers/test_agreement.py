"""The walk over the trie against llama.cpp's own grammar sampler, on two thousand held-out questions."""

from benchmarks.agreement import held_out, noise, partings
from edge_agent.engine.local_model import LocalModel

N_QUESTIONS, N_NOISE = 2000, 50


def test_walk_and_grammar_part_only_within_the_noise_of_the_arithmetic(demo_model: LocalModel) -> None:
    questions = held_out(N_QUESTIONS + N_NOISE)
    bound = noise(demo_model, questions[N_QUESTIONS:])
    found = partings(demo_model, questions[:N_QUESTIONS])
    assert all(parting.margin <= bound for parting in found), (bound, found)
    assert len(found) <= N_QUESTIONS // 200, found
