"""The trie, its trees and the walk with vocabularies that real trainers made: byte-level BPE and SentencePiece's kinds."""

import functools
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from edge_agent.engine.passes import letter_trees, level_trees
from edge_agent.model.answers import AnswerFormat
from tests.support.passes import check, deciding_nodes, level_branches
from tests.support.pieces import check_walk, letters, levels

Trained = tuple[Callable[[str], list[int]], int]


def texts(seed: int) -> list[str]:
    """Answers, numbers and words, so that pieces of any length are worth learning."""
    rng, words = random.Random(seed), ("final", "one", "0.25", "7")
    return [f"Confidence: {rng.random():.2f}\nFinal answer: {rng.choice('ABCDEFGH')} is {rng.choice(words)}" for _ in range(400)]


@functools.cache
def trained(kind: str, size: int) -> Trained:
    """A tokenizer of some `size` tokens."""
    seen = texts(size)
    if kind == "byte-level BPE":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=size % 2 == 0)
        trainer = trainers.BpeTrainer(vocab_size=256 + size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>") if kind == "SentencePiece BPE" else models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=size % 2 == 0)
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
        alphabet = sorted({*"".join(map(chr, range(10, 127))), "▁"})
        make = trainers.BpeTrainer if kind == "SentencePiece BPE" else trainers.UnigramTrainer
        special = {"special_tokens": ["<unk>"]} | ({"unk_token": "<unk>"} if make is trainers.UnigramTrainer else {})
        trainer = make(vocab_size=128 + size, initial_alphabet=alphabet, show_progress=False, **special)
    tokenizer.train_from_iterator(seen, trainer)
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids, tokenizer.get_vocab_size()


@pytest.mark.parametrize("kind", ["byte-level BPE", "SentencePiece BPE", "SentencePiece Unigram"])
@given(levels=levels, letters=letters, size=st.sampled_from([40, 75, 120, 201]), seed=st.integers(0, 2**32 - 1))
def test_walk_over_a_trained_vocabulary(kind: str, levels: tuple[str, ...], letters: str, size: int, seed: int) -> None:
    """Every branch is read once, in trees within the limits, and the probabilities are those of decoding token by token."""
    tokenize, vocabulary = trained(kind, size)
    answers = AnswerFormat(levels, letters)
    root = answers.trie(tokenize)
    check(list(level_trees(root)), (), level_branches(root))
    for path, node in deciding_nodes(root):
        check(list(letter_trees(path, node)), path, {branch for branch, _ in node.branches(path)})
    check_walk(answers, tokenize, vocabulary, seed)
