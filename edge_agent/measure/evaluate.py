"""Asks a model questions with gold answers, and computes FogGen's table and the calibration figures from its answers.

Owns the steps from answered rows to an `Evaluation`. The formulas are in `metrics.py`, the layout is in `tables.py`, and
`routing.plan` decides which questions are deferred, as everywhere else. Invariant: no decision is stored and no cloud is
asked. The cloud is simulated: it is right with a given probability on every question, and its expected value is counted,
so its column has no random noise.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edge_agent.core import readouts, routing
from edge_agent.core.errors import BadData, BadQuestion
from edge_agent.core.records import Reading
from edge_agent.engine.local_model import LocalModel
from edge_agent.measure import metrics
from edge_agent.measure.sets.labelled import Labelled
from edge_agent.model.answers import parse
from edge_agent.model.profile import Profile

DEFAULT_CLOUD_ACCURACY = 0.95
READOUTS = ("confidence", "expected_confidence")


@dataclass(frozen=True, slots=True)
class Row:
    """One question and the model's answer. `read_ms` is the time from question to reading, with tokenizing.

    `printed` is what the model prints without any constraint, or None if that was not tried.
    """

    labelled: Labelled
    reading: Reading
    read_ms: float
    printed: str | None = None

    @property
    def right(self) -> bool:
        """Whether the model chose the gold answer or an option with the same text."""
        return self.reading.letter in self.labelled.question.same_as(self.labelled.answer)

    @property
    def keeps_format(self) -> bool:
        """Whether the published parser finds a valid level and a valid letter in the printed text."""
        level, letter = parse(self.printed or "")
        return level in {float(text) for text in self.reading.levels} and letter is not None and letter in self.reading.letters

    def to_dict(self) -> dict[str, Any]:
        """The object that `edge-agent eval --rows` writes on each line."""
        row: dict[str, Any] = {"id": self.labelled.id, "domain": self.labelled.domain, "difficulty": self.labelled.difficulty}
        row |= {"answer": self.labelled.answer, "letter": self.reading.letter, "right": self.right}
        row |= {name: getattr(self.reading, name) for name in (*READOUTS, "format_mass")}
        row |= {"level_probs": self.reading.level_probs, "answer_probs": self.reading.answer_probs, "read_ms": self.read_ms}
        return row | ({} if self.printed is None else {"printed": self.printed, "keeps_format": self.keeps_format})


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `questions` as a fraction with its 95 % Wilson interval; nan without questions."""

    questions: int
    count: int
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Routing:
    """A line of FogGen's table, in fractions 0 to 1. `edge_low` and `edge_high` are the edge model's 95 % interval.

    In the `mean` line, every figure is the mean over the domains, as published, and the interval is nan.
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
class Readout:
    """How well one readout separates right from wrong answers, over all questions, and what routing by it gains.

    The single figures use the readout alone; `domains` and `mean` also defer questions without a confidence. `cpt_50` and
    `cpt_80` are the deferral rates that recover 50 % and 80 % of the gap to the simulated cloud.
    """

    auroc: float
    ece: float
    brier: float
    apgr: float
    cpt_50: float
    cpt_80: float
    domains: tuple[Routing, ...]
    mean: Routing


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

    `levels` and `difficulties` hold the share of right answers for each printed level and each difficulty. `no_confidence`
    is the share of questions with a format mass below the limit of the profile.
    """

    tau: float
    simulated_cloud_accuracy: float
    right: Share
    no_confidence: Share
    readouts: dict[str, Readout]
    levels: dict[str, Share]
    difficulties: dict[int, Share]
    greedy: Greedy | None
    speed: Speed

    def to_dict(self) -> dict[str, Any]:
        """The part of it that `edge-agent eval --json` prints: the same names, with null for nan."""
        data: dict[str, Any] = _without_nan(asdict(self))
        return data


def ask(model: LocalModel, questions: Sequence[Labelled], greedy: bool = False) -> Iterator[Row]:
    """Yield the rows as the questions are answered. With `greedy`, also record what the model prints unconstrained.

    Raises `BadData` before the first question is asked if any question does not fit the context.
    """
    for labelled in questions:
        try:
            model.prompt_tokens(labelled.question)
        except BadQuestion as error:
            raise BadData(f"Question {labelled.id}: {error}") from error
    for labelled in questions:
        started = time.perf_counter()
        reading = model.read(labelled.question)
        assert isinstance(reading, Reading)  # a labelled question has options
        read_ms = (time.perf_counter() - started) * 1000
        yield Row(labelled, reading, round(read_ms, 3), model.generate(labelled.question) if greedy else None)


