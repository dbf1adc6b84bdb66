"""Trains a base from scratch: a small Qwen3 on the bank (the demo has 4 M parameters).

Owns the architecture, the curriculum and the optimiser. The base learns to answer and never sees a confidence line; the
FogGen rounds teach that. Invariant: a run depends only on its seed and its number of steps; it saves a checkpoint every few
hundred steps and continues from the last one.

An auxiliary loss makes so small a model learn in minutes: at the last token of each option, a linear probe on the hidden
state after the second-to-last layer predicts "this option is right". The probe is not part of the model.
"""

from __future__ import annotations

import bisect
import math
import pathlib
import random
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass

import torch
from torch.nn import functional
from tqdm import tqdm
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3 import modeling_qwen3

from models.recipe import dress, legal, tokenizer
from models.recipe.bank import Item, draw, draw_many, drills, facts
from models.recipe.bank.skill import (
    ADD,
    ADD_SUBTRACT,
    BASIC,
    BEST,
    BRACKET,
    DIVIDE,
    DRILLED,
    INDEXED,
    LINEAR,
    MULTIPLY,
    NEXT,
    PICK,
    RANK,
    SUBTRACT,
    THRESHOLD,
    YEAR,
    Skill,
)
from models.recipe.bank.unknown import unknown
from models.recipe.batch import Batch, encode, next_token_loss, packed
from models.recipe.config import Pretrain

ROW_TOKENS, BATCH_ROWS = 256, 8
POOL = 2000  # texts drawn at once and packed into rows, so that each batch has its share of every kind of text
LR_MUON, LR_ADAMW = 3e-3, 1.5e-3
PROBE_WEIGHT = 1.0
OPEN_WRAPPED = 0.1  # share of wrapped sequences without options
NUMERALS = 0.08  # share of sums that are numbers and their Kazakh names
UNKNOWN = 0.04  # share of wrapped questions that have no answer


