"""One measured model as a report sees it: its results, the threshold in force, and what follows from both.

Owns which questions the rule in force defers, and the columns that the charts draw. The formulas are in `metrics`, and all figures
that do not hang on the rule are in `evaluation`. Invariants: a question is deferred by the same rule as in `core.routing`; only
questions with a gold answer, and with a cloud only those that it answered, count for a figure, as in `evaluation`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from edge_agent.core import readouts, routing
from edge_agent.measure import metrics
from edge_agent.measure.evaluation import routed
from edge_agent.measure.evaluation.evaluate import Beside, evaluate
from edge_agent.measure.evaluation.figures import Evaluation, Routing
from edge_agent.measure.metrics import Threshold
from edge_agent.measure.results import SIMULATED, Bools, Floats, Results
from edge_agent.model.calibration import Calibration
from edge_agent.model.profile import Profile


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """What decides whether an answer stays: a `readout`, its `tau`, and the share of ties at tau that is deferred."""

    readout: str = readouts.CONFIDENCE
    tau: float = 0.5
    tie_share: float = 0.0
    salt: str = ""


@dataclass(frozen=True, eq=False)
class Measured:
    """Results, what the run knows beside them, and what a person may add: the file's size, the time and the price of a call to the cloud.

    `cloud_ms` is the mean time of a call, `price` what a call costs where the results have no tokens; None where it is not known.
    `calibration` is the one in force, if there is one.
    """

    results: Results
    rule: RoutingRule
    beside: Beside = field(default_factory=Beside)
    data: str = ""
    data_sha256: str = ""
    size_bytes: int | None = None
    cloud_ms: float | None = None
    price: float | None = None
    calibration: Calibration | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.results.model.name

    @cached_property
    def profile(self) -> Profile:
        """How the model was asked."""
        return Profile.from_json(self.results.model.profile)

    @cached_property
    def evaluation(self) -> Evaluation:
        """All figures of every readout. Takes seconds with many questions, because of the intervals."""
        return evaluate(self.results, self.profile.levels, self.rule.tau, self.beside)

    @property
    def heading(self) -> str:
        """What to add to each heading over figures with a cloud, so that nobody takes a simulation for a measurement."""
        return " (simulated cloud)" if self.results.cloud.kind == SIMULATED else ""

    @cached_property
    def score(self) -> Floats:
        """The scores that tau is compared with; 0 where the model gave no confidence (n,)."""
        column = self.results.scores[self.rule.readout]
        return np.where(self.results.no_confidence | np.isnan(column), 0.0, column)

    @cached_property
    def draws(self) -> Floats:
        """The questions' own numbers, which decide ties (n,)."""
        return np.array([routing.draw(fingerprint, self.rule.salt) for fingerprint in self.results.fingerprints], np.float64)

    @cached_property
    def deferred(self) -> Bools:
        """Which questions the rule sends to the cloud (n,)."""
        return self.deferred_at(Threshold(self.rule.tau, self.rule.tie_share))

    def deferred_at(self, threshold: Threshold) -> Bools:
        """Which questions another threshold would send (n,)."""
        below: Bools = metrics.deferred_by(self.score, threshold, self.draws) | self.results.no_confidence
        return below

    @cached_property
    def graded(self) -> Bools:
        """Which questions have a score and a gold answer (n,)."""
        known: Bools = ~np.isnan(self.results.edge_correct) & ~np.isnan(self.results.scores[self.rule.readout])
        return known

    @cached_property
    def counted(self) -> Bools:
        """Which questions count: the graded ones, and with a cloud only those that it answered (n,)."""
        answered = self.graded & ~np.isnan(self.results.cloud_correct)
        return answered if answered.any() else self.graded

    @cached_property
    def has_cloud(self) -> bool:
        """Whether anything can be said about a cloud."""
        return bool((self.graded & ~np.isnan(self.results.cloud_correct)).any())

    @property
    def routed(self) -> float:
        """The share of the questions that the rule defers; of all of them where none has a gold answer."""
        deferred = self.deferred[self.counted] if self.counted.any() else self.deferred
        return float(deferred.mean())

    @cached_property
    def all(self) -> Routing:
        """All questions as one domain."""
        return self._line("all questions", self.counted)

    @cached_property
    def domains(self) -> tuple[Routing, ...]:
        """One line for each domain, by name."""
        names = np.array(self.results.domains, dtype=object)
        return tuple(self._line(name, self.counted & (names == name)) for name in sorted(set(names[self.counted])))

    @cached_property
    def mean(self) -> Routing:
        """The mean over the domains, as FogGen publishes it."""
        names = ("cloud", "edge", "random", "system", "routed", "lift")
        means = {name: float(np.mean([getattr(line, name) for line in self.domains])) if self.domains else math.nan for name in names}
        return Routing("mean of the domains", int(self.counted.sum()), edge_low=math.nan, edge_high=math.nan, **means)

    @cached_property
    def lift(self) -> tuple[float, float, float]:
        """The gain over random routing on all questions, with its 95 % bootstrap interval; nan without a cloud."""
        if not self.has_cloud:
            return math.nan, math.nan, math.nan
        at = self.counted
        interval = metrics.bootstrap(
            metrics.system_lift, self.results.edge_correct[at], self.results.cloud_correct[at], self.deferred[at], n_draws=self._n_draws
        )
        return self.all.lift, interval.low, interval.high

    @cached_property
    def curve(self) -> metrics.DeferralCurve:
        """The effect of every tau."""
        return metrics.deferral_curve(*self.answers)

    @property
    def answers(self) -> tuple[Floats, Floats, Floats]:
        """The columns that curves are made of: score, device right, cloud right, of the questions that count (m,)."""
        at = self.counted
        return self.score[at], self.results.edge_correct[at], self.results.cloud_correct[at]

    @cached_property
    def call_prices(self) -> Floats | None:
        """What a call to the cloud costs for each question (n,), None if that is not known."""
        cloud, tokens = self.results.cloud, self.results.cloud_tokens
        if tokens is not None and (cloud.prompt_price or cloud.completion_price):
            prices = metrics.call_costs(*tokens, cloud.prompt_price, cloud.completion_price)
            if not np.isnan(prices).all():
                return np.where(np.isnan(prices), np.nanmean(prices), prices)
        return None if self.price is None else np.full(len(self.results), self.price)

    @property
    def has_prices(self) -> bool:
        """Whether calls to the cloud cost something that is known."""
        return self.call_prices is not None and bool(self.call_prices.any())

    @cached_property
    def costs(self) -> metrics.CostCurve:
        """The cost of a question and the accuracy at every tau."""
        assert self.call_prices is not None
        return metrics.cost_accuracy_curve(*self.answers, 0.0, self.call_prices[self.counted])

    @property
    def _n_draws(self) -> int:
        return max(100, min(1000, 20_000_000 // max(1, len(self.results))))

    def _line(self, domain: str, at: Bools) -> Routing:
        return routed.line(domain, self.results.edge_correct[at], self.results.cloud_correct[at], self.deferred[at])


def mean_known(values: Floats) -> float:
    """The mean of what is known; nan if nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