def evaluate(rows: Sequence[Row], profile: Profile, tau: float | None = None, cloud_accuracy: float = DEFAULT_CLOUD_ACCURACY) -> Evaluation:
    """Everything that follows from the rows. `tau` is that of the profile by default. Raises `BadData` without rows.

    Runs no model, so the same rows can be evaluated at another `tau`.
    """
    if not rows:
        raise BadData("There are no answered questions; ask at least one.")
    tau = profile.tau if tau is None else tau
    difficulties = sorted({row.labelled.difficulty for row in rows if row.labelled.difficulty is not None})
    return Evaluation(
        tau=tau,
        simulated_cloud_accuracy=cloud_accuracy,
        right=_share(rows, _is_right),
        no_confidence=_share(rows, lambda row: row.reading.format_mass < profile.format_mass_min),
        readouts={name: _readout(rows, profile, name, tau, cloud_accuracy) for name in READOUTS},
        levels={level: _share([row for row in rows if row.reading.level == level], _is_right) for level in profile.levels},
        difficulties={number: _share([row for row in rows if row.labelled.difficulty == number], _is_right) for number in difficulties},
        greedy=_greedy(rows) if rows[0].printed is not None else None,
        speed=_speed(rows),
    )


def _readout(rows: Sequence[Row], profile: Profile, name: str, tau: float, cloud_accuracy: float) -> Readout:
    score = [readouts.score(row.reading, name) or 0.0 for row in rows]
    right, cloud = [row.right for row in rows], [cloud_accuracy] * len(rows)
    policy = routing.Policy(tau=tau, format_mass_min=profile.format_mass_min, readout=name)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.labelled.domain, []).append(row)
    domains = tuple(_routing(domain, groups[domain], policy, cloud_accuracy) for domain in sorted(groups))
    return Readout(
        auroc=metrics.auroc(score, right),
        ece=metrics.ece(score, right, [float(level) for level in profile.levels]),
        brier=metrics.brier(score, right),
        apgr=metrics.apgr(score, right, cloud),
        cpt_50=metrics.cpt(score, right, cloud, 0.5),
        cpt_80=metrics.cpt(score, right, cloud, 0.8),
        domains=domains,
        mean=_mean_of(domains),
    )


def _routing(domain: str, rows: Sequence[Row], policy: routing.Policy, cloud_accuracy: float) -> Routing:
    circumstances = routing.Circumstances(cloud_configured=True)
    deferred = [routing.plan(row.reading, policy, circumstances).step is routing.Step.ASK_CLOUD for row in rows]
    edge, rate = _share(rows, _is_right), sum(deferred) / len(rows)
    system = metrics.system_accuracy([row.right for row in rows], [cloud_accuracy] * len(rows), deferred)
    return Routing(
        domain=domain,
        questions=len(rows),
        cloud=cloud_accuracy,
        edge=edge.share,
        edge_low=edge.low,
        edge_high=edge.high,
        random=metrics.random_accuracy(edge.share, cloud_accuracy, rate),
        system=system,
        routed=rate,
        lift=metrics.lift(system, edge.share, cloud_accuracy, rate),
    )


def _mean_of(lines: Sequence[Routing]) -> Routing:
    means = {
        name: float(np.mean([getattr(line, name) for line in lines])) for name in ("cloud", "edge", "random", "system", "routed", "lift")
    }
    return Routing("mean", sum(line.questions for line in lines), edge_low=math.nan, edge_high=math.nan, **means)


def _greedy(rows: Sequence[Row]) -> Greedy:
    kept = [row for row in rows if row.keeps_format]
    return Greedy(
        keeps_format=_share(rows, lambda row: row.keeps_format),
        same=_share(kept, lambda row: parse(row.printed or "") == (row.reading.confidence, row.reading.letter)),
    )


def _speed(rows: Sequence[Row]) -> Speed:
    times_ms = np.array([row.read_ms for row in rows])
    median_ms, p95_ms = np.percentile(times_ms, [50, 95])
    return Speed(float(1000 / times_ms.mean()), float(times_ms.mean()), float(median_ms), float(p95_ms))


def _share(rows: Sequence[Row], counts: Callable[[Row], bool]) -> Share:
    count = sum(counts(row) for row in rows)
    low, high = metrics.wilson(count, len(rows))
    return Share(len(rows), count, count / len(rows) if rows else math.nan, low, high)


def _is_right(row: Row) -> bool:
    return row.right


def _without_nan(value: Any) -> Any:
    """The same data with None for nan, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
