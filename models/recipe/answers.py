"""FogGen's answers in the text of an option: the level a model prints, and how probable each option is then.

Owns the prompts and answers of the answer kind `option` as tokens, and their scores with a transformers model. Invariant: prompt and
answers are tokenized apart, as the runtime does, and an option is scored by the walk over the legal answers that the runtime takes:
at each branch only the legal tokens count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from edge_agent.core.errors import BadData
from edge_agent.model.profile import LEVELS, Profile
from edge_agent.model.shapes import SegmentKind
from models.recipe.bank import Item
from models.recipe.dress import user_message
from models.recipe.forest import Forest, ForestReader

Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OptionReading:
    """What a model says to a question: the probability of each level, the level of the greedy walk, the probability of each option
    after that level, and how much of the whole vocabulary's probability the legal levels had.
    """

    level_probs: np.ndarray
    level: str
    option_probs: np.ndarray
    format_mass: float

    @property
    def expected(self) -> float:
        return float(self.level_probs @ np.array([float(level) for level in LEVELS]))


@dataclass(slots=True)
class OptionAnswers:
    """The prompts and answers of one tokenizer. `shared` are the tokens that the prompts of all questions start with."""

    tok: PreTrainedTokenizerBase
    profile: Profile
    end: str = field(init=False)
    shared: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.end = self.profile.shape.end_segment.text
        first, second = (self._prompt(f"{start} is it?") for start in ("Which", "How"))
        same = next(i for i, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
        self.shared = first[:same]

    def prompt(self, item: Item) -> list[int]:
        """The tokens of the prompt after the shared ones."""
        ids = self._prompt(user_message(item))
        if ids[: len(self.shared)] != self.shared:  # a question that starts with a line break may join the end of the system message
            raise BadData(f"the question {item.stem!r:.60} changes how the system message is tokenized; remove white space around it")
        return ids[len(self.shared) :]

    def answer(self, level: str, item: Item, option: int) -> list[int]:
        """The tokens of a whole answer."""
        return self._ids(f"Confidence: {level}\nFinal answer: {one_line(item.options[option])}{self.end}")

    def start(self, level: str) -> list[int]:
        """The tokens of an answer up to its option."""
        return self._ids(f"Confidence: {level}\nFinal answer:")

    def parts(self, level: str) -> tuple[int, int, int]:
        """How many tokens of an answer stand before its level, up to its end, and before the option."""
        return tuple(len(self._ids(text)) for text in ("Confidence:", f"Confidence: {level}", f"Confidence: {level}\nFinal answer:"))  # type: ignore[return-value]

    def _prompt(self, message: str) -> list[int]:
        bos = self.tok.bos_token if adds_bos(self.tok) else ""
        parts = (bos if segment.kind is SegmentKind.BOS else segment.text for segment in self.profile.segments(message))
        return self._ids("".join(parts))

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tok(text, add_special_tokens=False)["input_ids"]
        return ids


def adds_bos(tok: PreTrainedTokenizerBase) -> bool:
    """Whether a text of this tokenizer begins with BOS. Its attribute `add_bos_token` may deny what its post-processor does."""
    return tok.bos_token_id is not None and tok("a")["input_ids"][:1] == [tok.bos_token_id]


def one_line(option: str) -> str:
    """The text of an option as an answer has it: in one line, with single spaces."""
    return " ".join(option.split())


def is_askable(item: Item) -> bool:
    """Whether the texts of the options tell them apart."""
    texts = [one_line(option) for option in item.options]
    return all(texts) and len(set(texts)) == len(texts)


@torch.no_grad()
def read(
    model: PreTrainedModel, answers: OptionAnswers, items: Sequence[Item], temperature: float, line_tokens: int
) -> Iterator[OptionReading]:
    """What the model says to each item, at a temperature. Lines hold about `line_tokens` tokens."""
    part: list[Item] = []
    size = len(answers.shared)
    for item in items:
        own = len(answers.prompt(item)) + 60
        if part and size + own > line_tokens:
            yield from _read_line(model, answers, part, temperature)
            part, size = [], len(answers.shared)
        part.append(item)
        size += own
    if part:
        yield from _read_line(model, answers, part, temperature)


def _read_line(model: PreTrainedModel, answers: OptionAnswers, items: Sequence[Item], temperature: float) -> list[OptionReading]:
    forest = Forest(answers.shared)
    reader = ForestReader(model, forest)
    ends = [forest.add(answers.prompt(item), forest.root) for item in items]
    starts = [tuple(answers.start(level)) for level in LEVELS]
    level_places = [_grow(forest, end, starts) for end in ends]
    reader.read()
    levels = [_walked(reader, places, starts, temperature) for places in level_places]
    masses = _masses(reader, level_places, starts, [at for at, _ in levels])
    options = [
        [tuple(answers.answer(LEVELS[at], item, i)) for i in range(len(item.options))] for item, (at, _) in zip(items, levels, strict=True)
    ]
    option_places = [_grow(forest, end, texts) for end, texts in zip(ends, options, strict=True)]
    reader.read()
    found = []
    for (at, level_probs), mass, places, texts in zip(levels, masses, option_places, options, strict=True):
        _, probs = _walked(reader, places, texts, temperature)
        found.append(OptionReading(level_probs, LEVELS[at], probs, mass))
    return found


def _grow(forest: Forest, end: int, texts: Sequence[Path]) -> dict[Path, int]:
    """Put the tokens below `end` after which `texts` part. Returns the index of each such place."""
    branches = _branches(texts)
    at: dict[Path, int] = {(): end}
    for branch in sorted(branches, key=len):
        above = max((path for path in at if path == branch[: len(path)]), key=len)
        index = at[above]
        for n in range(len(above), len(branch)):
            index = forest.add(branch[n : n + 1], index)
            at[branch[: n + 1]] = index
    return {path: at[path] for path in {*branches, ()}}


def _branches(texts: Sequence[Path]) -> dict[Path, list[int]]:
    """The places where the texts part, and the tokens that may follow there."""
    following: dict[Path, set[int]] = {}
    for text in texts:
        for n in range(len(text)):
            following.setdefault(text[:n], set()).add(text[n])
    return {path: sorted(tokens) for path, tokens in following.items() if len(tokens) > 1}


def _walked(reader: ForestReader, places: dict[Path, int], texts: Sequence[Path], temperature: float) -> tuple[int, np.ndarray]:
    """The text of the greedy walk, and the probability of each text: at each branch, only the tokens that may follow count."""
    probs = np.ones(len(texts))
    likely = np.ones(len(texts), dtype=bool)
    for path, tokens in _branches(texts).items():
        logits = reader.logits([places[path]], tokens)[0].cpu().double() / temperature
        shares = dict(zip(tokens, torch.softmax(logits, 0).tolist(), strict=True))
        best = max(shares, key=shares.__getitem__)
        for i, text in enumerate(texts):
            if text[: len(path)] == path:
                probs[i] *= shares[text[len(path)]]
                likely[i] &= text[len(path)] == best
    return int(likely.argmax()), probs


def _masses(reader: ForestReader, all_places: Sequence[dict[Path, int]], texts: Sequence[Path], chosen: Sequence[int]) -> list[float]:
    """The share of the legal tokens in the whole vocabulary: at the first token, times that at each branch on the way to the chosen text.

    A whole vocabulary is read for all questions at once, because it is long.
    """
    following = {(): [texts[0][0]], **_branches(texts)}
    wanted = [
        (n, places[path], tokens)
        for n, (places, at) in enumerate(zip(all_places, chosen, strict=True))
        for path, tokens in following.items()
        if texts[at][: len(path)] == path
    ]
    shares = torch.softmax(reader.logits([place for _, place, _ in wanted]), -1)
    masses = [1.0] * len(all_places)
    for (n, _, tokens), row in zip(wanted, shares, strict=True):
        masses[n] *= float(row[tokens].sum())
    return masses


@dataclass(frozen=True, slots=True)
class PlainScores:
    """The log-probability of each option's text after a plain question, that of the same text after no question, and its tokens."""

    given: np.ndarray
    alone: np.ndarray
    n_tokens: np.ndarray

    def probs(self, normalised: str) -> np.ndarray:
        """The probability of each option, normalised by nothing, by `tokens`, or by its `prior` probability without the question."""
        scores = {"nothing": self.given, "tokens": self.given / self.n_tokens, "prior": self.given - self.alone}[normalised]
        shares = np.exp(scores - scores.max())
        found: np.ndarray = shares / shares.sum()
        return found


