"""`python -m models.recipe --out DIR`: makes a demo model from nothing - tokenizer, base, one FogGen round, GGUF, card.

Every step is skipped when its result is there, so a run that was cut short goes on where it stopped; the base also
resumes inside (see `pretrain`).
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import torch
from transformers import AutoTokenizer, Qwen3ForCausalLM

from convert.export import export
from edge_agent.engine import LocalModel
from models.recipe import card, label, pretrain, sft
from models.recipe.bank import draw_many
from models.recipe.evaluate import measure

DEMO = pathlib.Path(__file__).parent.parent / "demo"
QUANTIZATION = "Q8_0"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m models.recipe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, default=DEMO, help="where it is made (default models/demo)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4200, help="of the base's training (default 4200, some 35 minutes)")
    parser.add_argument("--round-questions", type=int, default=4200, help="self-assessed and trained on (default 4200)")
    arguments = parser.parse_args()
    out = arguments.out
    if not (out / "base" / "model.safetensors").exists():
        pretrain.train(out / "base", arguments.seed, arguments.steps)
    if not (out / "adapter" / "adapter_model.safetensors").exists():
        _round(out, arguments.seed, arguments.round_questions)
    say("converting")
    file = export(out / "base", [out / "adapter"], [QUANTIZATION], out, "FogGen-demo", say)[0]
    say("measuring on held-out questions")
    with LocalModel(file.path) as model:
        figures = measure(model, 200)
    (out / "README.md").write_text(card.text(figures, file, arguments.seed, arguments.steps, arguments.round_questions), encoding="utf-8")
    say(f"done: {out}")


def _round(out: pathlib.Path, seed: int, n_questions: int) -> None:
    """One FogGen round on the base: it samples its own answers, and learns to say how often they were right."""
    pretrain.use_fused_norm()
    tok = AutoTokenizer.from_pretrained(out / "base")
    base = Qwen3ForCausalLM.from_pretrained(out / "base", dtype=torch.float32)
    items = list(draw_many(seed + 1000, n_questions, "train"))
    say(f"self-sampling {label.N_SAMPLES} answers to each of {len(items)} questions")
    levels = label.self_assess(base, tok, items, seed)
    sft.train(base, tok, items, levels, out / "adapter", seed)


def say(step: str) -> None:
    print(step, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
