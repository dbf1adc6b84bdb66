"""Measures a GGUF on held-out questions of the bank, through the runtime's own engine.

Owns the figures of the demo model's card. Invariant: every question is of the `test` split, whose contents no
training ever saw.
"""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
from dataclasses import asdict, dataclass

import numpy as np

from edge_agent.engine import LocalModel
from edge_agent.profile import LEVELS
from edge_agent.question import Question
from models.recipe.bank import DOMAINS, Item, draw_many

TAU, CLOUD_ACCURACY = 0.5, 0.95


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured; fractions 0 to 1, lift in the same unit. The cloud is simulated at `CLOUD_ACCURACY`."""

    questions: int
    right: float
    right_by_domain: dict[str, float]
    right_by_difficulty: dict[int, float]
    levels: dict[str, int]
    right_by_level: dict[str, float]
    auroc: float
    auroc_expected: float
    no_confidence: float
    routed: float
    lift: float


def measure(model: LocalModel, n_per_domain: int) -> Figures:
    """Ask `n_per_domain` held-out questions of each domain."""
    items = [item for domain in DOMAINS for item in draw_many(1, n_per_domain, "test", domain)]
    readings = [model.read(Question(item.stem, item.options)) for item in items]
    right = np.array([reading.letter == item.letter for item, reading in zip(items, readings, strict=True)])
    confidence = np.array([reading.confidence for reading in readings])
    expected = np.array([reading.expected_confidence for reading in readings])
    missing = np.array([reading.format_mass < model.profile.format_mass_min for reading in readings])
    routed = (confidence < TAU) | missing
    system = np.where(routed, CLOUD_ACCURACY, right).mean()
    random_routing = (1 - routed.mean()) * right.mean() + routed.mean() * CLOUD_ACCURACY
    return Figures(
        questions=len(items),
        right=float(right.mean()),
        right_by_domain=_shares(items, right, lambda item: item.domain),
        right_by_difficulty=_shares(items, right, lambda item: item.difficulty),
        levels={level: int((confidence == float(level)).sum()) for level in LEVELS},
        right_by_level={level: _mean(right[confidence == float(level)]) for level in LEVELS},
        auroc=_auroc(confidence, right),
        auroc_expected=_auroc(expected, right),
        no_confidence=float(missing.mean()),
        routed=float(routed.mean()),
        lift=float(system - random_routing),
    )


def _shares(items: list[Item], right: np.ndarray, key: object) -> dict:
    groups = collections.defaultdict(list)
    for item, value in zip(items, right, strict=True):
        groups[key(item)].append(value)
    return {name: float(np.mean(values)) for name, values in sorted(groups.items())}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _auroc(score: np.ndarray, right: np.ndarray) -> float:
    """Probability that a right answer scores above a wrong one; ties count half."""
    positive, negative = score[right], score[~right]
    if not len(positive) or not len(negative):
        return float("nan")
    above = (positive[:, None] > negative[None, :]).mean() + 0.5 * (positive[:, None] == negative[None, :]).mean()
    return float(above)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--n", type=int, default=200, help="questions a domain (default 200)")
    arguments = parser.parse_args()
    with LocalModel(arguments.model) as opened:
        print(json.dumps(asdict(measure(opened, arguments.n)), indent=2))
