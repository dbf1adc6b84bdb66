"""Answered questions for tests of reports: drawn with a seed, as columns, without any model."""

import numpy as np
from edge_agent.measure.evaluation.evaluate import Beside

from edge_agent.core.records import ModelFacts
from edge_agent.measure.report.measured import Measured, RoutingRule
from edge_agent.measure.results import SIMULATED, CloudSource, Results
from edge_agent.model.profile import default_profile

LEVELS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
PROFILE = default_profile("qwen3")


def results(
    n: int = 400,
    kind: str = SIMULATED,
    domains: tuple[str, ...] = ("law", "math", "coding"),
    name: str = "FogGen-test",
    quantization: str = "Q4_0",
    cloud_name: str = "gpt",
    seed: int = 0,
) -> Results:
    """Answers that are right as often as their confidence says; a file of another `seed` answers the same questions otherwise."""
    same, own = np.random.default_rng(7), np.random.default_rng(seed)
    confidence = LEVELS[same.integers(0, 5, n)]
    moved = np.clip(confidence + own.choice([-0.25, 0.0, 0.25], n, p=[0.05, 0.9, 0.05]), 0, 1)
    right = (same.random(n) < confidence).astype(float)
    cloud = {"simulated": np.full(n, 0.9), "recorded": (same.random(n) < 0.85).astype(float)}.get(kind, np.full(n, np.nan))
    expected = np.clip(moved + own.normal(0, 0.08, n), 0, 1)
    scores = {"confidence": moved, "expected_confidence": expected, "automix": own.integers(0, 9, n) / 8}
    return Results(
        model=ModelFacts(name, "ab" * 32, quantization, "qwen3", PROFILE.to_json()),
        profile_sha256=PROFILE.sha256,
        cloud=CloudSource(kind, cloud_name if kind == "recorded" else "", 0.9 if kind == SIMULATED else None, 0.6, 2.4),
        ids=tuple(map(str, range(n))),
        fingerprints=tuple(f"question {at}" for at in range(n)),
        domains=tuple(domains[at % len(domains)] for at in range(n)),
        edge_correct=right,
        cloud_correct=cloud,
        agrees=np.full(n, np.nan),
        no_confidence=same.random(n) < 0.02,
        read_ms=own.gamma(9, 2, n),
        scores=scores,
        passes={"automix": 9.0},
        cloud_tokens=(np.full(n, 90.0), np.full(n, 4.0)),
    )


def measured(found: Results, tau: float = 0.5, notes: tuple[str, ...] = (), **more: object) -> Measured:
    """The results by a tau."""
    return Measured(found, RoutingRule(tau=tau), Beside(notes=notes), **{"cloud_ms": 500.0, **more})
