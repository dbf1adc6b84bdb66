"""The figures of an evaluation: their shapes, and their JSON.

Owns names and meaning. Computes nothing. Invariants: all shares are fractions 0 to 1; an undefined figure is nan, and null in JSON.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from edge_agent.core import readouts
from edge_agent.measure.results import CloudSource

REFERENCE = {readouts.CONFIDENCE: "printed", readouts.ANSWER_PROB: readouts.ANSWER_PROB}
"""How `Compared.better` names the readout that the others are compared with."""


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `questions` as a fraction with its 95 % Wilson interval; nan without questions.

    `count` is a fraction only where answers are graded with fractions.
    """

    questions: int
    count: float
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Routing:
    """A line of FogGen's table. `edge_low` and `edge_high` are the edge model's 95 % interval.

    In the `mean` line, every figure is the mean over the domains, as published, and the interval is nan. Without a cloud, only
    `edge` and `routed` are known.
    """

    domain: str
    questions: int
    cloud: float
    edge: float
    edge_low: float
    edge_high: float
    random: float
    system: float
    routed: float
    lift: float


@dataclass(frozen=True, slots=True)
class Bin:
    """The questions whose score is nearest to `level`: how many, their mean score, and the share that is right."""

    level: float
    questions: int
    mean_score: float
    right: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Target:
    """A deferral rate that was wanted, and what came of it.

    `tau` and `tie_share` were chosen on one half of the questions; `achieved` with its 95 % interval, `system` and `lift` were
    measured on the other half.
    """

    target: float
    tau: float
    tie_share: float
    questions: int
    achieved: float
    low: float
    high: float
    system: float
    lift: float


@dataclass(frozen=True, slots=True)
class Compared:
    """How much more a readout has than the printed level, with its 95 % interval (bootstrap, paired by question).

    A plain model prints no level; there the other is its `answer_prob`. `better` is "this", "printed" or "answer_prob", or "" where
    the interval holds 0 or is not known.
    """

    figure: str
    difference: float
    low: float
    high: float
    better: str


@dataclass(frozen=True, slots=True)
class Readout:
    """How well one readout separates right from wrong answers, and what routing by it gains.

    `passes` and `ms` are its price for a question. `aurc`, `accuracy_at` (by coverage), `auroc`, `ece` and `brier` need no cloud and
    rate the score as it is. `auroc_of_benefit`, `apgr`, `cpt` (by recovered share) and `same_rate` rate the routed score: questions
    without a confidence count as 0, so they are the first to be deferred. `compared` uses the same definitions. `domains`, `mean`,
    `pgr`, `oracle` (the best accuracy at the same rate), `ibc` and `delta_ibc` are at tau, and defer these questions, too. `same_rate`
    is the accuracy if the readout defers as many questions as the printed level does at tau. `intervals` are 95 % bootstrap intervals
    of `auroc`, `brier`, `apgr` and of the lift over all questions.
    """

    questions: int
    passes: float
    ms: float
    auroc: float
    auroc_of_benefit: float
    ece: float
    brier: float
    aurc: float
    accuracy_at: dict[str, float]
    apgr: float
    cpt_20: float
    cpt_50: float
    cpt_80: float
    routed: float
    pgr: float
    oracle: float
    ibc: float
    delta_ibc: float
    same_rate: float
    domains: tuple[Routing, ...]
    mean: Routing
    reliability: tuple[Bin, ...]
    targets: tuple[Target, ...]
    intervals: dict[str, tuple[float, float]]
    compared: tuple[Compared, ...]


@dataclass(frozen=True, slots=True)
class ByCalibration:
    """Routing as the device does it by the calibration in force, on all questions.

    `sha256` names the calibration; `readout`, `tau` and `tie_share` are its own. `routed` is over all questions, `domains` and `mean`
    are FogGen's table.
    """

    sha256: str
    readout: str
    tau: float
    tie_share: float
    routed: Share
    domains: tuple[Routing, ...]
    mean: Routing


@dataclass(frozen=True, slots=True)
class Orders:
    """What the order of the options changes.

    `flipped` is the share of questions whose answer is another option when the options are reversed; `moved` the share whose answer
    is not the same option in all cyclic shifts. Either has 0 questions if it was not asked.
    """

    flipped: Share
    moved: Share


@dataclass(frozen=True, slots=True)
class Greedy:
    """What the model prints without any constraint.

    `keeps_format` is the share of all questions; `same` is the share of these with the level and letter of the reading.
    """

    keeps_format: Share
    same: Share


@dataclass(frozen=True, slots=True)
class Speed:
    """How long the readings took, without the unconstrained printing."""

    questions_per_s: float
    mean_ms: float
    median_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All results, in fractions 0 to 1; undefined figures are nan.

    `f1` is SQuAD's mean F1, beside its EM in `right`; nan for other sets.
    `levels` and `difficulties` hold the share of right answers for each printed level and each difficulty. `no_confidence` is the
    share of questions with a format mass below the limit of the profile. `costs` says in which unit IBC counts. `weights` are those
    of the readout `combined`, which is measured on the other half of the questions. `calibration` is what the calibration in force
    does, None where a plain tau counts; the figures of the readouts are at `tau` all the same. `notes` say what was left out and why.
    """

    tau: float
    cloud: CloudSource
    right: Share
    f1: float
    no_confidence: Share
    readouts: dict[str, Readout]
    levels: dict[str, Share]
    difficulties: dict[int, Share]
    orders: Orders | None
    weights: tuple[float, ...]
    costs: str
    greedy: Greedy | None
    speed: Speed
    notes: tuple[str, ...]
    calibration: ByCalibration | None = None

    @property
    def reference(self) -> str:
        """The readout that the others are compared with: the printed level, or of a plain model the probability of its answer."""
        return readouts.CONFIDENCE if readouts.CONFIDENCE in self.readouts or not self.readouts else readouts.ANSWER_PROB

    @property
    def simulated_cloud_accuracy(self) -> float | None:
        """How often the simulated cloud is right; None if the cloud is not simulated."""
        return self.cloud.accuracy

    def to_dict(self) -> dict[str, Any]:
        """The part of it that `edge-agent eval --json` prints: the same names, with null for nan."""
        data: dict[str, Any] = _without_nan(asdict(self))
        data["cloud"]["words"] = self.cloud.words
        return data | {"simulated_cloud_accuracy": self.simulated_cloud_accuracy}


def _without_nan(value: Any) -> Any:
    """The same data with None for nan, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
