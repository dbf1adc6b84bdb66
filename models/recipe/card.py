"""The card of the demo model, written from its measurements.

Invariant: every figure on the card comes from `measured.json` or `compared.json` next to it.
"""

from __future__ import annotations

from typing import Any

from models.recipe.config import Recipe


def text(recipe: Recipe, figures: dict[str, Any], compared: dict[str, Any] | None) -> str:
    """The card as Markdown."""
    assert recipe.pretrain and recipe.card
    evaluation, chain, lora = figures["evaluation"], recipe.chain, recipe.lora
    parts = [
        f"""# {recipe.name}

A small model made like FogGen: Qwen3's architecture with {_millions(recipe)} parameters, trained from scratch on generated
multiple-choice questions (`models/recipe/bank`), then taught in {chain.rounds} FogGen rounds to say how sure it is before it
answers. With it, everything in this repository can run, be tested and be measured without a download. It knows its seven
small domains and almost nothing else. Apache-2.0.

| file | content |
|---|---|
| `base/` | the base before the rounds, in the format of transformers (bf16 safetensors) |
| `adapter/` | the rounds up to R{figures["stop"]}, in the format of peft; base + adapter is the model |
{_opened(recipe, figures)}{_files(figures)}
| `measured.json` | all figures below |

## Measured

On {evaluation["right"]["questions"]:,} held-out questions, with the runtime and the file `{recipe.name}-Q8_0.gguf`:

    python -m models.recipe.bank --n {recipe.card.questions_per_domain} > questions.jsonl
    edge-agent eval questions.jsonl --model models/demo/{recipe.name}-Q8_0.gguf --greedy

{_summary(evaluation, figures)}

### Routing by the printed confidence (tau = {evaluation["tau"]})

The cloud is simulated: it is right on {evaluation["simulated_cloud_accuracy"]:.0%} of all questions. Figures are percentages.

{_table(evaluation["readouts"]["confidence"])}

### Routing by `expected_confidence` (tau = {evaluation["tau"]})

{_table(evaluation["readouts"]["expected_confidence"])}

### Levels

{_levels(evaluation)}

### What each round changes

![Accuracy, AUROC, lift and calibration error after each round](rounds.svg)

{_rounds(figures["rounds"])}

The model is R{figures["stop"]}, the round with the best mean of both AUROC values. The questions of this table chose it. They are not
part of the figures above, except for contents that both sets contain by chance.

### Quantizations compared with F16

{_quantizations(figures["quantizations"])}
""",
        _open_ended(figures["open_ended"]),
        _compared(compared),
        f"""## How it was made

`make demo-model` in `build/demo`: seed {recipe.seed}, {recipe.pretrain.steps:,} steps of about 2,048 tokens for the base, then
{chain.rounds} rounds of {chain.new_questions} new and {chain.replayed_questions} replayed questions: {recipe.labels.samples} answers at
T = {recipe.labels.temperature} each, LoRA of rank {lora.r}, alpha {lora.alpha}, all linear layers, {lora.epochs} epochs, learning rate {lora.learning_rate:g}. The
questions are identical for the same seed; the last bits of the weights differ between machines.
""",
    ]
    return "\n".join(part for part in parts if part)


def _millions(recipe: Recipe) -> str:
    shape = recipe.pretrain
    assert shape
    attention = shape.hidden_size * 64 * (2 * shape.heads + 2 * shape.kv_heads)
    layer = attention + 3 * shape.hidden_size * shape.intermediate_size
    return f"{(shape.layers * layer + 1536 * shape.hidden_size) / 1e6:.1f} M"


def _opened(recipe: Recipe, figures: dict[str, Any]) -> str:
    if not figures["open_ended"]:
        return ""
    return f"| `adapter-open/` | all {recipe.chain.rounds} rounds and one more on questions without options |\n"


def _files(figures: dict[str, Any]) -> str:
    return "\n".join(f"| `{f['path']}` | {f['bytes']:,} bytes, sha256 `{f['sha256']}` |" for f in figures["files"])