def config(tok: PreTrainedTokenizerBase, shape: Pretrain) -> Qwen3Config:
    """The architecture. Heads have 64 dimensions; rows are divisible by 256, so that K-quants need no fallback type."""
    return Qwen3Config(
        vocab_size=len(tok), hidden_size=shape.hidden_size, intermediate_size=shape.intermediate_size, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, head_dim=64, max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True, dtype=torch.bfloat16, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mix:
    """The mix of texts at one point of the training: shares of sequences with about equally many tokens, then shares of
    the four difficulties, and how far wrong numbers are from the right one.
    """

    sums: float
    facts: float
    open: float
    copying: float
    bare: float
    wrapped: float
    difficulty_1: float
    difficulty_2: float
    difficulty_3: float
    difficulty_4: float
    widen: float


# By step, for a run of `_WRITTEN_FOR` steps; a run of another length is scaled, and between two points the mix is
# interpolated. One thing is learned at a time: what letters are for (by copying), ranks, sums of bare numbers, then one skill
# after another (`_LESSONS`), and only then all difficulties and FogGen's prompt. Mixing everything from the start taught
# almost nothing in the same time.
_WRITTEN_FOR = 11_000
_CURRICULUM = {
    #         sums facts  open  copy  bare  wrap   d1    d2    d3    d4  widen
    0: Mix(0.00, 0.00, 0.00, 0.90, 0.10, 0.00, 1.00, 0.00, 0.00, 0.00, 6),
    112: Mix(0.00, 0.00, 0.00, 0.80, 0.20, 0.00, 1.00, 0.00, 0.00, 0.00, 6),
    120: Mix(0.00, 0.00, 0.55, 0.15, 0.30, 0.00, 1.00, 0.00, 0.00, 0.00, 6),
    400: Mix(0.10, 0.00, 0.35, 0.10, 0.45, 0.00, 0.60, 0.40, 0.00, 0.00, 6),
    640: Mix(0.50, 0.04, 0.16, 0.05, 0.25, 0.00, 0.50, 0.50, 0.00, 0.00, 5),
    1440: Mix(0.40, 0.08, 0.22, 0.02, 0.28, 0.00, 0.30, 0.40, 0.30, 0.00, 4),
    2560: Mix(0.22, 0.10, 0.20, 0.00, 0.43, 0.05, 0.22, 0.28, 0.42, 0.08, 3),
    3000: Mix(0.10, 0.03, 0.38, 0.02, 0.47, 0.00, 0.40, 0.30, 0.25, 0.05, 3),
    3001: Mix(0.16, 0.00, 0.70, 0.01, 0.13, 0.00, 1.00, 0.00, 0.00, 0.00, 3),
    4080: Mix(0.16, 0.00, 0.70, 0.01, 0.13, 0.00, 1.00, 0.00, 0.00, 0.00, 3),
    4081: Mix(0.20, 0.04, 0.20, 0.01, 0.55, 0.00, 1.00, 0.00, 0.00, 0.00, 3),
    4580: Mix(0.20, 0.04, 0.20, 0.01, 0.55, 0.00, 1.00, 0.00, 0.00, 0.00, 3),
    4581: Mix(0.15, 0.15, 0.45, 0.00, 0.25, 0.00, 1.00, 0.00, 0.00, 0.00, 3),
    5220: Mix(0.15, 0.15, 0.45, 0.00, 0.25, 0.00, 1.00, 0.00, 0.00, 0.00, 3),
    5221: Mix(0.13, 0.15, 0.20, 0.00, 0.52, 0.00, 0.25, 0.30, 0.45, 0.00, 2),
    5750: Mix(0.13, 0.15, 0.20, 0.00, 0.52, 0.00, 0.25, 0.30, 0.45, 0.00, 2),
    5751: Mix(0.13, 0.06, 0.50, 0.00, 0.31, 0.00, 1.00, 0.00, 0.00, 0.00, 2),
    6850: Mix(0.13, 0.06, 0.50, 0.00, 0.31, 0.00, 1.00, 0.00, 0.00, 0.00, 2),
    6851: Mix(0.13, 0.10, 0.22, 0.00, 0.55, 0.00, 1.00, 0.00, 0.00, 0.00, 2),
    7350: Mix(0.13, 0.10, 0.22, 0.00, 0.55, 0.00, 1.00, 0.00, 0.00, 0.00, 2),
    7351: Mix(0.12, 0.10, 0.15, 0.00, 0.43, 0.20, 0.12, 0.18, 0.42, 0.28, 2),
    7700: Mix(0.10, 0.08, 0.10, 0.00, 0.32, 0.40, 0.12, 0.18, 0.42, 0.28, 1),
    11000: Mix(0.03, 0.05, 0.03, 0.00, 0.09, 0.80, 0.15, 0.20, 0.38, 0.27, 1),
}  # fmt: skip
_BASIC_UNTIL = 1120


@dataclass(frozen=True, slots=True)
class Lesson:
    """From step `start` to `end`: questions without options ask for the `new` skills and sometimes for `known` ones;
    questions with options ask only for the known ones.
    """

    start: int
    end: int
    new: tuple[Skill, ...]
    known: tuple[Skill, ...]


# As long as the model cannot answer, a question with options adds only noise, with four times the weight. So each skill is
# first learned without options, and then practised with them.
_CHOOSING = (RANK, THRESHOLD, BEST, BRACKET, INDEXED)
_WORDED = (ADD, SUBTRACT, NEXT)
_LESSONS = (
    Lesson(3008, 3200, (THRESHOLD,), (RANK,)),
    Lesson(3200, 3450, (BEST,), (RANK, THRESHOLD)),
    Lesson(3450, 3600, (BRACKET,), (RANK, THRESHOLD)),
    Lesson(3600, 3850, (BEST,), (RANK, THRESHOLD, BRACKET)),
    Lesson(3850, 4081, (INDEXED, BEST), (RANK, THRESHOLD, BRACKET, BEST)),
    Lesson(4081, 4581, _CHOOSING, _CHOOSING),
    Lesson(4581, 4700, _WORDED, _CHOOSING),
    Lesson(4700, 4920, (BEST,), _CHOOSING),
    Lesson(4920, 5220, _WORDED, _CHOOSING),
    Lesson(5751, 6000, (MULTIPLY, DIVIDE, YEAR, ADD_SUBTRACT, PICK, LINEAR), (*_CHOOSING, *_WORDED)),
    Lesson(6000, 6500, (ADD, SUBTRACT), (*_CHOOSING, NEXT)),
    Lesson(6500, 6850, (MULTIPLY, DIVIDE, YEAR), (*_CHOOSING, *_WORDED)),
    Lesson(6851, 7351, (MULTIPLY, DIVIDE, ADD_SUBTRACT, PICK, LINEAR), (RANK, BEST, BEST, *_WORDED, *_WORDED, YEAR)),
)
_NEW_SHARE = 0.8


def mix(progress: float) -> Mix:
    """The curriculum at `progress` (0 to 1)."""
    points, at = sorted(_CURRICULUM), progress * _WRITTEN_FOR
    after = min(bisect.bisect_right(points, at), len(points) - 1)
    low, high = points[after - 1], points[after]
    share = min(1.0, (at - low) / (high - low))
    a, b = astuple(_CURRICULUM[low]), astuple(_CURRICULUM[high])
    return Mix(*(x + share * (y - x) for x, y in zip(a, b, strict=True)))


def sequences(rng: random.Random, progress: float) -> Iterator[dress.Dressed]:
    """Training texts at `progress` (0 to 1)."""
    now, at = mix(progress), progress * _WRITTEN_FOR
    lesson = next((lesson for lesson in _LESSONS if lesson.start <= at < lesson.end), None)
    # six questions without options, or three with, are as long as one of the others
    shares = [now.sums, now.facts, 6 * now.open, 3 * now.copying, 3 * now.bare, now.wrapped]
    while True:
        match rng.choices(("sums", "facts", "open", "copying", "bare", "wrapped"), shares)[0]:
            case "sums":
                basic = at < _BASIC_UNTIL
                named = not basic and rng.random() < NUMERALS
                yield dress.answered(drills.numerals(rng, 10) if named else drills.sums(rng, 12, BASIC if basic else DRILLED))
            case "facts":
                yield dress.stated(facts.sentences(rng, 10))
            case "open":
                item = _new(rng, now, lesson) if lesson else _item(rng, now)
                yield dress.answered([(item.stem, item.answer)])
            case "copying":
                yield dress.bare(dress.copying(rng))
            case "bare":
                yield dress.bare(_known(rng, now, lesson) if lesson else _item(rng, now))
            case _:
                n = rng.choice((1, 1, 2))
                if rng.random() < OPEN_WRAPPED:
                    yield dress.wrapped_open([_item(rng, now) for _ in range(n)])
                else:
                    yield dress.wrapped([_item(rng, now) if rng.random() >= UNKNOWN else unknown(rng) for _ in range(n)], rng)


def _item(rng: random.Random, now: Mix) -> Item:
    weights = (now.difficulty_1, now.difficulty_2, now.difficulty_3, now.difficulty_4)
    return draw(rng, "train", difficulty=rng.choices((1, 2, 3, 4), weights)[0], widen=now.widen, facts=True)


def _new(rng: random.Random, now: Mix, lesson: Lesson) -> Item:
    if rng.random() >= _NEW_SHARE:
        return _known(rng, now, lesson)
    return draw(rng, "train", skill=rng.choice(lesson.new), widen=now.widen)


def _known(rng: random.Random, now: Mix, lesson: Lesson) -> Item:
    return draw(rng, "train", skill=rng.choice(lesson.known), widen=now.widen)


def batches(rng: random.Random, progress: float, tok: PreTrainedTokenizerBase) -> list[Batch]:
    """One pool of texts, packed into rows of at most `ROW_TOKENS` tokens, `BATCH_ROWS` rows a batch.

    The rows stay in the order in which they were drawn: batches of one kind each (sorted by length, say) had made the
    model forget one thing while it learned another.
    """
    drawn = sequences(rng, progress)
    rows = packed(encode([next(drawn) for _ in range(POOL)], tok), ROW_TOKENS)
    return [Batch(rows[i : i + BATCH_ROWS], tok.pad_token_id) for i in range(0, len(rows) - BATCH_ROWS + 1, BATCH_ROWS)]


def loss(model: Qwen3ForCausalLM, probe: torch.nn.Linear, batch: Batch) -> torch.Tensor:
    """Weighted next-token loss plus the probe's."""
    out = model.model(batch.ids, position_ids=batch.positions, output_hidden_states=True, use_cache=False)
    total = next_token_loss(model, out.last_hidden_state, batch)
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


def train(out: pathlib.Path, seed: int, shape: Pretrain) -> None:
    """Train and save base and tokenizer to `out`; goes on from `out/training.pt` if a run was cut short."""
    use_fused_norm()
    torch.manual_seed(seed)
    steps = shape.steps
    tok = _tokenizer(out, seed)
    model = Qwen3ForCausalLM(config(tok, shape)).float()
    probe = torch.nn.Linear(model.config.hidden_size, 1)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
    rest = [p for p in model.parameters() if not any(p is m for m in matrices)] + list(probe.parameters())
    optimizers = [
        torch.optim.Muon(matrices, lr=LR_MUON, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=LR_ADAMW, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    schedulers = [torch.optim.lr_scheduler.LambdaLR(o, lambda s: _schedule(s, steps)) for o in optimizers]
    saved, pools, step = out / "training.pt", 0, 0
    parts = {"model": model, "probe": probe, **{f"o{i}": o for i, o in enumerate(optimizers)}}
    parts |= {f"s{i}": s for i, s in enumerate(schedulers)}
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        step, pools = state["step"], state["pools"]
        for name, part in parts.items():
            part.load_state_dict(state[name])
    watched = list(draw_many(seed, 280, "test"))
    bar = tqdm(total=steps, initial=step, desc="base", unit="step", mininterval=10)
    while step < steps:
        rng = random.Random(f"pretrain/{seed}/{pools}")  # a pool depends only on its number, so a resumed run repeats it
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
            if step % 250 == 0 or step == steps:
                bar.write(f"{step} {time.strftime('%T')} loss {value.item():.3f} {_progress(model, tok, watched)}")
        state = {name: part.state_dict() for name, part in parts.items()} | {"step": step, "pools": pools}
        torch.save(state, saved.with_suffix(".part"))
        saved.with_suffix(".part").replace(saved)
    model.to(torch.bfloat16).save_pretrained(out)
    saved.unlink()


def _tokenizer(out: pathlib.Path, seed: int) -> PreTrainedTokenizerBase:
    """The tokenizer, trained and saved first if there is none."""
    if not (out / "tokenizer.json").exists():
        tokenizer.train(seed).save_pretrained(out)
    return AutoTokenizer.from_pretrained(out)


def _progress(model: Qwen3ForCausalLM, tok: PreTrainedTokenizerBase, items: list[Item]) -> str:
    """The share of right answers, in total and by difficulty."""
    best = legal.score(model, tok, [dress.prompt(item) for item in items], [1.0])[0, :, 0]  # (item, letter)
    right = [int(row[: len(item.options)].argmax()) == item.gold for row, item in zip(best, items, strict=True)]
    by = [[r for r, item in zip(right, items, strict=True) if item.difficulty == d] for d in (1, 2, 3, 4)]
    return f"right {sum(right) / len(right):.3f} by difficulty " + " ".join(f"{sum(b) / max(1, len(b)):.2f}" for b in by)


def _schedule(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / 50)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))
