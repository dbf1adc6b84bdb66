"""One measured model as a report sees it: its results, the threshold in force, and what follows from both.

Owns the choice of readout and tau, which questions are deferred by it, and the columns that the charts draw. The formulas are in
`metrics`. Invariants: a question is deferred by the same rule as in `core.routing`; a question whose gold answer or cloud answer is
not known counts in no figure that needs it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from edge_agent.core import readouts, routing
from edge_agent.measure import metrics
from edge_agent.measure.results import SIMULATED, Bools, Floats, Results
from edge_agent.model.calibration import Calibration
from edge_agent.model.profile import Profile

PER_MILLION = 1e-6


@dataclass(frozen=True, slots=True)
class Rule:
    """What decides whether an answer stays: a `readout`, its `tau`, and the share of ties at tau that is deferred."""

    readout: str = readouts.CONFIDENCE
    tau: float = 0.5
    tie_share: float = 0.0
    salt: str = ""


class Line(NamedTuple):
    """A line of FogGen's table, in fractions."""

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


@dataclass(frozen=True, eq=False)
class Measured:
    """Results and what a person may add: the data's name, the file's size, the time and the price of a call to the cloud.

    `cloud_ms` is the mean time of a call, `price` what a call costs where the results have no tokens; None where it is not known.
    `calibration` is the one in force, if there is one.
    """

    results: Results
    rule: Rule
    data: str = ""
    data_sha256: str = ""
    notes: tuple[str, ...] = ()
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

    @property
    def levels(self) -> list[float]:
        """The confidences that the model can print."""
        return [float(level) for level in self.profile.levels]

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
        return self.deferred_at(self.rule.tau, self.rule.tie_share)

    def deferred_at(self, tau: float, tie_share: float) -> Bools:
        """Which questions another tau would send (n,)."""
        ties = (self.score == tau) & (self.draws < tie_share) if tie_share else np.zeros(len(self.score), np.bool_)
        below: Bools = (self.score < tau) | ties | self.results.no_confidence
        return below

    @cached_property
    def graded(self) -> Bools:
        """Which questions have a gold answer (n,)."""
        return ~np.isnan(self.results.edge_correct)

    @cached_property
    def paired(self) -> Bools:
        """Which questions have a gold answer and a cloud that answered (n,)."""
        return self.graded & ~np.isnan(self.results.cloud_correct)

    @property
    def has_cloud(self) -> bool:
        """Whether anything can be said about a cloud."""
        return bool(self.paired.any())

    @property
    def routed(self) -> float:
        """The share of all questions that the rule defers; nan without questions."""
        return float(self.deferred.mean()) if len(self.deferred) else math.nan

    @cached_property
    def all(self) -> Line:
        """All questions as one domain."""
        return self._line("all questions", np.ones(len(self.results), np.bool_))

    @cached_property
    def domains(self) -> tuple[Line, ...]:
        """One line for each domain, by name."""
        names, places = np.unique(np.array(self.results.domains, dtype=np.str_), return_inverse=True)
        return tuple(self._line(str(name), places == n) for n, name in enumerate(names))

    @cached_property
    def mean(self) -> Line:
        """The mean over the domains, as FogGen publishes it."""
        columns = {
            name: mean_known([getattr(line, name) for line in self.domains])
            for name in ("cloud", "edge", "random", "system", "routed", "lift")
        }
        return Line("mean of the domains", len(self.results), edge_low=math.nan, edge_high=math.nan, **columns)

    @cached_property
    def curve(self) -> metrics.DeferralCurve:
        """The effect of every tau on the paired questions."""
        at = self.paired
        return metrics.deferral_curve(self.score[at], self.results.edge_correct[at], self.results.cloud_correct[at])

    @cached_property
    def oracle(self) -> tuple[Floats, Floats]:
        """The best that any router could do: rates and accuracies, both (k,)."""
        edge, cloud = self.results.edge_correct[self.paired], self.results.cloud_correct[self.paired]
        rate = np.linspace(0, 1, min(len(edge), 200) + 1)
        best = np.concatenate([[0.0], np.cumsum(np.sort(np.maximum(cloud - edge, 0))[::-1])]) + edge.sum()
        places = np.floor(rate * len(edge) + 1e-9).astype(int)
        return rate, best[places] / max(len(edge), 1)

    @cached_property
    def call_prices(self) -> Floats | None:
        """What a call to the cloud costs for each question (n,), None if that is not known."""
        cloud, tokens = self.results.cloud, self.results.cloud_tokens
        if tokens is not None and (cloud.prompt_price or cloud.completion_price) and np.isfinite(tokens[0] + tokens[1]).any():
            prices = PER_MILLION * (tokens[0] * cloud.prompt_price + tokens[1] * cloud.completion_price)
            return np.where(np.isnan(prices), np.nanmean(prices), prices)
        return None if self.price is None else np.full(len(self.results), self.price)

    def costs(self) -> tuple[Floats, Floats]:
        """The cost-accuracy curve: cost of a question and accuracy, both (k + 1,), from nothing deferred to everything."""
        assert self.call_prices is not None
        at = self.paired
        edge, cloud, prices = self.results.edge_correct[at], self.results.cloud_correct[at], self.call_prices[at]
        _, group = np.unique(self.score[at], return_inverse=True)
        gained, paid = np.bincount(group, weights=cloud - edge), np.bincount(group, weights=prices)
        accuracy = (edge.sum() + np.concatenate([[0.0], np.cumsum(gained)])) / len(edge)
        return np.concatenate([[0.0], np.cumsum(paid)]) / len(edge), accuracy

    def with_readout(self, readout: str) -> Measured:
        """The same results by another readout, with nothing in force."""
        return replace(self, rule=Rule(readout, self.rule.tau), calibration=None)

    def _line(self, domain: str, at: Bools) -> Line:
        graded, paired = at & self.graded, at & self.paired
        edge_correct, cloud_correct = self.results.edge_correct[graded], self.results.cloud_correct[paired]
        edge, cloud = mean_known(edge_correct), mean_known(cloud_correct)
        routed = float(self.deferred[at].mean()) if at.any() else math.nan
        low, high = metrics.wilson(round(float(edge_correct.sum())), len(edge_correct))
        system = metrics.system_accuracy(self.results.edge_correct[paired], cloud_correct, self.deferred[paired])
        random = metrics.random_accuracy(edge, cloud, routed)
        return Line(domain, int(at.sum()), cloud, edge, low, high, random, system, routed, system - random)


def mean_known(values: Floats | list[float]) -> float:
    """The mean of what is known; nan if nothing is."""
    array = np.asarray(values, np.float64)
    known = array[~np.isnan(array)]
    return float(known.mean()) if len(known) else math.nan