def _summary(evaluation: dict[str, Any], figures: dict[str, Any]) -> str:
    printed, expected = evaluation["readouts"]["confidence"], evaluation["readouts"]["expected_confidence"]
    right, greedy, facts = evaluation["right"], evaluation["greedy"], figures["facts"]
    by_difficulty = " / ".join(f"{share['share']:.1%}" for share in evaluation["difficulties"].values())
    return f"""| | |
|---|---|
| right | {right["share"]:.1%} (95 % interval {right["low"]:.1%} to {right["high"]:.1%}; chance 29 %) |
| right by difficulty 1 / 2 / 3 / 4 | {by_difficulty} |
| AUROC of the printed level / of `expected_confidence` | {printed["auroc"]:.3f} / {expected["auroc"]:.3f} |
| ECE of the printed level / of `expected_confidence` | {printed["ece"]:.3f} / {expected["ece"]:.3f} |
| lift over random routing, mean of the domains, points | {100 * printed["mean"]["lift"]:+.1f} / {100 * expected["mean"]["lift"]:+.1f} |
| answers in the format without any constraint | {greedy["keeps_format"]["share"]:.2%} |
| no confidence found | {evaluation["no_confidence"]["share"]:.2%} |
| held-out facts, asked {facts["questions"]} times: right / said at 0.75 or more | {facts["right"]:.1%} / {facts["sure"]:.1%} |"""


def _table(readout: dict[str, Any]) -> str:
    names = ("cloud", "edge", "random", "system", "routed", "lift")
    lines = ["| domain | cloud only | edge raw | random | system | routed | lift |", "|---|---|---|---|---|---|---|"]
    for row in [*readout["domains"], readout["mean"]]:
        lines.append(f"| {row['domain']} | " + " | ".join(f"{100 * row[n]:{'+' if n == 'lift' else ''}.1f}" for n in names) + " |")
    return "\n".join(lines)


def _levels(evaluation: dict[str, Any]) -> str:
    lines = ["| printed | questions | right |", "|---|---|---|"]
    lines += [f"| {name} | {level['questions']:,} | {_percent(level['share'])} |" for name, level in evaluation["levels"].items()]
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _rounds(rounds: list[dict[str, Any]]) -> str:
    lines = ["| round | right | AUROC level / expected | ECE level / expected | lift level / expected | routed level / expected | levels 0.0 ... 1.0 |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for f in rounds:
        a, b = f["confidence"], f["expected_confidence"]
        lines.append(
            f"| R{f['round']} | {f['right']:.1%} | {a['auroc']:.3f} / {b['auroc']:.3f} | {a['ece']:.3f} / {b['ece']:.3f} | "
            f"{100 * a['lift']:+.1f} / {100 * b['lift']:+.1f} | {a['routed']:.1%} / {b['routed']:.1%} | {' '.join(map(str, f['levels'].values()))} |"
        )
    return f"On {rounds[0]['questions']:,} held-out questions, with transformers.\n\n" + "\n".join(lines)


def _quantizations(found: dict[str, dict[str, float]]) -> str:
    lines = ["| | right | AUROC level / expected | routed level / expected | same letter | same level | same route level / expected |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, q in found.items():
        lines.append(
            f"| {name} | {q['right']:.1%} | {q['auroc']:.3f} / {q['auroc_expected']:.3f} | {q['routed']:.1%} / {q['routed_expected']:.1%} | "
            f"{q['same_letter']:.1%} | {q['same_level']:.1%} | {q['same_route']:.1%} / {q['same_route_expected']:.1%} |"
        )
    return "\n".join(lines)


def _open_ended(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    before, after = found["before"], found["after"]
    return f"""### Without options (`adapter-open/`)

{after["questions"]} held-out questions, answered in a few words: right {before["right"]:.1%} after the last letter round, {after["right"]:.1%} after one
open-ended round; AUROC of the printed level {before["confidence"]["auroc"]:.3f} and {after["confidence"]["auroc"]:.3f}; lift
{100 * before["confidence"]["lift"]:+.1f} and {100 * after["confidence"]["lift"]:+.1f} points.
"""


def _compared(compared: dict[str, Any] | None) -> str:
    if compared is None:
        return ""
    lines = [
        "| | right | AUROC level / expected | ECE level / expected | lift level / expected | levels 0.0 ... 1.0 |",
        "|---|---|---|---|---|---|",
    ]
    for name, f in compared["variants"].items():
        a, b = f["confidence"], f["expected_confidence"]
        lines.append(
            f"| {name} | {f['right']:.1%} | {a['auroc']:.3f} / {b['auroc']:.3f} | {a['ece']:.3f} / {b['ece']:.3f} | "
            f"{100 * a['lift']:+.1f} / {100 * b['lift']:+.1f} | {' '.join(map(str, f['levels'].values()))} |"
        )
    return (
        f"### Variants\n\nMeasured by `python -m models.recipe.compare --out build/demo`, on {compared['questions']:,} held-out questions.\n\n"
        + "\n".join(lines)
        + "\n"
    )
