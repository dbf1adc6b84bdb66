"""Does the walk over the trie give the answers of llama.cpp's own grammar sampler?

    python -m benchmarks.agreement MODEL.gguf [--n 2000] [--noise-n 50] [--own-tokens]

First the noise: the same tokens evaluated in two ways (the prompt and all in one batch; token by token behind the prompt),
and the largest difference of a logit at a legal token. Then both ways answer `n` held-out questions of the bank. They may
part only at a branch whose two best legal logits are closer than that noise; every such question is listed. A model with
random weights needs --own-tokens, since it would spell `Final` as `F`, `ina`, `l` wherever a grammar of characters lets it.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import sys
from dataclasses import dataclass

import numpy as np

from edge_agent.core.question import Question
from edge_agent.core.records import Reading
from edge_agent.engine.local_model import LocalModel
from edge_agent.engine.passes import letter_trees
from edge_agent.engine.probabilities import Logits, Walk
from edge_agent.model.answers import Node, Path
from models.recipe.bank import DOMAINS, draw_many


@dataclass(frozen=True, slots=True)
class Parting:
    """A question on which the two ways part, and the margin of the two best legal logits where they do."""

    question: Question
    ours: str
    reference: str
    margin: float


def noise(model: LocalModel, questions: list[Question]) -> float:
    """The largest difference of a legal token's logit between one batch and token by token, at all places of the walk."""
    largest = 0.0
    for question in questions:
        tokens, trie, known = _logits(model, question)
        for path, logits in known.items():
            legal = list(_node(trie, path).children)
            model._llama.keep(len(tokens) - 1)
            for n in range(len(path)):
                model._llama.logits([*tokens, *path[:n]])
            alone = model._llama.logits([*tokens, *path])
            largest = max(largest, float(np.abs(logits[legal] - alone[legal]).max()))
    return largest


def partings(model: LocalModel, questions: list[Question], own_tokens: bool = False) -> list[Parting]:
    """Every question that the two ways answer differently."""
    found = []
    for question in questions:
        reading, (level, letter) = model.read(question), model.read_by_grammar(question, own_tokens)
        assert isinstance(reading, Reading)
        if (reading.level, reading.answer) != (level, letter):
            ours, reference = f"{reading.level} {reading.answer}", f"{level} {letter}"
            found.append(Parting(question, ours, reference, _margin(reading, model._trie(question), (level, letter))))
    return found


def _margin(reading: Reading, trie: Node, reference: tuple[str, str]) -> float:
    """How much the reading's own logits prefer its choice to the reference's, at the branch where they part."""
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


def _logits(model: LocalModel, question: Question) -> tuple[list[int], Node, dict[Path, Logits]]:
    """A question's tokens, its trie, and the logits of its passes."""
    tokens, trie = model.prompt_tokens(question), model._trie(question)
    known: dict[Path, Logits] = {}
    for tree in model._level_trees(trie):
        known |= model._llama.evaluate(tokens, tree)
    walk = Walk(trie, known.__getitem__)
    walk.level()
    for tree in letter_trees(walk.path, walk.node):
        if not tree.reads.keys() <= known.keys():
            known |= model._llama.evaluate([*tokens, *walk.path], tree)
    return tokens, trie, known


def _node(trie: Node, path: Path) -> Node:
    for token in path:
        trie = trie.children[token]
    return trie


def held_out(n: int) -> list[Question]:
    """Questions of the bank that no training saw, as many of each domain."""
    return [Question(item.stem, item.options) for domain in DOMAINS for item in draw_many(11, -(-n // len(DOMAINS)), "test", domain)][:n]


def main() -> None:
    """Print the noise, the partings, and whether each is within the noise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--noise-n", type=int, default=50)
    parser.add_argument("--own-tokens", action="store_true", help="a grammar of the tokenizer's own tokens, not of characters")
    arguments = parser.parse_args()
    questions = held_out(arguments.n + arguments.noise_n)
    with LocalModel(arguments.model) as model:
        bound = noise(model, questions[arguments.n :])
        print(f"noise: {bound:.4f} (largest difference of a legal logit, {arguments.noise_n} questions)")
        found = partings(model, questions[: arguments.n], arguments.own_tokens)
    for parting in found:
        print(f"{parting.margin:.4f}  {parting.ours} against {parting.reference}  {parting.question.stem!r}")
    beyond = [parting for parting in found if parting.margin > bound]
    print(f"{arguments.n} questions, {len(found)} answered differently ({len(found) / arguments.n:.2%}), {len(beyond)} beyond the noise")
    sys.exit(bool(beyond))


if __name__ == "__main__":
    main()
