"""The demo model's card, written from what was measured."""

from __future__ import annotations

from convert.export import Written
from models.recipe.evaluate import CLOUD_ACCURACY, TAU, Figures


def text(figures: Figures, file: Written, seed: int, steps: int, round_questions: int) -> str:
    """The card as Markdown."""
    f = figures
    domains = "\n".join(f"| {name} | {share:.1%} |" for name, share in f.right_by_domain.items())
    difficulties = " / ".join(f"{share:.0%}" for share in f.right_by_difficulty.values())
    levels = "\n".join(
        f"| {name} | {count} | {f.right_by_level[name]:.0%} |" if count else f"| {name} | 0 | - |" for name, count in f.levels.items()
    )
    return f"""# FogGen-demo

A toy of FogGen's kind: a Qwen3-architecture model of 4.1 M parameters, trained from scratch on procedurally generated
multiple-choice questions (`models/recipe/bank`), then taught to say how sure it is by one FogGen round: it answered
each of {round_questions:,} questions eight times at T = 0.7, and a LoRA (rank 16, alpha 32, all linear layers, 2 epochs) taught it to
print the share that was right, in five levels, before the answer. It exists so that everything in this repository can
run, be tested and be measured without a download. It knows next to nothing about the world. Apache-2.0.

| file | what |
|---|---|
| `base/` | the base before any confidence line, as transformers saves it (bf16 safetensors) |
| `adapter/` | the FogGen round, as peft saves it |
| `{file.path.name}` | base + adapter, made by `python -m convert models/demo/base --adapter models/demo/adapter --name FogGen-demo --out models/demo` ({file.bytes:,} bytes, sha256 `{file.sha256}`) |

## Measured

On {f.questions:,} questions whose contents no training saw, through the runtime, by
`python -m models.recipe.evaluate models/demo/{file.path.name}`:

| | |
|---|---|
| right | {f.right:.1%} (chance: about 29 %) |
| right by difficulty 1 / 2 / 3 / 4 | {difficulties} |
| AUROC of the printed confidence | {f.auroc:.3f} |
| AUROC of the expected confidence | {f.auroc_expected:.3f} |
| no confidence found | {f.no_confidence:.2%} |
| routed to the cloud at tau = {TAU} | {f.routed:.1%} |
| lift over random routing at that rate, with a simulated cloud that is {CLOUD_ACCURACY:.0%} right | {100 * f.lift:+.1f} points |

| confidence printed | questions | right |
|---|---|---|
{levels}

| domain | right |
|---|---|
{domains}

Only one round was made, so the confidence is rough. Some domains have few held-out contents (a small vocabulary), so
the number of questions differs between them.

## Made by

`make demo-model`, into `build/demo` (seed {seed}, {steps:,} steps of about 2,048 tokens; some 45 minutes on 2 cores). The questions are the same for
the same seed; weights differ in their last bits from machine to machine.
"""
