"""R15: one more round, on questions without options that are answered in a few words.

Owns the check of a short answer: equal in lower case, without extra spaces and a final full stop. Invariant: the chain of
letter rounds does not change; the adapter of this round continues from its last one and is stored next to it.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from edge_agent.model.answers import parse
from edge_agent.model.profile import LEVELS
from models.recipe import generate, label, measured, rows
from models.recipe.bank import Item
from models.recipe.chain import Chain, Labelled, write
from models.recipe.progress import say

_ANSWER = re.compile(r"Final\s+answer\s*:\s*(.+)")
_MEASURED_SHARE = 4  # measure one in this many of the chain's questions, because each answer is generated


def text_of(printed: str) -> str | None:
    """The short answer in a printed text."""
    found = _ANSWER.search(printed)
    return found[1].strip() if found else None


def same(answer: str | None, gold: str) -> bool:
    """Whether a short answer equals the gold answer."""
    return answer is not None and _plain(answer) == _plain(gold)


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).removesuffix(".")


def run(chain: Chain) -> dict[str, Any]:
    """Make the round unless it exists. Returns its measurements."""
    number, settings = chain.recipe.chain.rounds + 1, chain.recipe.open_ended
    assert settings
    done = chain.folder(number) / "measured.json"
    if not done.exists():
        chain.folder(number).mkdir(parents=True, exist_ok=True)
        chain.load(number - 1)
        domains, seed = chain.recipe.chain.domains, chain.recipe.seed
        before = _figures(chain)
        items = [i for d in domains for i in chain.source.draw(f"open/{seed}", -(-settings.questions // len(domains)), "train", d)]
        if settings.first_pass:
            _teach(chain, number, chain.labelled(items, number))
        say(f"R{number}: {len(items)} questions without options, {chain.recipe.labels.samples} answers each")
        levels = _levels(chain, items)
        _teach(chain, number, list(zip(items, levels, strict=True)))
        found = {"round": number, "labels": {level: levels.count(level) for level in LEVELS}, "before": before, "after": _figures(chain)}
        write(done, json.dumps(found, indent=1))
        say(f"R{number}: short answers right {before['right']:.3f} before, {found['after']['right']:.3f} after")
    return dict(json.loads(done.read_text(encoding="utf-8")))


def _teach(chain: Chain, number: int, with_levels: Labelled) -> None:
    weights = chain.recipe.lora.weights
    chain.fine_tune(number, [rows.short_answer(chain.prompts, item, level, weights) for item, level in with_levels])


def _levels(chain: Chain, items: list[Item]) -> list[str]:
    """The share of sampled short answers that are right, as levels."""
    settings = chain.recipe.labels
    prompts = [chain.prompts.open(item) for item in items]
    texts = generate.by_transformers(chain.model, chain.tok, prompts, settings.samples, settings.temperature, chain.recipe.seed)
    shares = [sum(same(text_of(text), item.answer) for text in row) / len(row) for row, item in zip(texts, items, strict=True)]
    return [label.level(share, settings.rounding) for share in shares]


def _figures(chain: Chain) -> dict[str, Any]:
    """Accuracy, calibration and routing gain, from greedy answers to questions of the test split."""
    n = max(1, chain.recipe.chain.measured_questions // _MEASURED_SHARE // len(chain.recipe.chain.domains))
    items = [i for domain in chain.recipe.chain.domains for i in chain.source.draw("measure open", n, "test", domain)]
    texts = [row[0] for row in generate.by_transformers(chain.model, chain.tok, [chain.prompts.open(i) for i in items], 1, 0.0, 0)]
    right = np.array([float(same(text_of(text), item.answer)) for text, item in zip(texts, items, strict=True)])
    confidence = np.array([min(parse(text)[0] or 0.0, 1.0) for text in texts])
    return {"questions": len(items), "right": float(right.mean()), "confidence": measured.routing(confidence, right)}
