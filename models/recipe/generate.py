"""Samples whole answers from a model: with transformers, or with vLLM if it is installed.

Owns the generation, not the meaning of the texts. Invariant: both return `n` texts for each prompt, in the order of the
prompts.
"""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Sequence

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_NEW_TOKENS = 64
_BATCH = 16


def by_transformers(
    model: PreTrainedModel, tok: PreTrainedTokenizerBase, prompts: Sequence[str], n: int, temperature: float, seed: int
) -> list[list[str]]:
    """`n` sampled texts for each prompt; at temperature 0 the most probable text."""
    torch.manual_seed(seed)
    how = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {"do_sample": False}
    out: list[list[str]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in tqdm(range(0, len(order), _BATCH), desc="sampling", unit="batch", leave=False):
        part = order[start : start + _BATCH]
        batch = tok([prompts[i] for i in part], add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")
        with torch.no_grad():
            ids = model.generate(
                **batch.to(model.device), max_new_tokens=MAX_NEW_TOKENS, num_return_sequences=n,
                pad_token_id=tok.pad_token_id, **how,
            )  # fmt: skip
        texts = tok.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        for row, i in enumerate(part):
            out[i] = texts[row * n : (row + 1) * n]
    return out


def has_vllm() -> bool:
    """Whether vLLM is installed (it needs a GPU)."""
    return importlib.util.find_spec("vllm") is not None


def by_vllm(
    base: pathlib.Path | str, tok: PreTrainedTokenizerBase, prompts: Sequence[str], n: int, temperature: float, seed: int
) -> list[list[str]]:
    """`n` sampled texts for each prompt from the checkpoint `base`, on all GPUs of this machine."""
    import vllm

    engine = vllm.LLM(model=str(base), dtype="bfloat16", seed=seed, tensor_parallel_size=max(1, torch.cuda.device_count()))
    settings = vllm.SamplingParams(n=n, temperature=temperature, top_k=-1, top_p=1.0, max_tokens=MAX_NEW_TOKENS, seed=seed)
    encoded = [{"prompt_token_ids": tok(prompt, add_special_tokens=False)["input_ids"]} for prompt in prompts]
    return [[sample.text for sample in result.outputs] for result in engine.generate(encoded, settings)]
