"""Finishes a demo model: its GGUFs, their measurements through the runtime, and the card.

Owns the layout of `models/demo`. Invariant: every figure on the card was measured with a file next to it.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from typing import Any

from convert.export import Conversion, Reports, export
from edge_agent.core.question import Question
from edge_agent.engine.local_model import LocalModel
from edge_agent.measure import evaluate
from edge_agent.measure.sets.labelled import Labelled
from models.recipe import card, picture
from models.recipe.bank import DOMAINS, Item, draw_facts, draw_many
from models.recipe.chain import write
from models.recipe.config import Recipe
from models.recipe.progress import say

QUANTIZATIONS = ("F16", "Q8_0", "Q4_K_M", "Q4_0")
MEASURED = "Q8_0"


def finish(out: pathlib.Path, recipe: Recipe, rounds: int) -> None:
    """Write adapters, GGUFs, measurements, picture and card to `out`."""
    by_round = [json.loads((out / "rounds" / f"R{number:02d}" / "measured.json").read_text()) for number in range(rounds + 1)]
    stop = best_round(by_round)
    for folder, number in (("adapter", stop), ("adapter-open", recipe.chain.rounds + 1)):
        if (out / "rounds" / f"R{number:02d}" / "adapter").exists():
            shutil.copytree(out / "rounds" / f"R{number:02d}" / "adapter", out / folder, dirs_exist_ok=True)
    files = export(Conversion(out / "base", [out / "adapter"], QUANTIZATIONS, recipe.name), out, Reports(step=say))
    assert recipe.card
    asked = questions(recipe.card.questions_per_domain)
    measured = {file.quantization: _measured(file.path, asked, file.quantization == MEASURED) for file in files}
    figures = {
        "stop": stop,
        "files": [dataclasses.asdict(file) | {"path": file.path.name} for file in files],
        "rounds": by_round,
        "evaluation": measured[MEASURED][0],
        "facts": _facts(out / f"{recipe.name}-{MEASURED}.gguf"),
        "quantizations": _against(measured),
    }
    opened = out / "rounds" / f"R{recipe.chain.rounds + 1:02d}" / "measured.json"
    figures["open_ended"] = json.loads(opened.read_text()) if opened.exists() else None
    write(out / "measured.json", json.dumps(figures, indent=1) + "\n")
    picture.rounds(by_round, out / "rounds.svg")
    compared = out / "compared.json"
    write(out / "README.md", card.text(recipe, figures, json.loads(compared.read_text()) if compared.exists() else None))


def best_round(by_round: list[dict[str, Any]]) -> int:
    """The round to stop at: the one with the best mean AUROC of both readouts, on the chain's own questions. A lift depends
    on one tau and has more noise.
    """
    return max(
        range(1, len(by_round)), key=lambda n: sum(by_round[n][readout]["auroc"] for readout in ("confidence", "expected_confidence"))
    )


def questions(per_domain: int) -> list[Labelled]:
    """The questions that `python -m models.recipe.bank --n per_domain` writes."""
    return [_labelled(item) for domain in DOMAINS for item in draw_many(0, per_domain, "test", domain)]


def _labelled(item: Item) -> Labelled:
    return Labelled(Question(item.stem, item.options), item.letter, item.domain, item.difficulty, item.content)


def _measured(path: pathlib.Path, asked: list[Labelled], greedy: bool) -> tuple[dict[str, Any], list[evaluate.Row]]:
    say(f"measuring {path.name} on {len(asked)} questions")
    with LocalModel(path) as model:
        rows = list(evaluate.ask(model, asked, greedy))
        return evaluate.evaluate(rows, model.profile).to_dict(), rows


def _facts(path: pathlib.Path) -> dict[str, Any]:
    """The held-out facts, of which there are few: how often right, and how sure."""
    with LocalModel(path) as model:
        rows = list(evaluate.ask(model, [_labelled(item) for item in draw_facts(0, 3)]))
    sure = [row for row in rows if row.reading.confidence >= 0.75]
    return {
        "questions": len(rows),
        "right": sum(row.right for row in rows) / len(rows),
        "sure": len(sure) / len(rows),
        "right_of_sure": sum(row.right for row in sure) / len(sure) if sure else None,
    }


def _against(measured: dict[str, tuple[dict[str, Any], list[evaluate.Row]]]) -> dict[str, dict[str, float]]:
    """Each quantization compared with F16, question by question."""
    reference = measured["F16"][1]
    out: dict[str, dict[str, float]] = {}
    for name, (found, rows) in measured.items():
        pairs = list(zip(reference, rows, strict=True))
        tau = found["tau"]
        same = {
            "same_letter": [a.reading.letter == b.reading.letter for a, b in pairs],
            "same_level": [a.reading.level == b.reading.level for a, b in pairs],
            "same_route": [(a.reading.confidence >= tau) == (b.reading.confidence >= tau) for a, b in pairs],
            "same_route_expected": [(a.reading.expected_confidence >= tau) == (b.reading.expected_confidence >= tau) for a, b in pairs],
        }
        readouts = found["readouts"]
        out[name] = {key: sum(values) / len(values) for key, values in same.items()} | {
            "right": found["right"]["share"],
            "auroc": readouts["confidence"]["auroc"],
            "auroc_expected": readouts["expected_confidence"]["auroc"],
            "routed": readouts["confidence"]["mean"]["routed"],
            "routed_expected": readouts["expected_confidence"]["mean"]["routed"],
            "mean_ms": found["speed"]["mean_ms"],
        }
    return out
