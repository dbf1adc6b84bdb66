"""The legal answers of a question: their texts, their grammar, and the trie of their tokens.

Owns the format `Confidence: LEVEL` / `Final answer: LETTER`. Knows tokens only as integers that somebody else made.
Invariant: the trie's leaves are exactly the legal answers, one a (level, letter), whatever the tokenizer does; no
answer is a prefix of another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from edge_agent.core.errors import ModelRefused

# As published with the FogGen models, the letters widened from A-D to A-Z.
_CONFIDENCE = re.compile(r"Confidence\s*:\s*([\d.]+)")
_FINAL_ANSWER = re.compile(r"Final\s+answer\s*:\s*([A-Z])")


Path = tuple[int, ...]  # tokens from the trie's root to a node


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """The legal answers for these levels (texts such as "0.75") and letters ("ABCD").

    Without letters, an answer in the model's own words follows: what is legal then ends where it begins.
    """

    levels: tuple[str, ...]
    letters: str

    def text(self, level: str, letter: str) -> str:
        """A whole legal answer."""
        return f"Confidence: {level}\nFinal answer: {letter}".rstrip(" ")  # a word's space belongs to its own first token

    def gbnf(self) -> str:
        """llama.cpp's grammar of exactly the legal answers."""
        levels = " | ".join(json.dumps(level) for level in self.levels)
        letters = " | ".join(json.dumps(letter) for letter in self.letters)
        return f'root ::= "Confidence: " ({levels}) "\\nFinal answer: " ({letters})'

    def token_gbnf(self, tokenize: Callable[[str], Sequence[int]]) -> str:
        """The same for each answer in its own tokens only, and not in others that spell it, too."""
        texts = [self.text(level, letter) for level in self.levels for letter in self.letters]
        return "root ::= " + " | ".join(" ".join(f"<[{token}]>" for token in tokenize(text)) for text in texts)

    def trie(self, tokenize: Callable[[str], Sequence[int]]) -> Node:
        """The token trie: each legal answer tokenized whole.

        Raises `ModelRefused` if the tokenizer gives two answers the same tokens, or one a prefix of another.
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
            raise ModelRefused("The model's tokenizer cannot tell all legal answers apart; it cannot be constrained.")
        return root


def parse(text: str) -> tuple[float | None, str | None]:
    """Confidence and letter as the published parser finds them in free text; None where it finds none."""
    confidence, letter = _CONFIDENCE.search(text), _FINAL_ANSWER.search(text)
    try:
        value = float(confidence[1]) if confidence else None
    except ValueError:
        value = None
    return value, letter[1] if letter else None


@dataclass(slots=True)
class Node:
    """A node of the token trie; `label` is the (level, letter) of a leaf."""

    children: dict[int, Node] = field(default_factory=dict)
    label: tuple[str, str] | None = None

    def leaves(self) -> Iterator[Node]:
        """The leaves below (or the node itself)."""
        if not self.children:
            yield self
        for child in self.children.values():
            yield from child.leaves()

    def levels(self) -> set[str]:
        """The levels that are still open below this node."""
        return {leaf.label[0] for leaf in self.leaves() if leaf.label}

    def branches(self, path: Path = ()) -> Iterator[tuple[Path, Node]]:
        """Every node below with more than one child, with the tokens that lead to it."""
        if len(self.children) > 1:
            yield path, self
        for token, child in self.children.items():
            yield from child.branches((*path, token))
