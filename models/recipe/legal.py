"""Scores the legal answers with a transformers model: the few texts that FogGen's protocol allows.

Owns the forward passes of the recipe that are not training. Invariant: the probabilities are those of the model over its
whole vocabulary at that temperature, token by token, so drawing from them equals generation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from edge_agent.core.errors import ModelRefused
from edge_agent.core.question import LETTERS
from edge_agent.model.profile import LEVELS

LEADS = ("Final answer:", *(f"Confidence: {level}\nFinal answer:" for level in LEVELS))
"""The texts before the letter: without a confidence line (a raw base), or with one for each level."""

MOST_LETTERS = 5
"""The most options of a question that is answered with a letter."""

_LETTERS = LETTERS[:MOST_LETTERS]
_BATCH_LOGITS = 2**26  # logits in memory at once: a large vocabulary gets small batches


@torch.no_grad()
def score(model: PreTrainedModel, tok: PreTrainedTokenizerBase, prompts: Sequence[str], temperatures: Sequence[float]) -> np.ndarray:
    """The probability of each legal answer: float32 (temperature, prompt, lead, letter).

    Leads are those of `LEADS`, letters are A to E. The sum over leads and letters is at most 1; the rest is other text.
    Raises `ModelRefused` if a letter is more than one token.
    """
    tails = [tok(lead, add_special_tokens=False)["input_ids"] for lead in LEADS]
    letters = [_letter_token(tok, letter) for letter in _LETTERS]
    n = max(1, min(32, _BATCH_LOGITS // (len(LEADS) * max(map(len, tails)) * model.config.vocab_size)))
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out = np.zeros((len(temperatures), len(prompts), len(LEADS), len(letters)), dtype=np.float32)
    for start in range(0, len(order), n):
        part = order[start : start + n]
        encoded = [tok(prompts[i], add_special_tokens=False)["input_ids"] for i in part]
        out[:, part] = _score_batch(model, encoded, tails, letters, temperatures, tok.pad_token_id or 0)
    return out


def _letter_token(tok: PreTrainedTokenizerBase, letter: str) -> int:
    before = tok(LEADS[0], add_special_tokens=False)["input_ids"]
    whole = tok(f"{LEADS[0]} {letter}", add_special_tokens=False)["input_ids"]
    if whole[:-1] != before:
        raise ModelRefused(f"this tokenizer writes ' {letter}' as more than one token; set labels.by to 'generated'")
    return whole[-1]


def _score_batch(
    model: PreTrainedModel, prompts: list[list[int]], tails: list[list[int]], letters: list[int], temperatures: Sequence[float], pad: int
) -> np.ndarray:
    """One batch: the prompts once, then every lead after each prompt, on a copy of its cache."""
    width, device = max(map(len, prompts)), model.device
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=device)  # (B, P), padded on the left
    real = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    with torch.autocast(device.type, torch.bfloat16):
        first = model(
            input_ids=ids, attention_mask=real, position_ids=(real.cumsum(1) - 1).clamp(min=0), use_cache=True,
            cache=DynamicCache(config=model.config), logits_to_keep=1,
        )  # fmt: skip
        k, t = len(tails), max(map(len, tails))
        first.past_key_values.batch_repeat_interleave(k)
        tail = torch.tensor([row + [pad] * (t - len(row)) for row in tails], device=device).repeat(len(prompts), 1)  # (B*K, T)
        mask = torch.cat([real.repeat_interleave(k, 0), torch.ones_like(tail)], dim=1)
        positions = real.sum(1).repeat_interleave(k)[:, None] + torch.arange(t, device=device)
        behind = model(input_ids=tail, attention_mask=mask, position_ids=positions, cache=first.past_key_values, use_cache=True)
    at_end, logits = first.logits[:, -1].float(), behind.logits.float().view(len(prompts), k, t, -1)
    return np.stack([_products(at_end / heat, logits / heat, tails, letters) for heat in temperatures])


def _products(at_end: torch.Tensor, logits: torch.Tensor, tails: list[list[int]], letters: list[int]) -> np.ndarray:
    """The probability of each lead and letter (B, K, letters), from the logits at the prompt's end (B, V) and after it (B, K, T, V)."""
    start = torch.log_softmax(at_end, dim=-1)  # (B, V)
    out = torch.empty(logits.shape[0], len(tails), len(letters))
    for k, row in enumerate(tails):
        steps = torch.log_softmax(logits[:, k, : len(row)], dim=-1)  # (B, len(row), V)
        lead = start[:, row[0]] + sum((steps[:, i, token] for i, token in enumerate(row[1:])), torch.zeros(()))
        out[:, k] = (lead[:, None] + steps[:, -1, letters]).exp()
    return out.cpu().numpy()
