"""How sure a model should say it is: the share of its own sampled answers that are right.

Owns sampling and rounding. As FogGen does it: N = 8 answers at T = 0.7, the share right in five levels, halves
rounded up (half-to-even would starve 0.25 and 0.75). The words before the letter are given, the letter is sampled
from the whole vocabulary. Invariant: a label depends on the model and the question alone, never on another label.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from edge_agent.profile import LEVELS
from models.recipe import dress
from models.recipe.bank import Item

N_SAMPLES, TEMPERATURE = 8, 0.7
_BATCH = 32


def level(n_right: int, n_samples: int = N_SAMPLES) -> str:
    """The level of `n_right` right answers of `n_samples`, halves rounded up: 3 of 8 is 0.5."""
    return LEVELS[(2 * n_right * (len(LEVELS) - 1) + n_samples) // (2 * n_samples)]


@torch.no_grad()
def self_assess(model: Qwen3ForCausalLM, tok: PreTrainedTokenizerBase, items: list[Item], seed: int) -> list[str]:
    """The level of each item by sampling the model's own answers."""
    generator = torch.Generator().manual_seed(seed)
    order = sorted(range(len(items)), key=lambda i: len(items[i].stem))
    levels = [""] * len(items)
    for start in range(0, len(order), _BATCH):
        part = order[start : start + _BATCH]
        probs = torch.softmax(letter_logits(model, tok, [items[i] for i in part]) / TEMPERATURE, dim=-1)
        sampled = torch.multinomial(probs, N_SAMPLES, replacement=True, generator=generator)  # (B, N_SAMPLES)
        for i, row in zip(part, sampled.tolist(), strict=True):
            right = tok(f" {items[i].letter}")["input_ids"][0]
            levels[i] = level(row.count(right))
    return levels


def letter_logits(model: Qwen3ForCausalLM, tok: PreTrainedTokenizerBase, items: list[Item]) -> torch.Tensor:
    """Logits (B, vocabulary) of the token after `Final answer:`, without a confidence line."""
    ids = [tok(dress.prompt(item) + "Final answer:")["input_ids"] for item in items]
    width = max(map(len, ids))
    padded = torch.tensor([row + [tok.pad_token_id] * (width - len(row)) for row in ids])
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(padded, use_cache=False).last_hidden_state
    last = hidden[torch.arange(len(ids)), torch.tensor([len(row) - 1 for row in ids])]
    return model.lm_head(last.to(model.lm_head.weight.dtype)).float()


def accuracy(model: Qwen3ForCausalLM, tok: PreTrainedTokenizerBase, items: list[Item]) -> float:
    """Share of items whose most probable letter is right."""
    letters = [tok(f" {letter}")["input_ids"][0] for letter in "ABCDE"]
    right = 0
    for start in range(0, len(items), _BATCH):
        part = items[start : start + _BATCH]
        logits = letter_logits(model, tok, part)[:, letters]
        right += sum(int(row[: len(i.options)].argmax()) == i.gold for i, row in zip(part, logits, strict=True))
    return right / len(items)
