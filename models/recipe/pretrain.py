"""The demo base: a Qwen3 of 4 M parameters, trained from scratch on the bank.

Owns the architecture, the curriculum and the optimiser. The base learns to answer and never sees a confidence line:
that is what the FogGen round teaches. Invariant: a run is a function of its seed and its step count; it saves a
checkpoint every few hundred steps and goes on from the last one.

What makes so small a model learn in minutes is an auxiliary loss: at the last token of each option a linear probe on
the hidden state after the second-to-last layer predicts "this option is right". The probe is thrown away.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3 import modeling_qwen3

from models.recipe import dress, label, tokenizer
from models.recipe.bank import Item, draw, draw_many

BATCH_TOKENS = 2048
POOL = 512  # sequences drawn at once and sorted by length, so that a batch carries little padding
LR_MUON, LR_ADAMW = 3e-3, 1.5e-3
PROBE_WEIGHT = 1.0


def config(tok: PreTrainedTokenizerBase) -> Qwen3Config:
    """4.1 M parameters; rows divisible by 256, so that no K-quant falls back to another type."""
    return Qwen3Config(
        vocab_size=len(tok), hidden_size=256, intermediate_size=768, num_hidden_layers=5,
        num_attention_heads=4, num_key_value_heads=2, head_dim=64, max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True, dtype=torch.bfloat16, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mix:
    """What is shown at one moment of the training: shares of sequences, and how far off wrong numbers lie."""

    open: float  # open questions without options: five fit where one with options does
    wrapped: float  # of those with options, the share in FogGen's prompt
    copying: float  # of those with options, the share that asks for nothing but a copy
    widen: float


def mix(progress: float) -> Mix:
    """The curriculum: how letters work, then facts and arithmetic from open questions, then options.

    Letters are learned within 100 steps of nothing but copying, at the very start; later they are not, and they are
    forgotten unless copying goes on. Arithmetic is learned from open questions, and hardly from letters alone.
    """
    if progress < 0.04:
        return Mix(open=0.0, wrapped=0.3, copying=0.95, widen=8.0)
    left = min(1.0, (1.0 - progress) / 0.65)  # 1 up to 35 % of the run, then falling to 0
    return Mix(open=0.05 + 0.45 * left, wrapped=0.85 - 0.55 * left, copying=0.05 + 0.45 * left, widen=max(1.0, 10 * left - 2))


def sequences(rng: random.Random, progress: float) -> Iterator[dress.Dressed]:
    """Training texts at `progress` (0 to 1)."""
    now = mix(progress)
    while True:
        if rng.random() < now.open:
            yield dress.open_text([_item(rng, max(progress, 0.15), now.widen) for _ in range(5)])
            continue
        item = dress.copying(rng) if rng.random() < now.copying else _item(rng, progress, now.widen)
        yield dress.wrapped(item, rng) if rng.random() < now.wrapped else dress.bare(item)


def _item(rng: random.Random, progress: float, widen: float) -> Item:
    weights = [1.0, min(1.0, 6 * progress), min(1.0, 4 * progress), min(1.0, 3 * progress)]
    return draw(rng, "train", difficulty=rng.choices((1, 2, 3, 4), weights)[0], widen=widen)


class Batch:
    """Token ids (B, T), target weights (B, T), and for the probe: positions of option ends and whether each is right."""

    def __init__(self, rows: list[tuple[list[int], list[float], list[tuple[int, bool]]]], pad: int) -> None:
        width = max(len(ids) for ids, _, _ in rows)
        self.ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _, _ in rows])
        self.weights = torch.tensor([weights + [0.0] * (width - len(weights)) for _, weights, _ in rows])
        ends = [(b, at, right) for b, (_, _, options) in enumerate(rows) for at, right in options]
        self.option_row = torch.tensor([b for b, _, _ in ends], dtype=torch.long)
        self.option_at = torch.tensor([at for _, at, _ in ends], dtype=torch.long)
        self.option_right = torch.tensor([float(right) for _, _, right in ends])


def encode(texts: list[dress.Dressed], tok: PreTrainedTokenizerBase) -> list[tuple[list[int], list[float], list[tuple[int, bool]]]]:
    """Token ids, a weight a token (of being predicted), and the token index at which each option ends."""
    encoded = tok([t.text for t in texts], return_offsets_mapping=True)
    rows = []
    for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        weights = [0.0] * len(ids)
        for start, end, weight in text.spans:
            for i, (a, b) in enumerate(offsets):
                if a < end and b > start and b > a:
                    weights[i] = max(weights[i], weight)
        ends = []
        for end, right in text.options:
            ends.append((next(i for i, (a, b) in enumerate(offsets) if a < end <= b), right))
        rows.append((ids, weights, ends))
    return rows


def batches(rng: random.Random, progress: float, tok: PreTrainedTokenizerBase) -> list[Batch]:
    """One pool of sequences cut into batches of about `BATCH_TOKENS` tokens of similar length."""
    drawn = sequences(rng, progress)
    rows = sorted(encode([next(drawn) for _ in range(POOL)], tok), key=lambda row: len(row[0]))
    out: list[Batch] = []
    while rows:
        n = max(1, BATCH_TOKENS // len(rows[-1][0]))
        out.append(Batch(rows[-n:], tok.pad_token_id))
        del rows[-n:]
    rng.shuffle(out)
    return out


def loss(model: Qwen3ForCausalLM, probe: torch.nn.Linear, batch: Batch) -> torch.Tensor:
    """Weighted next-token loss plus the probe's."""
    out = model.model(batch.ids, output_hidden_states=True, use_cache=False)
    row, at = (batch.weights[:, 1:] > 0).nonzero(as_tuple=True)
    logits = model.lm_head(out.last_hidden_state[row, at]).float()
    weights = batch.weights[row, at + 1]
    total = (functional.cross_entropy(logits, batch.ids[row, at + 1], reduction="none") * weights).sum() / weights.sum()
    if len(batch.option_row):
        hidden = out.hidden_states[model.config.num_hidden_layers - 1][batch.option_row, batch.option_at]
        scores = probe(hidden).float().squeeze(-1)
        total = total + PROBE_WEIGHT * functional.binary_cross_entropy_with_logits(scores, batch.option_right)
    return total


