"""Columns of answered questions, made by hand or read by a model."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edge_agent.core import readouts
from edge_agent.core.question import Question
from edge_agent.core.records import ModelFacts, Reading
from edge_agent.engine.local_model import LocalModel
from edge_agent.measure.results import CloudSource as Cloud
from edge_agent.measure.results import Results
from edge_agent.model.profile import default_profile

PROFILE = default_profile("qwen3")
SIMULATED = Cloud("simulated", "", 0.95)


def results(
    confidence: npt.ArrayLike,
    edge: npt.ArrayLike,
    cloud_correct: npt.ArrayLike = 0.95,
    *,
    cloud: Cloud = SIMULATED,
    domains: Sequence[str] = (),
    no_confidence: npt.ArrayLike = False,
    more: Mapping[str, npt.ArrayLike] | None = None,
    passes: Mapping[str, float] | None = None,
    tokens: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    name: str = "q",
) -> Results:
    """Results with these columns; single values are repeated. `more` are further readouts."""
    level = np.asarray(confidence, float)
    n = len(level)

    def column(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return np.broadcast_to(np.asarray(values, float), (n,)).copy()

    return Results(
        model=ModelFacts("demo", "0" * 64, "Q8_0", "qwen3", PROFILE.to_json()),
        profile_sha256=PROFILE.sha256,
        cloud=cloud,
        ids=tuple(str(i) for i in range(n)),
        fingerprints=tuple(Question(f"{name} {i}", ("a", "b")).fingerprint for i in range(n)),
        domains=tuple(domains) or ("-",) * n,
        edge_correct=column(edge),
        cloud_correct=column(cloud_correct),
        agrees=column(np.nan),
        no_confidence=column(no_confidence).astype(bool),
        read_ms=column(10.0),
        scores={readouts.CONFIDENCE: level, **{each: column(values) for each, values in (more or {}).items()}},
        passes=dict(passes or {}),
        cloud_tokens=(column(tokens[0]), column(tokens[1])) if tokens else None,
    )


def read(model: LocalModel, asked: Sequence[tuple[Question, str, str]], cloud_accuracy: float = 0.95) -> tuple[Results, list[Reading]]:
    """What a model says to questions with (question, gold letter, domain), beside a simulated cloud, and its readings."""
    readings = [reading for reading in model.read_all([question for question, _, _ in asked]) if isinstance(reading, Reading)]
    own = results(
        [reading.confidence for reading in readings],
        [float(reading.letter in question.same_as(gold)) for reading, (question, gold, _) in zip(readings, asked, strict=True)],
        cloud_accuracy,
        cloud=Cloud("simulated", "", cloud_accuracy),
        domains=[domain for _, _, domain in asked],
        no_confidence=[reading.format_mass < model.profile.format_mass_min for reading in readings],
        more={name: [readouts.score(reading, name) or 0.0 for reading in readings] for name in readouts.READOUTS[1:-1]},
    )
    return own, readings
