"""Texts as tensors: token ids, the weight of each token in the loss, and the ends of the options.

Invariant: a weight belongs to the predicted token, and a token that overlaps a weighted part of the text has its weight.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from models.recipe.dress import Dressed

Row = tuple[list[int], list[float], list[tuple[int, bool]]]
"""Token ids, a weight for each token, and (index of the last token, is right) for each option."""

Packed = list[Row]
"""Rows packed one after another into one line of a batch. They do not attend to each other."""


class Batch:
    """Token ids (B, T), positions (B, T) that restart with every text, target weights (B, T), and for the probe the
    positions of option ends and whether each option is right.

    transformers sees from the positions where a text starts, and does not let texts attend to each other.
    """

    def __init__(self, lines: Sequence[Packed], pad: int, device: torch.device | str = "cpu") -> None:
        width = max(sum(len(ids) for ids, _, _ in line) for line in lines)
        ids, weights, positions, ends = [], [], [], []
        for b, line in enumerate(lines):
            ids.append([token for row, _, _ in line for token in row])
            weights.append([weight for _, row, _ in line for weight in row])
            positions.append([at for row, _, _ in line for at in range(len(row))])
            start = 0
            for row, _, options in line:
                ends += [(b, start + at, right) for at, right in options]
                start += len(row)
        self.ids = torch.tensor([row + [pad] * (width - len(row)) for row in ids], device=device)
        self.weights = torch.tensor([row + [0.0] * (width - len(row)) for row in weights], device=device)
        self.positions = torch.tensor([row + list(range(width - len(row))) for row in positions], device=device)
        self.option_row = torch.tensor([b for b, _, _ in ends], dtype=torch.long, device=device)
        self.option_at = torch.tensor([at for _, at, _ in ends], dtype=torch.long, device=device)
        self.option_right = torch.tensor([float(right) for _, _, right in ends], device=device)


def encode(texts: Sequence[Dressed], tok: PreTrainedTokenizerBase) -> list[Row]:
    """Each text as a `Row`."""
    encoded = tok([t.text for t in texts], add_special_tokens=False, return_offsets_mapping=True)
    rows = []
    for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        weights = [0.0] * len(ids)
        for start, end, weight in text.spans:
            for i, (a, b) in enumerate(offsets):
                if a < end and b > start and b > a:
                    weights[i] = max(weights[i], weight)
        ends = [(next(i for i, (a, b) in enumerate(offsets) if a < end <= b), right) for end, right in text.options]
        rows.append((ids, weights, ends))
    return rows


def cut(rows: list[Row], tokens: int, pad: int, device: torch.device | str = "cpu") -> list[Batch]:
    """Batches of about `tokens` tokens, from texts of similar length, one on each line."""
    rows = sorted(rows, key=lambda row: len(row[0]))
    out: list[Batch] = []
    while rows:
        n = max(1, tokens // len(rows[-1][0]))
        out.append(Batch([[row] for row in rows[-n:]], pad, device))
        del rows[-n:]
    return out


def packed(rows: list[Row], tokens: int) -> list[Packed]:
    """Pack rows one after another, in order, up to `tokens` on a line. Longer rows are left out."""
    out: list[Packed] = []
    free = 0
    for row in rows:
        if len(row[0]) > tokens:
            continue
        if len(row[0]) > free:
            out.append([])
            free = tokens
        out[-1].append(row)
        free -= len(row[0])
    return out


def next_token_loss(model: PreTrainedModel, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Weighted mean of the next-token loss, from the last hidden state (B, T, hidden)."""
    row, at = (batch.weights[:, 1:] > 0).nonzero(as_tuple=True)
    logits = model.lm_head(hidden[row, at]).float()
    weights = batch.weights[row, at + 1]
    return (functional.cross_entropy(logits, batch.ids[row, at + 1], reduction="none") * weights).sum() / weights.sum()
