"""The tokens of one forward pass: the part of the answer trie that decides the level, the letter, or both.

Owns the choice of tokens. Does not know llama.cpp. Invariant: a tree holds every token on the way to each path that it
`reads`, parents before children, and no other token.

With the tokenizers of Qwen and Gemma, all branches that choose a level are on one sequence of tokens (after `Confidence: `
and after `0.`), and so are all branches that choose a letter after one level. Otherwise a tree has several sequences,
which are evaluated in one batch and share their common tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from edge_agent.model.answers import Node, Path

MAX_SEQUENCES = 12  # in one batch
MAX_TOGETHER = 64  # tokens of the letter that are evaluated with the levels
MAX_READS = 12  # paths whose logits are read in one batch; each needs memory for the whole vocabulary, twice


class BatchLimits(NamedTuple):
    """What one batch can hold: tokens, paths that are read, and sequences."""

    n_tokens: int
    n_reads: int
    n_sequences: int


class TokenTree(NamedTuple):
    """A tree of tokens to append to one common prefix.

    `tokens[i]` has the depth `depths[i]` (0 directly after the prefix) and belongs to the sequences `sequences[i]`; each
    sequence leads from the prefix to a leaf. `reads` maps each path whose logits are wanted to the index of its last token,
    which is -1 for the last token of the prefix.
    """

    tokens: tuple[int, ...]
    depths: tuple[int, ...]
    sequences: tuple[tuple[int, ...], ...]
    n_sequences: int
    reads: dict[Path, int]


def level_trees(root: Node, likely: str | None = None) -> Iterator[TokenTree]:
    """The trees that the distribution of levels needs, with the start of the answer for the format mass. Usually one tree.

    If they fit, it includes the tokens that the letter needs after the level `likely`. In the batch of the prompt they cost
    half as much as in a batch of their own, and if that level is chosen, there is no second pass.
    """
    branches = list(root.branches())
    level = sorted({(), *(path for path, node in branches if len(node.levels()) > 1)})
    letter = [path for path, node in branches if node.levels() == {likely}]
    # Levels first: sequence 0 stays cached, and it must lead to a level.
    fits = len(level) + len(letter) <= MAX_READS and len({path[:i] for path in letter for i in range(len(path))}) <= MAX_TOGETHER
    return _trees((), [*level, *letter] if fits else level)


def letter_trees(path: Path, node: Node) -> Iterator[TokenTree]:
    """The trees that the distribution of letters needs after `path`, which leads to `node`, where the level is known."""
    return _trees(path, [branch for branch, _ in node.branches(path)])


def _trees(start: Path, paths: Sequence[Path]) -> Iterator[TokenTree]:
    """Trees within the limits above that read all `paths`, which begin with `start`. Each path is read once, by the first tree."""
    ends = [path for path in paths if not any(other != path and other[: len(path)] == path for other in paths)]
    unread = set(paths)
    while ends:
        group: list[Path] = []
        passed: set[Path] = set()
        while ends and len(group) < MAX_SEQUENCES:
            more = passed | _on_the_way(unread, ends[0])
            if group and len(more) > MAX_READS:
                break
            group.append(ends.pop(0))
            passed = more
        yield tree_of(start, group, passed)
        unread -= passed


def _on_the_way(paths: set[Path], end: Path) -> set[Path]:
    return {path for path in paths if end[: len(path)] == path}


def tree_of(start: Path, ends: Sequence[Path], read: set[Path]) -> TokenTree:
    """The tree of the paths to `ends` after `start`, with the logits wanted at `read`; the first end is sequence 0."""
    index: dict[Path, int] = {start: -1}
    sequences: list[list[int]] = []
    for number, end in enumerate(ends):
        for length in range(len(start) + 1, len(end) + 1):
            at = index.setdefault(end[:length], len(sequences))
            if at == len(sequences):
                sequences.append([])
            sequences[at].append(number)
    paths = list(index)[1:]
    depths = tuple(len(path) - len(start) - 1 for path in paths)
    reads = {path: index[path] for path in sorted(read)}
    return TokenTree(tuple(path[-1] for path in paths), depths, tuple(map(tuple, sequences)), len(ends), reads)
