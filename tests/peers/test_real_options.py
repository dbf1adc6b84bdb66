"""The scores of options on real weights are those of an evaluation token by token. Skipped where the weights cannot be had."""

import contextlib
import pathlib

import numpy as np
import pytest

from edge_agent.core.question import Question
from edge_agent.engine.answers import Answers
from edge_agent.engine.llama import Llama, Options
from edge_agent.model import gguf, prompt
from edge_agent.model.profile import OPTION, Way, plain_profile

real_models = pytest.importorskip("tests.support.real_models")
NOISE = 0.01  # of a log-probability a token
QUESTIONS = (
    Question("Which gas do plants take in?", ("oxygen", "carbon dioxide", "carbon", "helium, the second lightest gas")),
    Question("What does the sign say?", ("</s> stop", "<|im_end|>", "<end_of_turn> go", "сорок два км/ч", "42")),
)


@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_scores_equal_a_sequential_evaluation(name: str) -> None:
    path = pathlib.Path(real_models.real_model(name))
    header = gguf.read_header(path)
    profile = plain_profile(header.metadata, Way("plain", OPTION))
    with contextlib.closing(Llama(path, Options().for_quantization(header.quantization), reads_options=True)) as llama:
        answers = Answers(llama, profile)
        for question in QUESTIONS:
            before = prompt.tokens(llama, profile.segments(profile.user_message(question)))
            paths = answers.legal(question)
            assert isinstance(paths, list) and not any(llama.is_added(token) for path in paths for token in path[: -len(answers.end)])
            for path_, score in zip(paths, answers.log_probs(before, paths), strict=True):
                total = 0.0
                for i, token in enumerate(path_):
                    llama.keep(0)  # at four bits a batch of one token differs by 0.2 from a larger one
                    logits = llama.logits([*before, *path_[:i]]).astype(np.float64)
                    total += logits[token] - logits.max() - np.log(np.exp(logits - logits.max()).sum())
                assert score == pytest.approx(total, abs=NOISE * len(path_))