NORMALISED = ("nothing", "tokens", "prior")


@torch.no_grad()
def score_plain(model: PreTrainedModel, tok: PreTrainedTokenizerBase, items: Sequence[Item]) -> list[PlainScores]:
    """The options' scores as continuations of `Question: ...` and `Answer:`, which any base understands."""
    bos = [tok.bos_token_id] if adds_bos(tok) else []
    found = []
    for item in items:
        forest = Forest(bos)
        reader = ForestReader(model, forest)
        starts = (f"Question: {item.stem}\nAnswer:", "Answer:")
        ends = [forest.add(tok(start, add_special_tokens=False)["input_ids"], forest.root) for start in starts]
        texts = [tok(f" {one_line(option)}", add_special_tokens=False)["input_ids"] for option in item.options]
        at: list[int] = []
        following: list[int] = []
        for end in ends:
            for text in texts:
                above = end
                for n, token in enumerate(text):
                    at.append(above)
                    following.append(token)
                    if n + 1 < len(text):
                        above = forest.add([token], above)
        reader.read()
        logits = torch.log_softmax(reader.logits(at), -1)
        each = logits[torch.arange(len(at)), torch.tensor(following)].cpu().double().numpy()
        lengths = np.array([len(text) for text in texts] * 2)
        sums = np.add.reduceat(each, np.concatenate([[0], lengths.cumsum()[:-1]]))
        n = len(texts)
        found.append(PlainScores(sums[:n], sums[n:], lengths[:n].astype(float)))
    return found