def use_fused_norm() -> None:
    """Let torch compute Qwen3's RMS norm in one kernel: the same function, faster on a CPU."""

    def forward(self: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(hidden, hidden.shape[-1:], self.weight.to(hidden.dtype), self.variance_epsilon)

    modeling_qwen3.Qwen3RMSNorm.forward = forward


def train(out: pathlib.Path, seed: int, steps: int) -> None:
    """Train and save base and tokenizer to `out`; goes on from `out/training.pt` if a run was cut short."""
    use_fused_norm()
    torch.manual_seed(seed)
    tok = tokenizer.train(seed)
    model = Qwen3ForCausalLM(config(tok)).float()
    probe = torch.nn.Linear(model.config.hidden_size, 1)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
    rest = [p for p in model.parameters() if not any(p is m for m in matrices)] + list(probe.parameters())
    optimizers = [
        torch.optim.Muon(matrices, lr=LR_MUON, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=LR_ADAMW, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    schedulers = [torch.optim.lr_scheduler.LambdaLR(o, lambda s: _schedule(s, steps)) for o in optimizers]
    out.mkdir(parents=True, exist_ok=True)
    saved, pools, step = out / "training.pt", 0, 0
    parts = {"model": model, "probe": probe, **{f"o{i}": o for i, o in enumerate(optimizers)}}
    parts |= {f"s{i}": s for i, s in enumerate(schedulers)}
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        step, pools = state["step"], state["pools"]
        for name, part in parts.items():
            part.load_state_dict(state[name])
    watched = list(draw_many(seed, 280, "train"))
    bar = tqdm(total=steps, initial=step, desc="base", unit="step", mininterval=10)
    while step < steps:
        rng = random.Random(f"pretrain/{seed}/{pools}")  # a pool is a function of its number: resuming repeats it
        pools += 1
        for batch in batches(rng, step / steps, tok):
            if step >= steps:
                break
            with torch.autocast("cpu", torch.bfloat16):
                value = loss(model, probe, batch)
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for part in [*optimizers, *schedulers]:
                part.step()
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            step += 1
            bar.update()
            if step % 25 == 0:
                bar.set_postfix(loss=f"{value.item():.3f}")
            if step % 200 == 0 or step == steps:
                bar.write(f"{step} {time.strftime('%T')} loss {value.item():.3f} right {label.accuracy(model, tok, watched):.3f}")
        state = {name: part.state_dict() for name, part in parts.items()} | {"step": step, "pools": pools}
        torch.save(state, saved.with_suffix(".part"))
        saved.with_suffix(".part").replace(saved)
    model.to(torch.bfloat16).save_pretrained(out)
    tok.save_pretrained(out)
    saved.unlink()


def _schedule(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / 50)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4000)
    arguments = parser.parse_args()
    train(arguments.out, arguments.seed, arguments.steps)
