"""What the passes of a decision must evaluate."""

from edge_agent.engine.passes import MAX_LINES, MAX_READS, TokenTree
from edge_agent.model.answers import Node, Path


def path_of(tree: TokenTree, start: Path, at: int) -> Path:
    """The tokens from the root to token `at`, gathered from a line that it is in."""
    if at < 0:
        return start
    line, depth = tree.lines[at][0], tree.depths[at]
    on_line = sorted((tree.depths[i], token) for i, token in enumerate(tree.tokens) if line in tree.lines[i] and tree.depths[i] <= depth)
    assert [d for d, _ in on_line] == list(range(depth + 1))  # a line has one token at each depth
    return (*start, *(token for _, token in on_line))


def check(trees: list[TokenTree], start: Path, wanted: set[Path]) -> None:
    read: list[Path] = []
    for tree in trees:
        assert 1 <= tree.n_lines <= MAX_LINES and 1 <= len(tree.reads) <= MAX_READS
        assert {line for lines in tree.lines for line in lines} <= set(range(tree.n_lines))
        for place, at in tree.reads.items():
            assert path_of(tree, start, at) == place
            read.append(place)
        needed = {place[:n] for place in tree.reads for n in range(len(start) + 1, len(place) + 1)}
        assert {path_of(tree, start, at) for at in range(len(tree.tokens))} >= needed
    assert sorted(read) == sorted(wanted)  # each place once


def level_places(root: Node) -> set[Path]:
    """Where a level is chosen, and the prompt's end."""
    return {(), *(path for path, node in root.branches() if len(node.levels()) > 1)}


def deciding_nodes(root: Node, path: Path = ()) -> list[tuple[Path, Node]]:
    """Where the walk may stand when the level is decided."""
    if len(root.levels()) == 1:
        return [(path, root)]
    return [found for token, child in root.children.items() for found in deciding_nodes(child, (*path, token))]
