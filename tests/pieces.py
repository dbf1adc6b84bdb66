"""Levels, letters and tokenizers of every sort, for property tests of whatever works on the trie of legal answers."""

from hypothesis import strategies as st

from edge_agent.question import LETTERS

levels = st.lists(st.integers(0, 100), min_size=2, max_size=9, unique=True).map(lambda ns: tuple(f"{n / 100:.2f}" for n in sorted(ns)))
letters = st.integers(2, 26).map(lambda n: LETTERS[:n])


class PieceTokenizer:
    """Cuts greedily into the longest known piece: a stand-in for BPE with any vocabulary."""

    def __init__(self, pieces: list[str]) -> None:
        self.pieces = sorted({*pieces, *map(chr, range(128))}, key=len, reverse=True)

    def __call__(self, text: str) -> list[int]:
        out = []
        while text:
            token = next(i for i, piece in enumerate(self.pieces) if text.startswith(piece))
            out.append(token)
            text = text[len(self.pieces[token]) :]
        return out

    def text(self, tokens: tuple[int, ...]) -> str:
        return "".join(self.pieces[token] for token in tokens)


tokenizers = st.lists(
    st.sampled_from(["Conf", "idence", ": ", " 0", "0.", ".7", "25", "\nFinal", " answer", ": A", " B", "5\n", "00"])
).map(PieceTokenizer)
