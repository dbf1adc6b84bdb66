"""What the passes of a reading must evaluate."""

from edge_agent.engine.passes import MAX_READS, MAX_SEQUENCES, TokenTree
from edge_agent.model.answers import Node, Path


def path_of(tree: TokenTree, start: Path, at: int) -> Path:
    """The tokens from the root to token `at`, gathered from one of its sequences."""
    if at < 0:
        return start
    sequence, depth = tree.sequences[at][0], tree.depths[at]
    tokens = zip(tree.depths, tree.tokens, tree.sequences, strict=True)
    on_the_way = sorted((d, token) for d, token, sequences in tokens if sequence in sequences and d <= depth)
    assert [d for d, _ in on_the_way] == list(range(depth + 1))  # a sequence has one token at each depth
    return (*start, *(token for _, token in on_the_way))


def check(trees: list[TokenTree], start: Path, wanted: set[Path]) -> None:
    read: list[Path] = []
    for tree in trees:
        assert 1 <= tree.n_sequences <= MAX_SEQUENCES and 1 <= len(tree.reads) <= MAX_READS
        assert {sequence for sequences in tree.sequences for sequence in sequences} <= set(range(tree.n_sequences))
        for path, at in tree.reads.items():
            assert path_of(tree, start, at) == path
            read.append(path)
        needed = {path[:n] for path in tree.reads for n in range(len(start) + 1, len(path) + 1)}
        assert {path_of(tree, start, at) for at in range(len(tree.tokens))} >= needed
    assert sorted(read) == sorted(wanted)  # each path once


def level_branches(root: Node) -> set[Path]:
    """The branches that choose a level, and the end of the prompt."""
    return {(), *(path for path, node in root.branches() if len(node.levels()) > 1)}


def deciding_nodes(root: Node, path: Path = ()) -> list[tuple[Path, Node]]:
    """Where a walk may be when the level is known."""
    if len(root.levels()) == 1:
        return [(path, root)]
    return [found for token, child in root.children.items() for found in deciding_nodes(child, (*path, token))]
