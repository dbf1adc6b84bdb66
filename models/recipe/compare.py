"""`python -m models.recipe.compare --out build/demo`: makes variants of a finished chain and compares them.

Sampled or exact labels, half-up or half-even rounding, three seeds of the last round, and the capability floor: a base of
1 M parameters, with and without labels from its larger sibling. Each variant is a chain in its own folder, so an
interrupted run continues. Invariant: a variant differs from the recipe only in what its name says.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
from dataclasses import replace
from typing import Any

from models.recipe import config, pretrain
from models.recipe.chain import Chain, write
from models.recipe.config import Pretrain, Recipe, Sibling
from models.recipe.progress import say
from models.recipe.source import Bank

FLOOR = Pretrain(steps=3000, hidden_size=128, intermediate_size=384, layers=5, heads=2, kv_heads=1)


def variants(recipe: Recipe, rounds: int) -> dict[str, Recipe]:
    """Chains of this many rounds on the demo base."""
    short = replace(recipe, chain=replace(recipe.chain, rounds=rounds))
    return {
        f"exact labels, R{rounds}": replace(short, labels=replace(short.labels, exact=True)),
        f"half-even labels, R{rounds}": replace(short, labels=replace(short.labels, rounding="half-even")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m models.recipe.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="demo")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the folder in which `python -m models.recipe` made the model")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of the variants (default 7, one for each domain)")
    parser.add_argument("--floor-rounds", type=int, default=3, help="rounds of the small base (default 3)")
    parser.add_argument("--floor-steps", type=int, default=FLOOR.steps, help=f"training steps of the small base (default {FLOOR.steps})")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a value of the configuration")
    arguments = parser.parse_args()
    recipe, out = config.load(arguments.config, arguments.set), arguments.out
    pretrain.use_fused_norm()
    found = _made(recipe, out, arguments.rounds)
    for name, variant in variants(recipe, arguments.rounds).items():
        found[name] = _chain(variant, str(out / "base"), out / "compared" / _folder(name), arguments.rounds)[-1]
    found |= _seeds(recipe, out)
    found |= _floor(recipe, out, replace(FLOOR, steps=arguments.floor_steps), arguments.floor_rounds)
    write(out / "compared.json", json.dumps({"questions": recipe.chain.measured_questions, "variants": found}, indent=1) + "\n")
    say(f"written: {out / 'compared.json'}")


def _made(recipe: Recipe, out: pathlib.Path, rounds: int) -> dict[str, Any]:
    """The measurements of the chain itself, after as many rounds as the variants have and after the last."""
    return {f"sampled labels, half-up, R{n}": json.loads((out / "rounds" / f"R{n:02d}" / "measured.json").read_text())
            for n in (rounds, recipe.chain.rounds)}  # fmt: skip


def _chain(recipe: Recipe, base: str, out: pathlib.Path, rounds: int) -> list[dict[str, Any]]:
    say(f"{out.name}: {rounds} rounds")
    out.mkdir(parents=True, exist_ok=True)
    return Chain(recipe, base, out, Bank()).run(rounds)


def _seeds(recipe: Recipe, out: pathlib.Path) -> dict[str, Any]:
    """The last round with other seeds, from the same checkpoint before it."""
    found = {}
    for seed in (recipe.seed + 1, recipe.seed + 2):
        folder = out / "compared" / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "rounds").exists():
            shutil.copy(out / "buffer.jsonl", folder / "buffer.jsonl")
            shutil.copytree(out / "rounds", folder / "rounds")
            for number in (recipe.chain.rounds, recipe.chain.rounds + 1):
                shutil.rmtree(folder / "rounds" / f"R{number:02d}", ignore_errors=True)
        found[f"last round with seed {seed}"] = _chain(replace(recipe, seed=seed), str(out / "base"), folder, recipe.chain.rounds)[-1]
    return found


def _floor(recipe: Recipe, out: pathlib.Path, shape: Pretrain, rounds: int) -> dict[str, Any]:
    """A base of 1 M parameters: alone, and taught by the finished model first."""
    base = out / "compared" / "floor-base"
    if not (base / "model.safetensors").exists():
        pretrain.train(base, recipe.seed, shape)
    short = replace(recipe, pretrain=shape, chain=replace(recipe.chain, rounds=rounds))
    alone = _chain(short, str(base), out / "compared" / "floor-alone", rounds)
    taught = _chain(replace(short, sibling=Sibling(str(_merged(out)))), str(base), out / "compared" / "floor-taught", rounds)
    return {"floor, R0": alone[0], f"floor alone, R{rounds}": alone[-1],
            "floor taught by its sibling, R0": taught[0], f"floor taught by its sibling, R{rounds}": taught[-1]}  # fmt: skip


def _merged(out: pathlib.Path) -> pathlib.Path:
    """The finished model as one checkpoint."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    merged = out / "compared" / "sibling"
    if not merged.exists():
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(out / "base"), out / "adapter")
        model.merge_and_unload().save_pretrained(merged)
        AutoTokenizer.from_pretrained(out / "base").save_pretrained(merged)
    return merged


def _folder(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-")


if __name__ == "__main__":
    main()
