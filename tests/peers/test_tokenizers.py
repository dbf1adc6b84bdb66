"""Vocabularies that real trainers made: the walk over their answers, and the tokens that a converted file makes of text."""

import functools
import json
import pathlib
import random
import shutil
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from convert.checkpoint import read_tensors
from convert.export import Conversion, export
from edge_agent.core.errors import ConvertError
from edge_agent.engine.llama import Llama, Options
from edge_agent.engine.passes import letter_trees, level_trees
from edge_agent.model.answers import AnswerFormat
from models.recipe.bank import draw_many
from tests.support.checkpoints import BASE, write_safetensors
from tests.support.passes import check, deciding_nodes, level_branches
from tests.support.pieces import check_walk, letters, levels
from tests.support.texts import TEXTS

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


QWEN2 = json.loads((BASE / "tokenizer.json").read_text())["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]


def byte_level(use_regex: bool, add_prefix_space: bool = False) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=use_regex)


def qwen2(behavior: str = "isolated", invert: bool = False, use_regex: bool = False) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), behavior, invert), byte_level(use_regex)])


RULES = {
    "qwen2": qwen2(),
    "qwen2, what lies between removed": qwen2("removed", invert=True),
    "ByteLevel with use_regex": byte_level(use_regex=True),
    "digits, then ByteLevel": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level(use_regex=True)]),
    "qwen2, then ByteLevel": qwen2(use_regex=True),
    "ByteLevel alone": byte_level(use_regex=False),
    "a space in front": byte_level(use_regex=True, add_prefix_space=True),
}
REFUSED = ("qwen2, then ByteLevel", "ByteLevel alone", "a space in front")


@pytest.mark.parametrize("rules", RULES)
def test_converted_tokenizer_makes_the_same_tokens_or_is_refused(tmp_path: pathlib.Path, rules: str) -> None:
    """On what it was trained on, on other questions, and on texts that are hard to split."""
    corpus = [f"{item.stem}\n{' '.join(item.options)}" for item in draw_many(1, 1500, "train")]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = RULES[rules]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([*corpus, *TEXTS], trainers.BpeTrainer(vocab_size=1536, initial_alphabet=alphabet, show_progress=False))
    folder = tmp_path / "base"
    shutil.copytree(BASE, folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in settings.items() if k != "added_tokens_decoder"}))
    n_rows = tokenizer.get_vocab_size()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": n_rows}))
    weights = {name: tensor.load() for name, tensor in read_tensors(BASE).items()}
    weights["model.embed_tokens.weight"] = np.resize(weights["model.embed_tokens.weight"], (n_rows, 256))
    write_safetensors(folder / "model.safetensors", weights)
    if rules in REFUSED:
        with pytest.raises(ConvertError, match=r"splits text in a way that llama\.cpp has no name for"):
            export(Conversion(folder, [], ["Q8_0"]), tmp_path)
        return
    model = Llama(export(Conversion(folder, [], ["Q8_0"]), tmp_path)[0].path, Options(n_ctx=64, n_batch=64, n_threads=1))
    asked = [f"{item.stem} {' '.join(item.options)}" for item in draw_many(3, 1000, "test")]
    try:
        for text in [*TEXTS, *corpus[:200], *asked]:
            assert model.tokenize(text) == tokenizer.encode(text, add_special_tokens=False).ids, text
    finally:
        model.close()
