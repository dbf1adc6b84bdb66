"""What one forward pass evaluates: the part of the trie of legal answers that decides the level, or the letter, or both.

Owns the choice of tokens. Knows nothing of llama.cpp. Invariant: a tree holds every token on the way to each place
that it `reads`, parents before children, and no other token.

For Qwen's and Gemma's tokenizers all places at which a level is chosen lie on one line (after `Confidence: ` and after
`0.`), and so do those of the letters behind one level. What does not lie on one line makes a tree of several, evaluated in
one batch as sequences that share what they have in common.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from edge_agent.model.answers import Node, Path

MAX_LINES = 12  # sequences in one batch
MAX_READS = 12  # places whose logits are read in one batch: each costs the room of a whole vocabulary, twice


class TokenTree(NamedTuple):
    """Tokens to append to the same beginning, as a tree.

    `tokens[i]` stands at `depths[i]` (0 directly behind the beginning) in the lines `lines[i]`, each a path from the
    beginning to a leaf. `reads` gives, for each place whose logits are wanted, the index of its last token, -1 where that is
    the beginning's own last token.
    """

    tokens: tuple[int, ...]
    depths: tuple[int, ...]
    lines: tuple[tuple[int, ...], ...]
    n_lines: int
    reads: dict[Path, int]


def level_trees(root: Node, likely: str | None = None) -> Iterator[TokenTree]:
    """All that the level's distribution needs, and the place before the answer (for the format mass); one tree as a rule.

    With it goes, if there is room, what the letter needs behind the level `likely`: its few tokens cost half as much in the
    prompt's batch as in one of their own, and where that level is the one chosen there is no second pass.
    """
    branches = list(root.branches())
    level = sorted({(), *(path for path, node in branches if len(node.levels()) > 1)})
    letter = [path for path, node in branches if node.levels() == {likely}]
    return _trees((), [*level, *letter] if len(level) + len(letter) <= MAX_READS else level)  # line 0 stays in the cache: a level's


def letter_trees(path: Path, node: Node) -> Iterator[TokenTree]:
    """All that the letter's distribution needs behind `path`, which leads to `node`, where the level is decided."""
    return _trees(path, [place for place, _ in node.branches(path)])


def _trees(start: Path, places: Sequence[Path]) -> Iterator[TokenTree]:
    """Trees over `places` (each begins with `start`) within the bounds above; each place is read in the first that passes it."""
    ends = [place for place in places if not any(other != place and other[: len(place)] == place for other in places)]
    unread = set(places)
    while ends:
        group: list[Path] = []
        passed: set[Path] = set()
        while ends and len(group) < MAX_LINES:
            more = passed | _on_the_way(unread, ends[0])
            if group and len(more) > MAX_READS:
                break
            group.append(ends.pop(0))
            passed = more
        yield _tree(start, group, passed)
        unread -= passed


def _on_the_way(places: set[Path], end: Path) -> set[Path]:
    return {place for place in places if end[: len(place)] == place}


def _tree(start: Path, ends: Sequence[Path], places: set[Path]) -> TokenTree:
    index: dict[Path, int] = {start: -1}
    lines: list[tuple[int, ...]] = []
    for number, end in enumerate(ends):
        for length in range(len(start) + 1, len(end) + 1):
            at = index.setdefault(end[:length], len(lines))
            if at == len(lines):
                lines.append(())
            lines[at] = (*lines[at], number)
    paths = list(index)[1:]
    reads = {place: index[place] for place in sorted(places)}
    return TokenTree(tuple(p[-1] for p in paths), tuple(len(p) - len(start) - 1 for p in paths), tuple(lines), len(ends), reads)
