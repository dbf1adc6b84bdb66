"""What one pass evaluates, for any levels, letters and tokenizer."""

from hypothesis import given

from edge_agent.engine.passes import MAX_LINES, MAX_READS, TokenTree, letter_trees, level_trees
from edge_agent.model.answers import AnswerFormat, Node, Path
from edge_agent.model.profile import LEVELS
from tests.support.pieces import PieceTokenizer, letters, levels, tokenizers


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


@given(levels, letters, tokenizers)
def test_levels_are_read_at_the_prompts_end_and_wherever_one_is_chosen(
    levels: tuple[str, ...], letters: str, tokenizer: PieceTokenizer
) -> None:
    root = AnswerFormat(levels, letters).trie(tokenizer)
    check(list(level_trees(root)), (), level_places(root))


@given(levels, letters, tokenizers)
def test_letters_behind_the_likely_level_are_read_with_the_levels_if_there_is_room(
    levels: tuple[str, ...], letters: str, tokenizer: PieceTokenizer
) -> None:
    root = AnswerFormat(levels, letters).trie(tokenizer)
    ahead = {path for path, node in root.branches() if node.levels() == {levels[-1]}}
    together = level_places(root) | ahead
    check(list(level_trees(root, levels[-1])), (), together if len(together) <= MAX_READS else level_places(root))


@given(levels, letters, tokenizers)
def test_letters_are_read_wherever_one_is_chosen_behind_the_level(levels: tuple[str, ...], letters: str, tokenizer: PieceTokenizer) -> None:
    root = AnswerFormat(levels, letters).trie(tokenizer)
    for path, node in deciding_nodes(root):
        check(list(letter_trees(path, node)), path, {place for place, _ in node.branches(path)})


def test_qwens_tokenizer_needs_one_line_for_the_levels_and_one_for_the_letters() -> None:
    """Digits one by one: `Confidence: ` then 0 or 1, `0.` then 0, 2, 5 or 7."""
    tokenizer = PieceTokenizer(["Conf", "idence", "Final", " answer", " A", " B"])
    root = AnswerFormat(LEVELS, "AB").trie(tokenizer)
    (tree,) = level_trees(root)
    assert tree.n_lines == 1 and tokenizer.text(tree.tokens) == "Confidence: 0."
    assert [tokenizer.text(place) for place in tree.reads] == ["", "Confidence: ", "Confidence: 0."]
    (tree,) = level_trees(root, "1.0")
    assert "Confidence: 1.0\nFinal answer:" in [tokenizer.text(place) for place in tree.reads]
    assert tree.n_lines == 2 and 0 in tree.lines[5] and tokenizer.text(tree.tokens[4:6]) == "0."  # line 0, which is kept
    half = next((path, node) for path, node in deciding_nodes(root) if tokenizer.text(path) == "Confidence: 0.5")
    (tree,) = letter_trees(*half)
    assert tree.n_lines == 1 and tokenizer.text(tree.tokens) == "\nFinal answer:"


def test_letters_of_which_some_are_two_tokens_lie_on_one_line() -> None:
    tokenizer = PieceTokenizer(["Conf", "idence", "Final", " answer", " A", " B", "\n"])
    root = AnswerFormat(LEVELS, "ABCDEF").trie(tokenizer)
    (tree,) = letter_trees(*next(found for found in deciding_nodes(root)))
    assert tree.n_lines == 1 and len(tree.reads) == 2


def test_many_levels_make_one_tree_of_several_lines() -> None:
    """Twentieths: behind `0.` any digit, behind most digits a 5 or the end."""
    tokenizer = PieceTokenizer(["Conf", "idence", "Final", " answer", " A", " B"])
    twentieths = tuple(f"{n / 20:.2f}" for n in range(20))
    (tree,) = level_trees(AnswerFormat(twentieths, "AB").trie(tokenizer))
    assert tree.n_lines == 10 and len(tree.tokens) == 6 + 10  # Conf, idence, :, space, 0, . and the digits
