"""LoRA fine-tuning of one round, with the real peft.

Owns the training of the adapter: rank 16, alpha 32, all linear layers, bf16, 2 epochs, as published. Invariant: the weights
of the base do not change; the adapter is saved by peft.
"""

from __future__ import annotations

import math
import pathlib
from random import Random

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from models.recipe.batch import cut, encode, next_token_loss
from models.recipe.config import Lora
from models.recipe.dress import Dressed

_WARM_STEPS = 20


def adapted(base: PreTrainedModel, lora: Lora, earlier: pathlib.Path | None) -> PeftModel:
    """`base` with a new adapter, or with an `earlier` one to continue its training."""
    if earlier:
        return PeftModel.from_pretrained(base, earlier, is_trainable=True)
    settings = LoraConfig(r=lora.r, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(base, settings)


def train(model: PeftModel, tok: PreTrainedTokenizerBase, texts: list[Dressed], lora: Lora, seed: int, title: str) -> float:
    """Train the adapter of `model` on `texts`. Returns the mean loss of the last epoch."""
    torch.manual_seed(seed)
    rng = Random(f"sft/{seed}/{title}")
    inner = model.get_base_model()
    batches = cut(encode(texts, tok), lora.batch_tokens, tok.pad_token_id or 0, inner.device)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lora.learning_rate, weight_decay=0.0)
    steps = lora.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1.0, (s + 1) / min(_WARM_STEPS, steps)) * 0.5 * (1 + math.cos(math.pi * s / steps))
    )
    losses: list[float] = []
    for batch in tqdm([b for _ in range(lora.epochs) for b in rng.sample(batches, len(batches))], desc=title, unit="step", leave=False):
        with torch.autocast(inner.device.type, torch.bfloat16):
            value = next_token_loss(inner, inner.model(batch.ids, position_ids=batch.positions, use_cache=False).last_hidden_state, batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(value.item())
    return sum(losses[-len(batches) :]) / len(batches)


def save(model: PeftModel, out: pathlib.Path, base_name: str) -> None:
    """Save the adapter to `out`, with the name of its base instead of a path on this machine."""
    model.peft_config["default"].base_model_name_or_path = base_name
    model.save_pretrained(out, save_embedding_layers=False)  # no adapter here changes the vocabulary
    (out / "README.md").unlink(missing_ok=True)  # an empty template from peft
