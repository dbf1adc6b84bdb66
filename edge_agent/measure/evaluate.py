"""Asks a model questions with gold answers, and makes FogGen's table and the calibration figures of what it said.

Owns the way from answered rows to an `Evaluation`; the formulas are in `metrics.py`, the layout in `tables.py`, and
which question would be deferred is decided by `routing.plan`, as for everybody else. Invariant: no decision is stored
and no cloud is asked. The cloud is simulated: right with a given probability on every question, and counted in
expectation, so that its column has no noise of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edge_agent.core import routing
from edge_agent.core.errors import BadData, BadQuestion
from edge_agent.core.records import Reading
from edge_agent.engine.local_model import LocalModel
from edge_agent.measure import metrics
from edge_agent.measure.datasets import Labelled
from edge_agent.model.answers import parse
from edge_agent.model.profile import Profile

DEFAULT_CLOUD_ACCURACY = 0.95
READOUTS = ("confidence", "expected_confidence")


@dataclass(frozen=True, slots=True)
class Row:
    """One question and what the model said: `read_ms` is the time from question to reading, tokenizing included.

    `printed` is what the model prints without any constraint, None where that was not tried.
    """

    labelled: Labelled
    reading: Reading
    read_ms: float
    printed: str | None = None

    @property
    def right(self) -> bool:
        """Whether the model chose the gold answer, or an option of the same text."""
        return self.reading.letter in self.labelled.question.same_as(self.labelled.answer)

    @property
    def keeps_format(self) -> bool:
        """Whether the published parser finds one of the levels and one of the letters in what was printed."""
        level, letter = parse(self.printed or "")
        return level in {float(text) for text in self.reading.levels} and letter is not None and letter in self.reading.letters

    def to_dict(self) -> dict[str, Any]:
        """The object that `edge-agent eval --rows` writes, one a line."""
        row: dict[str, Any] = {"id": self.labelled.id, "domain": self.labelled.domain, "difficulty": self.labelled.difficulty}
        row |= {"answer": self.labelled.answer, "letter": self.reading.letter, "right": self.right}
        row |= {name: getattr(self.reading, name) for name in (*READOUTS, "format_mass")}
        row |= {"level_probs": self.reading.level_probs, "answer_probs": self.reading.answer_probs, "read_ms": self.read_ms}
        return row | ({} if self.printed is None else {"printed": self.printed, "keeps_format": self.keeps_format})


@dataclass(frozen=True, slots=True)
class Share:
    """How many of `questions` (`count`), as a fraction with its 95 % Wilson interval; nan without questions."""

    questions: int
    count: int
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Routing:
    """A line of FogGen's table, fractions 0 to 1; with `edge_low` and `edge_high`, the edge model's 95 % interval.

    Of the `mean` line every figure is the mean of the domains', as published, and the interval is nan.
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
    """How well one readout tells right from wrong, over all questions, and what routing by it is worth.

    The single figures look at the readout alone; `domains` and `mean` also defer where there is no confidence.
    `cpt_50` and `cpt_80` are the deferral rates that recover half and four fifths of the gap to the simulated cloud.
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

    `keeps_format` of all questions; `same` are those among them whose level and letter are also those of the reading.
    """

    keeps_format: Share
    same: Share


@dataclass(frozen=True, slots=True)
class Speed:
    """How long the readings took (unconstrained printing apart)."""

    questions_per_s: float
    mean_ms: float
    median_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that was measured; fractions 0 to 1, undefined figures nan.

    `levels` and `difficulties` hold the share right of the questions with that level printed, or of that difficulty;
    `no_confidence` the questions whose format mass is below the profile's least.
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
        """What `edge-agent eval --json` prints of it: the same names, null for nan."""
        data: dict[str, Any] = _without_nan(asdict(self))
        return data


def ask(model: LocalModel, questions: Sequence[Labelled], greedy: bool = False) -> Iterator[Row]:
    """The rows, one by one as they are answered; with `greedy`, also what the model prints unconstrained.

    Raises `BadData` before the first one is asked if any does not fit the context.
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
    """Everything that the rows say; `tau` None is the profile's own. Raises `BadData` without rows.

    Costs no model run: the same rows may be evaluated at another `tau`.
    """
    if not rows:
        raise BadData("There are no answered questions to evaluate; ask at least one.")
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
    score = [min(routing.score(row.reading, name), 1.0) for row in rows]  # a mean of levels may pass 1 by its last bit
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
    """JSON has no nan."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
