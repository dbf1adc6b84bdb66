"""The legal answers to a question: their texts, and the trie of their tokens.

Owns the format `Confidence: LEVEL` / `Final answer: LETTER`. Knows tokens only as integers. Invariant: with any tokenizer,
the leaves of the trie are exactly the legal answers, one for each (level, letter), and no answer is a prefix of another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from edge_agent.core.errors import ModelRefused

# As published with the FogGen models, but with the letters A-Z instead of A-D.
_CONFIDENCE = re.compile(r"Confidence\s*:\s*([\d.]+)")
_FINAL_ANSWER = re.compile(r"Final\s+answer\s*:\s*([A-Z])")


Path = tuple[int, ...]  # the tokens from the root of the trie to a node


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """The legal answers for these levels (strings such as "0.75") and letters ("ABCD").

    Without letters, the model answers in its own words. The legal text then ends where those words begin.
    """

    levels: tuple[str, ...]
    letters: str

    def text(self, level: str, letter: str) -> str:
        """A whole legal answer."""
        return f"Confidence: {level}\nFinal answer: {letter}".rstrip(" ")  # the first token of an answer in words has its own space

    def trie(self, tokenize: Callable[[str], Sequence[int]]) -> Node:
        """The trie of the tokens of all legal answers, each tokenized as a whole.

        Raises `ModelRefused` if two answers have the same tokens, or if one is a prefix of another.
        """
        root = Node()
        for level in self.levels:
            for letter in self.letters or ("",):
                node = root
                for token in tokenize(self.text(level, letter)):
                    node = node.children.setdefault(token, Node())
                node.label = (level, letter)
        leaves = list(root.leaves())
        if len(leaves) != len(self.levels) * max(1, len(self.letters)) or any(leaf.label is None for leaf in leaves):
            raise ModelRefused("The tokenizer of the model does not tell all legal answers apart; use another model.")
        return root


def parse(text: str) -> tuple[float | None, str | None]:
    """The confidence and the letter that the published parser finds in a text; None for what it does not find."""
    confidence, letter = _CONFIDENCE.search(text), _FINAL_ANSWER.search(text)
    try:
        value = float(confidence[1]) if confidence else None
    except ValueError:
        value = None
    return value, letter[1] if letter else None


@dataclass(slots=True)
class Node:
    """A node of the token trie. `label` is the (level, letter) of a leaf."""

    children: dict[int, Node] = field(default_factory=dict)
    label: tuple[str, str] | None = None

    def leaves(self) -> Iterator[Node]:
        """The leaves below this node, or the node itself if it is a leaf."""
        if not self.children:
            yield self
        for child in self.children.values():
            yield from child.leaves()

    def levels(self) -> set[str]:
        """The levels that are still possible below this node."""
        return {leaf.label[0] for leaf in self.leaves() if leaf.label}

    def branches(self, path: Path = ()) -> Iterator[tuple[Path, Node]]:
        """Every node below with more than one child, with the path to it."""
        if len(self.children) > 1:
            yield path, self
        for token, child in self.children.items():
            yield from child.branches((*path, token))
