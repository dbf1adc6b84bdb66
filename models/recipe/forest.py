"""Trees of tokens in one line: many questions behind one shared system message, each with its answers below it.

Owns the attention mask: a token sees itself and the tokens above it, in whichever order they lie in the line. A part of the line
that was evaluated before is kept in a cache, so a second pass pays for its new tokens only. Invariant: what a model says at a
token is what it would say after the tokens above it alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

TOP = -1


class Forest:
    """Tokens, each with the token above it (an index, or `TOP`)."""

    def __init__(self, shared: Sequence[int] = ()) -> None:
        self.ids: list[int] = []
        self.depths: list[int] = []
        self._sees: list[np.ndarray] = []
        self._above: list[int] = []
        self.root = self.add(shared, TOP)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, tokens: Sequence[int], above: int) -> int:
        """Put a path of `tokens` below the token `above`. Returns the index of the last one, or `above` for no tokens."""
        for token in tokens:
            self.ids.append(token)
            self.depths.append(self.depths[above] + 1 if above != TOP else 0)
            self._above.append(above)
            above = len(self.ids) - 1
        return above

    def mask(self, start: int, window: int | None = None) -> torch.Tensor:
        """What the tokens from `start` on see: (1, 1, new tokens, all tokens). With a `window`, only the last tokens above them."""
        for i in range(len(self._sees), len(self.ids)):
            above = self._above[i]
            self._sees.append(np.array([i]) if above == TOP else np.append(self._sees[above], i))
        seen = torch.zeros(1, 1, len(self.ids) - start, len(self.ids), dtype=torch.bool)
        for row, i in enumerate(range(start, len(self.ids))):
            above = self._sees[i]  # from the first token of the text down to this one
            seen[0, 0, row, torch.from_numpy(above if window is None else above[-window:])] = True
        return seen


class ForestReader:
    """One model that reads a forest, growing."""

    def __init__(self, model: PreTrainedModel, forest: Forest) -> None:
        self._model, self._forest, self._done = model, forest, 0
        self._cache = DynamicCache()  # without the configuration: a sliding window would forget the shared tokens
        self._hidden = torch.empty(0, model.config.hidden_size, device=model.device)

    def read(self) -> None:
        """Evaluate the tokens that were added since the last time."""
        start = self._done
        new = self._forest.ids[start:]
        if not new:
            return
        hidden = evaluated(self._model, self._forest, start, self._cache)
        self._hidden = torch.cat([self._hidden, hidden.float()])
        self._done = len(self._forest)

    def logits(self, at: Sequence[int], tokens: Sequence[int] | None = None) -> torch.Tensor:
        """The logits after the tokens at these indexes (B, V), or only those of `tokens` (B, len(tokens))."""
        return logits(self._model, self._hidden[torch.tensor(list(at))], tokens)


def evaluated(model: PreTrainedModel, forest: Forest, start: int = 0, cache: DynamicCache | None = None) -> torch.Tensor:
    """The last hidden states (new tokens, hidden) of the tokens from `start` on."""
    device = model.device
    ids = torch.tensor([forest.ids[start:]], device=device)
    positions = torch.tensor([forest.depths[start:]], device=device)
    inner, window = model.get_decoder(), getattr(model.config, "sliding_window", None)
    mask = forest.mask(start).to(device)
    masks = {"full_attention": mask, "sliding_attention": forest.mask(start, window).to(device)} if window else mask
    with torch.autocast(device.type, torch.bfloat16):
        done = inner(input_ids=ids, position_ids=positions, attention_mask=masks, cache=cache, use_cache=cache is not None)
    hidden: torch.Tensor = done.last_hidden_state[0]
    return hidden


def logits(model: PreTrainedModel, hidden: torch.Tensor, tokens: Sequence[int] | None = None) -> torch.Tensor:
    """The logits (B, V) of hidden states (B, hidden), or only those of some `tokens`."""
    weight = model.get_output_embeddings().weight
    if tokens is not None:
        weight = weight[torch.tensor(list(tokens), device=weight.device)]
    found = (hidden.to(weight.dtype) @ weight.T).float()
    cap = getattr(model.config, "final_logit_softcapping", None)
    return found if cap is None else cap * torch.tanh(found / cap)
