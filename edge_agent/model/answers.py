"""The legal answers to a question: their texts, and the trie of their tokens.

Owns the format `Confidence: LEVEL` / `Final answer: LETTER`, or the text of an option in place of the letter. Knows tokens only as
integers. Invariant: with any tokenizer, the leaves of the trie are exactly the legal answers, one for each (level, printed answer),
and no answer is a prefix of another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from edge_agent.core.errors import ModelRefused
from edge_agent.core.labels import LETTERS

# As published with the FogGen models, but with the letters A-Z instead of A-D.
_CONFIDENCE = re.compile(r"Confidence\s*:\s*([\d.]+)")
_FINAL_ANSWER = re.compile(r"Final\s+answer\s*:\s*([A-Z])")
_FINAL_TEXT = re.compile(r"Final\s+answer\s*:[^\S\n]*(.*)")


Path = tuple[int, ...]  # the tokens from the root of the trie to a node


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """The legal answers for these levels (strings such as "0.75") and letters ("ABCD").

    With `options`, one for each letter, the model prints an option's text (see `printed`). Without letters, it answers in its own
    words, and the legal text ends where those words begin.
    """

    levels: tuple[str, ...]
    letters: str
    options: tuple[str, ...] = ()

    @property
    def answers(self) -> dict[str, str]:
        """What the model prints after `Final answer: `, with the letters that it stands for: several, if options are the same text."""
        found: dict[str, str] = {}
        for letter, option in zip(self.letters, self.options or self.letters, strict=True):
            answer = printed(option)
            found[answer] = found.get(answer, "") + letter
        return found or {"": ""}

    def text(self, level: str, answer: str) -> str:
        """A whole legal answer with this letter or text."""
        return f"Confidence: {level}\nFinal answer: {answer}".rstrip(" ")  # the first token of an answer in words has its own space

    def trie(self, tokenize: Callable[[str], Sequence[int]], end: Sequence[int] = ()) -> Node:
        """The trie of the tokens of all legal answers, each tokenized as a whole, with the tokens `end` after it.

        An option may begin with another one ("New York" and "New York City"): then only its end tells them apart. Raises
        `ModelRefused` if two answers have the same tokens, or if one is a prefix of another.
        """
        root, answers = Node(), self.answers
        for level in self.levels:
            for answer, letters in answers.items():
                node = root
                for token in (*tokenize(self.text(level, answer)), *end):
                    node = node.children.setdefault(token, Node())
                node.label = (level, letters)
        leaves = list(root.leaves())
        if len(leaves) != len(self.levels) * len(answers) or any(leaf.label is None for leaf in leaves):
            raise ModelRefused("The tokenizer of the model does not tell all legal answers apart; use another model.")
        return root


def printed(option: str) -> str:
    """An option as a model prints it: on one line, with one space between words."""
    return " ".join(option.split())


def parse(text: str, options: Sequence[str] = ()) -> tuple[float | None, str | None]:
    """The confidence and the letter that the published parser finds in a text; None for what it does not find.

    With `options`, the text has an option's text in place of the letter. Case counts only if it tells two options apart.
    """
    confidence = _CONFIDENCE.search(text)
    try:
        value = float(confidence[1]) if confidence else None
    except ValueError:
        value = None
    if options:
        return value, _letter_of(text, options)
    letter = _FINAL_ANSWER.search(text)
    return value, letter[1] if letter else None


def lettered(text: str, options: Sequence[str]) -> str:
    """A printed answer with the letter of its option in place of the option's text; "-" for a text that is none of them."""
    return _FINAL_TEXT.sub(f"Final answer: {_letter_of(text, options) or '-'}", text, count=1)


def _letter_of(text: str, options: Sequence[str]) -> str | None:
    """The letter of the first option that the text names as its final answer."""
    found = _FINAL_TEXT.search(text)
    answer, texts = printed(found[1]) if found else "", [printed(option) for option in options]
    if answer in texts:
        return LETTERS[texts.index(answer)]
    folded = [option.casefold() for option in texts]
    return LETTERS[folded.index(answer.casefold())] if folded.count(answer.casefold()) == 1 else None


@dataclass(slots=True)
class Node:
    """A node of the token trie. `label` is the level of a leaf and its letter (the letters of all options with the same text)."""

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
