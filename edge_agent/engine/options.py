"""The options of a question as answers: the paths of their tokens, the batches that read them, and their scores.

Owns this arithmetic. Does not know llama.cpp or prompts. Invariant: every token on the way to a path that is read is evaluated
after exactly the tokens before it, and each path is read once.

A plain model prints no format, so each option counts with its log-probability in the whole vocabulary: the sum over its
tokens, each after the ones before it. All tokens but an option's last are evaluated in one batch behind the prompt, which the
options share, as they share their common beginnings.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from edge_agent.core.errors import BadQuestion, ModelRefused
from edge_agent.core.labels import LETTERS
from edge_agent.engine.passes import MAX_READS, BatchLimits, TokenTree, tree_of
from edge_agent.model.answers import Path

Logits = npt.NDArray[np.float32]  # (vocabulary,)
Taken = dict[int, float]  # from some tokens to their log-probability
Read = Callable[[Sequence[int], TokenTree, Callable[[Path, Logits], Taken]], dict[Path, Taken]]
"""What a function makes of the logits at the paths that a tree reads, after some tokens."""

MAX_OPTION_TOKENS = 256
MAX_QUESTION_TOKENS = 1024  # of all options of a question together
LEAST_LOG_PROB = -1e4  # of a token that the model excludes; more such tokens make an option less likely, and no sum becomes infinite
_READ_BYTES = 32 << 20  # of the logits of one batch; llama.cpp needs them twice
_REPEATED = 4  # tokens that two options share are evaluated again for a fuller batch, if they are at most so many


def limits(n_batch: int, n_vocab: int) -> BatchLimits:
    """The limits of one batch of a model that reads options: a sequence for each, and as many reads as fit in `_READ_BYTES`."""
    return BatchLimits(n_batch, max(MAX_READS, min(n_batch, _READ_BYTES // (4 * n_vocab))), len(LETTERS))


def with_ends(paths: Sequence[Path], end: Path) -> list[Path]:
    """The paths of the options, all with `end` after them if one of them begins with another one.

    "New York" is no answer of its own where "New York City" goes on, unless it ends there. Then every option gets its end, because
    the probability of a whole answer cannot be compared with that of a beginning.
    """
    ordered = sorted(set(paths))
    is_prefix = any(other[: len(path)] == path for path, other in itertools.pairwise(ordered))
    return [(*path, *end) for path in paths] if is_prefix else list(paths)


def check_size(paths: Sequence[Path], letters: str) -> None:
    """Raise `BadQuestion` if an option has too many tokens, or all together have."""
    for path, letter in zip(paths, letters, strict=True):
        if len(path) > MAX_OPTION_TOKENS:
            raise BadQuestion(f"Option {letter} has {len(path)} tokens, but only {MAX_OPTION_TOKENS} fit; shorten it.")
    if (n_tokens := sum(map(len, paths))) > MAX_QUESTION_TOKENS:
        raise BadQuestion(f"The options have {n_tokens} tokens together, but only {MAX_QUESTION_TOKENS} fit; shorten them.")


def batches(wanted: Iterable[Path], within: BatchLimits, base: Path = ()) -> Iterator[tuple[Path, TokenTree]]:
    """The trees that read all `wanted` paths, which begin with `base`, each with the path after which it is evaluated.

    That path is `base`, or it is what sequence 0 holds since the tree before.
    """
    unread = set(wanted)
    ordered = sorted(unread)  # a path comes directly before those that begin with it
    ends = [path for path, after in itertools.zip_longest(ordered, ordered[1:]) if after is None or after[: len(path)] != path]
    held = base
    is_cut = False  # whether `held` is the beginning of an option whose rest comes now
    while ends:
        shared = _shared(held, ends[0])
        start = shared if is_cut or len(shared) - len(base) > _REPEATED else base
        group: list[Path] = []
        nodes: set[Path] = set()
        while ends and len(group) < within.n_sequences and ends[0][: len(start)] == start:
            more = nodes | {ends[0][:length] for length in range(len(start) + 1, len(ends[0]) + 1)}
            n_reads = len(more & unread) + (start in unread)
            if len(more) < within.n_tokens and n_reads <= within.n_reads:  # one token less: the last of the prompt may be read, too
                group.append(ends.pop(0))
                nodes = more
                continue
            break
        if is_cut := not group:  # too long for a batch of its own: its beginning
            n = min(within.n_tokens, within.n_reads) - 1
            group.append(ends[0][: len(start) + n])
            nodes = {ends[0][: len(start) + k] for k in range(1, n + 1)}
        read = (nodes | {start}) & unread
        unread -= read
        held = group[-1]
        yield start, tree_of(start, group[::-1], read)


def _shared(one: Path, other: Path) -> Path:
    return one[: next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))]


def log_probs(logits: Logits, tokens: Iterable[int]) -> Taken:
    """The log-probability of each of `tokens` in the whole vocabulary. Raises `ModelRefused` if the model returns no numbers.

    The whole vocabulary is summed in single precision, as in `probabilities`.
    """
    top = float(logits.max())
    if not math.isfinite(top):  # NaN if any is
        raise ModelRefused(f"The model returns {top} instead of numbers; its file is damaged, so fetch or convert it again.")
    everything = top + math.log(float(np.exp(logits - np.float32(top)).sum(dtype=np.float64)))
    return {token: max(float(logits[token]) - everything, LEAST_LOG_PROB) for token in tokens}


def log_probabilities(read: Read, before: Sequence[int], paths: Sequence[Path], within: BatchLimits) -> list[float]:
    """The log-probability of each of `paths` after the tokens `before`: the sum over its tokens."""
    tokens_after: dict[Path, set[int]] = {}
    for path in paths:
        for i, token in enumerate(path):
            tokens_after.setdefault(path[:i], set()).add(token)
    known: dict[Path, Taken] = {}
    for start, tree in batches(tokens_after, within):
        known |= read([*before, *start], tree, lambda path, logits: log_probs(logits, tokens_after[path]))
    return [math.fsum(known[path[:i]][token] for i, token in enumerate(path)) for path in paths]


def answer_probs(scores: Sequence[float], paths: Sequence[Path]) -> tuple[float, ...]:
    """The softmax of `scores` over the different `paths`; options that are the same path share its probability equally."""
    n_same = Counter(paths)
    top = max(scores)
    weights = [math.exp(score - top) / n_same[path] for score, path in zip(scores, paths, strict=True)]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)
