"""Answered questions as columns: what all metrics, calibrations and reports are computed from.

Owns the shape and its checks. Asks nothing and computes no metric. Invariant: all columns have one entry for each question, in one
order, and an entry that is not known is nan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edge_agent.core import readouts
from edge_agent.core.errors import BadData
from edge_agent.core.records import ModelFacts

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
LIVE, RECORDED, SIMULATED, NO_CLOUD = "live", "recorded", "simulated", "none"


@dataclass(frozen=True, slots=True)
class CloudSource:
    """Where the cloud's answers come from: `kind` is live, recorded, simulated or none; `name` is a model, a file, or "".

    A simulated cloud is right with probability `accuracy`; every table, picture and JSON that uses one says so (`words`).
    Prices are per million tokens. With `estimated_tokens` nobody counted the tokens: a question's are its characters / 4.
    """

    kind: str = NO_CLOUD
    name: str = ""
    accuracy: float | None = None
    prompt_price: float = 0.0
    completion_price: float = 0.0
    estimated_tokens: bool = False

    @property
    def words(self) -> str:
        """What to call it in a heading."""
        if self.kind == SIMULATED:
            return f"a simulated cloud, right with probability {self.accuracy:g}"
        return {LIVE: f"the cloud {self.name}", RECORDED: f"recorded answers ({self.name})"}.get(self.kind, "no cloud")


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """Answered questions, n of them.

    `edge_correct` (n,) float64 is 1 where the device's answer is right, 0 where it is wrong (nan without a gold answer);
    `cloud_correct` likewise, or the probability of a simulated cloud (nan where the cloud has no answer). `agrees` is 1 where the
    cloud gave the device's answer. `scores` has one column (n,) for each readout, 0 to 1. `no_confidence` is true where the format
    mass is below the profile's limit. `cloud_tokens` are the (prompt, completion) tokens of the cloud's answer, nan if unknown.
    `families` tell which questions are the same but for their spelling and the order of their options; without them, each fingerprint is
    its own. `passes` is the number of readings that each readout takes for a question (1 unless it asks the model again).
    """

    model: ModelFacts
    profile_sha256: str
    cloud: CloudSource
    ids: tuple[str, ...]
    fingerprints: tuple[str, ...]
    domains: tuple[str, ...]
    edge_correct: Floats
    cloud_correct: Floats
    agrees: Floats
    no_confidence: Bools
    read_ms: Floats
    scores: Mapping[str, Floats]
    passes: Mapping[str, float] = field(default_factory=dict)
    cloud_tokens: tuple[Floats, Floats] | None = None
    families: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.ids)
        if not self.families:
            object.__setattr__(self, "families", self.fingerprints)
        columns = [
            self.fingerprints,
            self.families,
            self.domains,
            self.edge_correct,
            self.cloud_correct,
            self.agrees,
            self.no_confidence,
            self.read_ms,
        ]
        if any(len(column) != n for column in (*columns, *self.scores.values(), *(self.cloud_tokens or ()))):
            raise BadData("The columns of these results have different lengths; make them again.")

    @property
    def reference(self) -> str:
        """The readout that others are compared with: the printed level, or of a model without one the probability of its answer."""
        return readouts.CONFIDENCE if readouts.CONFIDENCE in self.scores else readouts.ANSWER_PROB

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, at: npt.ArrayLike) -> Results:
        """The results of some questions, by their places or by a mask (n,)."""
        places = np.arange(len(self))[np.asarray(at)]

        def some(values: Sequence[str]) -> tuple[str, ...]:
            return tuple(values[place] for place in places)

        return Results(
            model=self.model,
            profile_sha256=self.profile_sha256,
            cloud=self.cloud,
            ids=some(self.ids),
            fingerprints=some(self.fingerprints),
            domains=some(self.domains),
            edge_correct=self.edge_correct[places],
            cloud_correct=self.cloud_correct[places],
            agrees=self.agrees[places],
            no_confidence=self.no_confidence[places],
            read_ms=self.read_ms[places],
            scores={name: column[places] for name, column in self.scores.items()},
            passes=self.passes,
            families=some(self.families),
            cloud_tokens=(self.cloud_tokens[0][places], self.cloud_tokens[1][places]) if self.cloud_tokens else None,
        )
