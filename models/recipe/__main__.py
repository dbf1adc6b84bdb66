"""`python -m models.recipe --config demo --out DIR`: makes a FogGen model from a configuration: base, rounds, GGUFs, card.

A step is skipped if its result exists, so an interrupted run continues where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import sys
import time

from edge_agent.core.errors import BadSetting, EdgeAgentError
from models.recipe import chain, config, demo, gguf_base, open_ended, pretrain
from models.recipe.bank.frozen import fingerprint
from models.recipe.legal import MOST_LETTERS
from models.recipe.progress import say
from models.recipe.source import Bank, Files


def main() -> None:
    names = ", ".join(sorted(path.stem for path in config.CONFIGS.glob("*.toml")))
    parser = argparse.ArgumentParser(
        prog="python -m models.recipe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="demo", help=f"{names}, or a TOML file (default demo)")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the folder to work in; a run continues from its contents")
    parser.add_argument("--base", default="", help="the base, instead of the configuration's: a checkpoint, or a GGUF")
    parser.add_argument("--sibling", default="", help="another model that labels the first questions: a checkpoint, or a GGUF")
    parser.add_argument("--data", type=pathlib.Path, nargs="+", help="question files with gold answers, instead of the bank")
    parser.add_argument("--minutes", type=float, help="the time for the whole run, over all its starts (answer kind option)")
    parser.add_argument("--rounds", type=int, help="stop after this many rounds; a later run continues")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a value: --set chain.new_questions=100")
    arguments = parser.parse_args()
    try:
        _run(arguments)
    except EdgeAgentError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        print("stopped; run the same command to continue", file=sys.stderr)
        raise SystemExit(130) from None


def _run(arguments: argparse.Namespace) -> None:
    recipe, out, started = config.load(arguments.config, arguments.set), arguments.out, time.monotonic()
    if arguments.base:
        recipe = dataclasses.replace(recipe, base=arguments.base, pretrain=None)
    if arguments.sibling:
        recipe = dataclasses.replace(recipe, sibling=config.Sibling(arguments.sibling))
    files = Files(arguments.data, *([] if recipe.answer_kind == "option" else [MOST_LETTERS])) if arguments.data else None
    if arguments.minutes is not None and (recipe.answer_kind != "option" or not 0 < arguments.minutes < 1e6):
        raise BadSetting(f"--minutes {arguments.minutes:g} must be above 0, and is for recipes with answer_kind = 'option'")
    out.mkdir(parents=True, exist_ok=True)
    _begin(out, recipe, files)
    rounds = recipe.chain.rounds if arguments.rounds is None else min(arguments.rounds, recipe.chain.rounds)
    if recipe.answer_kind == "option":
        _run_options(recipe, out, files, rounds, arguments.minutes)
        return
    base = gguf_base.opened(recipe.base, out / "base") if recipe.base else str(out / "base")
    if recipe.pretrain:
        pretrain.use_fused_norm()
        if not (out / "base" / "model.safetensors").exists():
            pretrain.train(out / "base", recipe.seed, recipe.pretrain)
    run = chain.Chain(recipe, base, out, files or Bank())
    run.run(rounds)
    if recipe.open_ended and rounds == recipe.chain.rounds:
        open_ended.run(run)
    if recipe.pretrain and recipe.card:
        demo.finish(out, recipe, rounds)
    say(f"done in {(time.monotonic() - started) / 60:.0f} minutes: {out}")


def _run_options(recipe: config.Recipe, out: pathlib.Path, files: Files | None, rounds: int, minutes: float | None) -> None:
    from models.recipe import option_chain

    if files is None:
        raise BadSetting(f"the recipe {recipe.name} answers with the texts of options, so it needs real questions; give them with --data")
    base = gguf_base.opened(recipe.base, out / "base")
    sibling = gguf_base.opened(recipe.sibling.path, out / "sibling") if recipe.sibling else None
    option_chain.OptionChain(recipe, base, out, files, sibling, minutes and 60 * minutes).run(rounds)
    adapter = out / "rounds" / f"R{rounds:02d}" / "adapter"
    say(f"to make the model file: python -m convert {base} --adapter {adapter} --answer-kind option --quants Q8_0 --out {out}")


def _begin(out: pathlib.Path, recipe: config.Recipe, files: Files | None) -> None:
    """Record the recipe and the questions of the run. Raises `BadSetting` if it was started with others."""
    questions = {"data_sha256": files.sha256} if files else {"bank_sha256": fingerprint()}
    noted = json.dumps({**questions, "recipe": dataclasses.asdict(recipe)}, indent=1)
    path = out / "run.json"
    if not path.exists():
        chain.write(path, noted)
    elif path.read_text(encoding="utf-8") != noted:
        raise BadSetting(f"{out} was started with another configuration or other questions ({path}); give an empty folder to --out")


if __name__ == "__main__":
    main()
