"""The batches and the scores of options, for any options and limits, against a model that is a function of the tokens before."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.errors import BadQuestion, ModelRefused
from edge_agent.engine import options
from edge_agent.engine.options import MAX_OPTION_TOKENS, MAX_QUESTION_TOKENS, Taken, answer_probs, batches, check_size, log_probs, with_ends
from edge_agent.engine.passes import BatchLimits, TokenTree
from edge_agent.model.answers import Path
from tests.support.passes import path_of

VOCABULARY = 5  # so few that options often begin alike
END = (VOCABULARY,)

paths = st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=24).map(tuple), min_size=2, max_size=26)
limits = st.builds(BatchLimits, st.integers(8, 40), st.integers(6, 30), st.integers(1, 26))


def logits_after(tokens: Path) -> np.ndarray:
    return np.random.default_rng(tokens).normal(size=VOCABULARY + 1).astype(np.float32)


class FakeModel:
    """Evaluates trees as `Llama` does, and keeps what sequence 0 holds."""

    def __init__(self, within: BatchLimits) -> None:
        self.within, self.cached, self.n_evaluated, self.n_reads = within, (), 0, 0

    def read(self, before: list[int], tree: TokenTree, take: Callable[[Path, np.ndarray], Taken]) -> dict[Path, Taken]:
        at_end = -1 in tree.reads.values()
        assert len(tree.tokens) + at_end <= self.within.n_tokens and 1 <= len(tree.reads) <= self.within.n_reads
        assert 1 <= tree.n_sequences <= self.within.n_sequences
        kept = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(self.cached, before, strict=False))))
        self.n_evaluated += len(before) - min(kept, len(before) - at_end) + len(tree.tokens)
        self.n_reads += len(tree.reads)
        found = {path: take(path, logits_after((*before, *path_of(tree, (), at)))) for path, at in tree.reads.items()}
        self.cached = (*before, *(token for token, s in zip(tree.tokens, tree.sequences, strict=True) if 0 in s))
        return found


@given(paths, limits)
def test_scores_are_the_sums_over_the_tokens_one_by_one(paths: list[Path], within: BatchLimits) -> None:
    model = FakeModel(within)
    found = options.log_probabilities(model.read, [7, 8], paths, within)
    for path, score in zip(paths, found, strict=True):
        one_by_one = [logits_after((7, 8, *path[:i])).astype(np.float64) for i in range(len(path))]
        expected = sum(logits[token] - np.log(np.exp(logits).sum()) for logits, token in zip(one_by_one, path, strict=True))
        assert score == pytest.approx(expected, abs=1e-5)


@given(paths, limits)
def test_each_place_is_read_once_and_few_tokens_are_evaluated_twice(paths: list[Path], within: BatchLimits) -> None:
    model = FakeModel(within)
    wanted = {path[:i] for path in paths for i in range(len(path))}
    options.log_probabilities(model.read, [7, 8], paths, within)
    n_batches = len(list(batches(wanted, within)))
    assert model.n_reads == len(wanted)
    assert model.n_evaluated <= 2 + len(wanted) - 1 + 5 * within.n_sequences * n_batches
    if len(wanted) <= min(within.n_reads, within.n_tokens - 1) and len(paths) <= within.n_sequences:
        assert n_batches == 1 and model.n_evaluated == 2 + len(wanted) - 1  # the last token of an option needs no evaluation


@given(paths, limits, st.lists(st.integers(0, 4), max_size=6).map(tuple))
def test_batches_can_begin_behind_a_path(paths: list[Path], within: BatchLimits, base: Path) -> None:
    wanted = {(*base, *path) for path in paths}
    read = []
    for start, tree in batches(wanted, within, base):
        assert start[: len(base)] == base
        read += [path for path, at in tree.reads.items() if path == path_of(tree, start, at)]
    assert sorted(read) == sorted(wanted)


@given(paths)
def test_ends_stand_after_all_options_or_none(paths: list[Path]) -> None:
    found = with_ends(paths, END)
    begins = any(a != b and b[: len(a)] == a for a in paths for b in paths)
    assert found == ([(*path, *END) for path in paths] if begins else paths)
    assert not any(a != b and b[: len(a)] == a for a in found for b in found)


def test_without_its_end_an_option_would_always_beat_a_longer_one_that_begins_with_it() -> None:
    """The reason for the end: the sum over fewer tokens of the same path is never smaller."""
    within = BatchLimits(64, 32, 26)
    paths = [(1, 2), (1, 2, 3)]
    short, long = options.log_probabilities(FakeModel(within).read, [], paths, within)
    assert short > long
    ended = options.log_probabilities(FakeModel(within).read, [], with_ends(paths, END), within)
    after = logits_after((1, 2)).astype(np.float64)
    assert ended[0] == pytest.approx(short + after[END[0]] - np.log(np.exp(after).sum()), abs=1e-5)


def test_options_with_the_same_tokens_share_the_probability_of_the_text() -> None:
    a, b, c = answer_probs([-1.0, -2.0, -1.0], [(1,), (2,), (1,)])
    assert a == c and a + c == pytest.approx(1 / (1 + math.exp(-1))) and a + b + c == pytest.approx(1)


def test_options_that_are_too_long_are_named() -> None:
    with pytest.raises(BadQuestion, match=f"Option B has 500 tokens, but only {MAX_OPTION_TOKENS} fit; shorten it"):
        check_size([(1,), (1,) * 500], "AB")
    with pytest.raises(BadQuestion, match=f"2600 tokens together, but only {MAX_QUESTION_TOKENS} fit"):
        check_size([(1,) * 100] * 26, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(wrong: float) -> None:
    with pytest.raises(ModelRefused, match="instead of numbers"):
        log_probs(np.array([0.0, wrong], np.float32), [0])
    with pytest.raises(ModelRefused, match="instead of numbers"):
        log_probs(np.full(3, -math.inf, np.float32), [0])


def test_token_that_the_model_excludes_leaves_its_option_hardly_a_chance() -> None:
    found = log_probs(np.array([0.0, -math.inf], np.float32), [0, 1])
    assert found[0] == 0 and math.isfinite(found[1])
    assert answer_probs([found[0], found[1]], [(0,), (1,)]) == (1, 0)


@pytest.mark.parametrize(("n_vocab", "n_reads"), [(1_000, 256), (49_152, 170), (151_936, 55), (262_144, 32), (2_000_000, 12)])
def test_memory_for_reads_is_bounded(n_vocab: int, n_reads: int) -> None:
    found = options.limits(256, n_vocab)
    assert found == BatchLimits(256, n_reads, 26)
    assert n_reads == 12 or 4 * n_vocab * n_reads <= 32 << 20
