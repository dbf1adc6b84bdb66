"""What one pass evaluates, for any levels, letters and tokenizer."""

from hypothesis import given

from edge_agent.engine.passes import MAX_READS, letter_trees, level_trees
from edge_agent.model.answers import AnswerFormat
from edge_agent.model.profile import LEVELS
from tests.support.passes import check, deciding_nodes, level_branches
from tests.support.pieces import PieceTokenizer, letters, levels, tokenizers


@given(levels, letters, tokenizers)
def test_levels_are_read_at_the_end_of_the_prompt_and_at_every_branch(
    levels: tuple[str, ...], letters: str, tokenizer: PieceTokenizer
) -> None:
    root = AnswerFormat(levels, letters).trie(tokenizer)
    check(list(level_trees(root)), (), level_branches(root))


@given(levels, letters, tokenizers)
def test_letters_after_the_likely_level_are_read_with_the_levels_if_they_fit(
    levels: tuple[str, ...], letters: str, tokenizer: PieceTokenizer
) -> None:
    root = AnswerFormat(levels, letters).trie(tokenizer)
    ahead = {path for path, node in root.branches() if node.levels() == {levels[-1]}}
    together = level_branches(root) | ahead
    check(list(level_trees(root, levels[-1])), (), together if len(together) <= MAX_READS else level_branches(root))


@given(levels, letters, tokenizers)
def test_letters_are_read_at_every_branch_after_the_level(levels: tuple[str, ...], letters: str, tokenizer: PieceTokenizer) -> None:
    root = AnswerFormat(levels, letters).trie(tokenizer)
    for path, node in deciding_nodes(root):
        check(list(letter_trees(path, node)), path, {branch for branch, _ in node.branches(path)})


def test_qwens_tokenizer_needs_one_sequence_for_the_levels_and_one_for_the_letters() -> None:
    """Digits one by one: `Confidence: ` then 0 or 1, `0.` then 0, 2, 5 or 7."""
    tokenizer = PieceTokenizer(["Conf", "idence", "Final", " answer", " A", " B"])
    root = AnswerFormat(LEVELS, "AB").trie(tokenizer)
    (tree,) = level_trees(root)
    assert tree.n_sequences == 1 and tokenizer.text(tree.tokens) == "Confidence: 0."
    assert [tokenizer.text(path) for path in tree.reads] == ["", "Confidence: ", "Confidence: 0."]
    (tree,) = level_trees(root, "1.0")
    assert "Confidence: 1.0\nFinal answer:" in [tokenizer.text(path) for path in tree.reads]
    assert tree.n_sequences == 2 and 0 in tree.sequences[5] and tokenizer.text(tree.tokens[4:6]) == "0."  # sequence 0, which is kept
    half = next((path, node) for path, node in deciding_nodes(root) if tokenizer.text(path) == "Confidence: 0.5")
    (tree,) = letter_trees(*half)
    assert tree.n_sequences == 1 and tokenizer.text(tree.tokens) == "\nFinal answer:"


def test_letters_of_one_and_two_tokens_are_on_one_sequence() -> None:
    tokenizer = PieceTokenizer(["Conf", "idence", "Final", " answer", " A", " B", "\n"])
    root = AnswerFormat(LEVELS, "ABCDEF").trie(tokenizer)
    (tree,) = letter_trees(*next(found for found in deciding_nodes(root)))
    assert tree.n_sequences == 1 and len(tree.reads) == 2


def test_many_levels_make_one_tree_of_several_sequences() -> None:
    """Twentieths: after `0.` any digit, after most digits a 5 or the end."""
    tokenizer = PieceTokenizer(["Conf", "idence", "Final", " answer", " A", " B"])
    twentieths = tuple(f"{n / 20:.2f}" for n in range(20))
    (tree,) = level_trees(AnswerFormat(twentieths, "AB").trie(tokenizer))
    assert tree.n_sequences == 10 and len(tree.tokens) == 6 + 10  # Conf, idence, :, space, 0, . and the digits
