"""Does a reading give the answers of llama.cpp's own grammar sampler?

    python -m benchmarks.agreement MODEL.gguf [--n 2000] [--noise-n 50] [--own-tokens]

First it measures the noise: it evaluates the same tokens in one batch and token by token, and takes the largest difference
of a legal token's logit. Then both ways answer `n` held-out questions of the bank. They may differ only at a branch where the
two best legal logits are closer than that noise; every such question is listed. A model with random weights needs
--own-tokens, because it may spell `Final` as `F`, `ina`, `l` if the grammar is one of characters.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import pathlib
import sys
from dataclasses import dataclass

import numpy as np

from edge_agent.core.question import Question
from edge_agent.core.records import Reading
from edge_agent.engine.llama import Llama, Options
from edge_agent.engine.local_model import LocalModel
from edge_agent.engine.passes import letter_trees, level_trees
from edge_agent.engine.probabilities import Logits, Walk
from edge_agent.model import prompt
from edge_agent.model.answers import AnswerFormat, Node, Path
from edge_agent.model.gguf import read_header
from edge_agent.model.profile import Profile, from_metadata
from models.recipe.bank import DOMAINS, draw_many
from tests.support.grammar import GrammarReference


@dataclass(frozen=True, slots=True)
class Difference:
    """A question that the two ways answer differently, and the margin of the two best legal logits at that branch."""

    question: Question
    ours: str
    reference: str
    margin: float


def noise(path: pathlib.Path, questions: list[Question]) -> float:
    """The largest difference of a legal token's logit between one batch and token by token, over all branches of the walks."""
    header, largest = read_header(path), 0.0
    profile = from_metadata(header.metadata)
    with contextlib.closing(Llama(path, Options().for_quantization(header.quantization))) as llama:
        for question in questions:
            tokens, trie, known = _logits(llama, profile, question)
            for branch, logits in known.items():
                legal = list(_node(trie, branch).children)
                llama.keep(len(tokens) - 1)
                for n in range(len(branch)):
                    llama.logits([*tokens, *branch[:n]])
                alone = llama.logits([*tokens, *branch])
                largest = max(largest, float(np.abs(logits[legal] - alone[legal]).max()))
    return largest


def differences(model: LocalModel, reference: GrammarReference, questions: list[Question], own_tokens: bool = False) -> list[Difference]:
    """Every question that the two ways answer differently."""
    found = []
    for question in questions:
        reading, (level, letter) = model.read(question), reference.read(model, question, own_tokens)
        assert isinstance(reading, Reading)
        if (reading.level, reading.answer) != (level, letter):
            trie = AnswerFormat(reading.levels, reading.letters).trie(reference.tokenize)
            margin = _margin(reading, trie, (level, letter))
            found.append(Difference(question, f"{reading.level} {reading.answer}", f"{level} {letter}", margin))
    return found


def _margin(reading: Reading, trie: Node, reference: tuple[str, str]) -> float:
    """By how much the logits of the reading prefer its choice over the reference's, at the branch where they differ."""
    levels = dict(zip(reading.levels, reading.level_probs, strict=True))
    letters = dict(zip(reading.letters, reading.answer_probs, strict=True))
    node = trie
    while True:
        ours, theirs = (_towards(node, label) for label in ((reading.level, reading.letter), reference))
        if ours is not theirs:
            break
        node = ours

    def mass(child: Node) -> float:
        labels = [leaf.label for leaf in child.leaves() if leaf.label]
        if reading.level != reference[0]:
            return sum(levels[level] for level in {level for level, _ in labels})
        return sum(letters[letter] for letter in {letter for _, letter in labels})

    return math.log(mass(ours) / mass(theirs))


def _towards(node: Node, label: tuple[str, str]) -> Node:
    return next(child for child in node.children.values() if any(leaf.label == label for leaf in child.leaves()))


def _logits(llama: Llama, profile: Profile, question: Question) -> tuple[list[int], Node, dict[Path, Logits]]:
    """The tokens of a question, its trie, and the logits that its passes read."""
    tokens = prompt.tokens(llama, profile.segments(question.user_message))
    trie = AnswerFormat(profile.levels, question.letters).trie(llama.tokenize)
    known: dict[Path, Logits] = {}
    for tree in level_trees(trie, profile.levels[-1]):
        known |= llama.evaluate(tokens, tree)
    walk = Walk(trie, known.__getitem__)
    walk.level()
    for tree in letter_trees(walk.path, walk.node):
        if not tree.reads.keys() <= known.keys():
            known |= llama.evaluate([*tokens, *walk.path], tree)
    return tokens, trie, known


def _node(trie: Node, path: Path) -> Node:
    for token in path:
        trie = trie.children[token]
    return trie


def held_out(n: int) -> list[Question]:
    """Questions of the bank that no training used, equally many from each domain."""
    return [Question(item.stem, item.options) for domain in DOMAINS for item in draw_many(11, -(-n // len(DOMAINS)), "test", domain)][:n]


def main() -> None:
    """Print the noise, the differences, and whether each is within the noise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--noise-n", type=int, default=50)
    parser.add_argument("--own-tokens", action="store_true", help="use a grammar of the tokenizer's own tokens instead of characters")
    arguments = parser.parse_args()
    questions = held_out(arguments.n + arguments.noise_n)
    bound = noise(arguments.model, questions[arguments.n :])
    print(f"noise: {bound:.4f} (largest difference of a legal logit, {arguments.noise_n} questions)")
    with LocalModel(arguments.model) as model, GrammarReference(arguments.model) as reference:
        found = differences(model, reference, questions[: arguments.n], arguments.own_tokens)
    for one in found:
        print(f"{one.margin:.4f}  {one.ours} against {one.reference}  {one.question.stem!r}")
    beyond = [one for one in found if one.margin > bound]
    print(f"{arguments.n} questions, {len(found)} answered differently ({len(found) / arguments.n:.2%}), {len(beyond)} beyond the noise")
    sys.exit(bool(beyond))


if __name__ == "__main__":
    main()
