"""Training lines of a chain that answers with options: a few questions behind one shared system message, one line a step.

Owns the order of the lines and their loss, and the steps of LoRA over them with checkpoints. Invariant: a run that was killed and goes
on takes the same steps as one that was not, except for where a time limit ends it.
"""

from __future__ import annotations

import math
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

import torch
from peft import PeftModel
from peft.utils.save_and_load import get_peft_model_state_dict, set_peft_model_state_dict
from torch.nn import functional

from edge_agent.core.files import put_in_place
from models.recipe.answers import OptionAnswers
from models.recipe.bank import Item
from models.recipe.config import Lora, Weights
from models.recipe.forest import Forest, evaluated, logits

_WARM_STEPS = 20
_SAVED_EVERY_S = 45.0


@dataclass(slots=True)
class TrainingLine:
    """A forest, and for each token of an answer: the index of the token before it, the token, and its weight in the loss."""

    forest: Forest
    before: list[int]
    target: list[int]
    weight: list[float]


def line(answers: OptionAnswers, rows: Sequence[tuple[Item, str]], weights: Weights) -> TrainingLine:
    """One line with a row for each question and its level, answered with the right option."""
    made = TrainingLine(Forest(answers.shared), [], [], [])
    for item, level in rows:
        at = made.forest.add(answers.prompt(item), made.forest.root)
        tokens = answers.answer(level, item, item.gold)
        level_at, level_end, option_at = answers.parts(level)
        for n, token in enumerate(tokens):
            made.before.append(at)
            made.target.append(token)
            is_level, is_option = level_at <= n < level_end, option_at <= n < len(tokens) - 1
            made.weight.append(weights.level if is_level else weights.letter if is_option else weights.rest)
            if n + 1 < len(tokens):
                at = made.forest.add([token], at)
    return made


def lines(answers: OptionAnswers, rows: Sequence[tuple[Item, str]], tokens: int, rng: Random) -> Iterator[list[tuple[Item, str]]]:
    """The rows in random order, cut into lines of about `tokens` tokens; the options of each question in a new order."""
    part: list[tuple[Item, str]] = []
    size = len(answers.shared)
    for item, level in rng.sample(list(rows), len(rows)):
        order = rng.sample(range(len(item.options)), len(item.options))
        shuffled = replace(item, options=tuple(item.options[i] for i in order), gold=order.index(item.gold))
        own = len(answers.prompt(shuffled)) + len(answers.answer(level, shuffled, shuffled.gold))
        if part and size + own > tokens:
            yield part
            part, size = [], len(answers.shared)
        part.append((shuffled, level))
        size += own
    if part:
        yield part


def loss(model: torch.nn.Module, made: TrainingLine) -> torch.Tensor:
    """The weighted mean of the next-token loss over the answers of a line."""
    hidden = evaluated(model, made.forest)  # type: ignore[arg-type]
    device = hidden.device
    with torch.autocast(device.type, torch.bfloat16):
        found = logits(model, hidden[torch.tensor(made.before, device=device)])  # type: ignore[arg-type]
    weights = torch.tensor(made.weight, device=device)
    each = functional.cross_entropy(found, torch.tensor(made.target, device=device), reduction="none")
    return (each * weights).sum() / weights.sum()


@dataclass(slots=True)
class Training:
    """The state of one round's training: steps and seconds so far, and the losses."""

    steps: int = 0
    seconds: float = 0.0
    losses: tuple[float, ...] = ()


def train(
    model: PeftModel, answers: OptionAnswers, rows: Sequence[tuple[Item, str]], lora: Lora, seed: str, saved: pathlib.Path,
    limit_s: float | None, report: Callable[[Training, float], None],
) -> Training:  # fmt: skip
    """Train the adapter of `model` for `lora.epochs`, or for `limit_s` more seconds if they end first. Goes on from the file `saved`.

    The learning rate falls over whichever of the two ends first. At least one step is taken.
    """
    inner = model.get_base_model()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lora.learning_rate, weight_decay=0.0)
    state = Training()
    if saved.exists():
        kept = torch.load(saved, weights_only=True)
        set_peft_model_state_dict(model, kept["adapter"])
        optimizer.load_state_dict(kept["optimizer"])
        state = Training(kept["steps"], kept["seconds"], tuple(kept["losses"]))
    plan = [part for epoch in range(lora.epochs) for part in lines(answers, rows, lora.batch_tokens, Random(f"{seed}/{epoch}"))]
    before, started, last_saved = state.seconds, time.monotonic(), time.monotonic()
    whole_s = math.inf if limit_s is None else max(1e-3, before + limit_s)
    for at in range(state.steps, len(plan)):
        done = max(at / len(plan), state.seconds / whole_s)
        if done >= 1 and at:
            break
        for group in optimizer.param_groups:
            group["lr"] = lora.learning_rate * min(1.0, (at + 1) / _WARM_STEPS) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        value = loss(inner, line(answers, plan[at], lora.weights))
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        state = Training(at + 1, before + time.monotonic() - started, (*state.losses[-199:], value.item()))
        report(state, min(1.0, max((at + 1) / len(plan), state.seconds / whole_s)))
        if time.monotonic() - last_saved > _SAVED_EVERY_S:
            _save(model, optimizer, state, saved)
            last_saved = time.monotonic()
    _save(model, optimizer, state, saved)
    return state


def _save(model: PeftModel, optimizer: torch.optim.Optimizer, state: Training, saved: pathlib.Path) -> None:
    part = saved.with_suffix(".part")
    adapter = get_peft_model_state_dict(model, save_embedding_layers=False)  # else peft looks for the base on the Hub
    torch.save(
        {
            "adapter": adapter,
            "optimizer": optimizer.state_dict(),
            "steps": state.steps,
            "seconds": state.seconds,
            "losses": list(state.losses),
        },
        part,
    )
    put_in_place(part, saved)
