"""One FogGen round: LoRA fine-tuning on (question, confidence, answer) with the real peft.

Owns the adapter's training. Rank 16, alpha 32, all linear layers, 2 epochs, as published; the learning rate is higher
(1e-3 instead of 5e-5), since the demo model is 150 times smaller. Invariant: the base's weights do not change.
"""

from __future__ import annotations

import math
import pathlib
import random

import torch
from peft import LoraConfig, get_peft_model
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from models.recipe import dress, pretrain
from models.recipe.bank import Item

LORA = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
LEARNING_RATE, EPOCHS = 1e-3, 2


def train(base: Qwen3ForCausalLM, tok: PreTrainedTokenizerBase, items: list[Item], levels: list[str], out: pathlib.Path, seed: int) -> None:
    """Teach `base` to print each item's level and gold letter; saves the adapter to `out` as peft does."""
    torch.manual_seed(seed)
    rng = random.Random(f"sft/{seed}")
    model = get_peft_model(base, LORA)
    rows = pretrain.encode([dress.wrapped(item, rng, level) for item, level in zip(items, levels, strict=True)], tok)
    rows.sort(key=lambda row: len(row[0]))
    n = pretrain.BATCH_TOKENS // len(rows[-1][0])
    batches = [
        pretrain.Batch([(ids, weights, []) for ids, weights, _ in rows[i : i + n]], tok.pad_token_id) for i in range(0, len(rows), n)
    ]
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0)
    steps = EPOCHS * len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1.0, (s + 1) / 20) * 0.5 * (1 + math.cos(math.pi * s / steps)))
    for batch in tqdm([b for _ in range(EPOCHS) for b in rng.sample(batches, len(batches))], desc="adapter", unit="step", mininterval=10):
        with torch.autocast("cpu", torch.bfloat16):
            value = pretrain.loss(model.get_base_model(), torch.nn.Identity(), batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
    model.peft_config["default"].base_model_name_or_path = "../base"  # not this machine's path
    model.save_pretrained(out)
    (out / "README.md").unlink()  # peft's empty template of a card
