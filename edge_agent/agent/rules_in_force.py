"""Which rules decide a question: a tau that a person gave, else the calibration of the model that reads it, else the model's own tau.

Owns that order, and the numbers of a decision that follow from it. `routing` decides by them. Invariants: the policy of an inquiry is
that of the model whose reading it uses, also if another file has its name meanwhile; a calibration that cannot be used never stops an
answer, and is said once.
"""

from __future__ import annotations

import logging
import os
import pathlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from edge_agent.agent.inquiry import Inquiry
from edge_agent.core import routing
from edge_agent.core.config.checks import AUTO
from edge_agent.core.records import ModelFacts
from edge_agent.core.routing import Policy, PolicyName
from edge_agent.model.profile import TAU_IS_USELESS, Profile

if TYPE_CHECKING:  # imported only where there are calibrations: it takes milliseconds
    from edge_agent.model.calibration import Applied, Calibration

_log = logging.getLogger("edge_agent")


class Calibrations(NamedTuple):
    """Where calibrations are (None: nowhere) and which one is wanted, as the setting `calibration` says."""

    folder: pathlib.Path | None = None
    wanted: str = AUTO

    def of(self, facts: ModelFacts, profile: Profile) -> Applied | None:
        """What applies to a model, and what is wrong with the files; None where there are none and none is wanted."""
        if self.folder is None or (self.wanted == AUTO and not os.path.lexists(self.folder)):
            return None
        from edge_agent.model.calibration import choose

        return choose(self.folder, facts.sha256, facts.adapter_sha256, profile.sha256, self.wanted)


NO_CALIBRATIONS = Calibrations()


@dataclass(frozen=True, slots=True)
class ModelRules:
    """The policy of a model, and the calibration that it comes from."""

    policy: Policy
    calibration: Calibration | None = None


class RulesInForce:
    """The rules of an agent: `name` and `tau` are what a person chose for all its questions; without a tau, the model decides."""

    def __init__(self, name: PolicyName, tau: float | None = None, calibrations: Calibrations = NO_CALIBRATIONS) -> None:
        self._name, self._tau, self._calibrations = name, tau, calibrations
        self._known: dict[ModelFacts, ModelRules] = {}
        self._said: set[str] = set()

    def of(self, facts: ModelFacts, profile: Profile) -> ModelRules:
        """The rules for a model; each model's calibration is looked up once."""
        if (known := self._known.get(facts)) is None:
            known = self._known[facts] = self._found(facts, profile)
        return known

    def apply(self, inquiry: Inquiry, facts: ModelFacts, profile: Profile) -> None:
        """Let a model read an inquiry: sets all that follows from the model. The inquiry's own tau and policy are stronger."""
        rules = self.of(facts, profile)
        policy, calibration = rules.policy, rules.calibration
        if inquiry.own_policy is not None:
            policy = replace(policy, name=inquiry.own_policy)
        if inquiry.own_tau is not None:
            policy, calibration = policy.with_tau(inquiry.own_tau), None
        draw = routing.draw(inquiry.question.fingerprint, calibration.salt) if calibration and policy.tie_share else 0.0
        inquiry.model, inquiry.profile_sha256 = facts, profile.sha256
        inquiry.policy, inquiry.calibration = policy, calibration
        inquiry.circumstances = replace(inquiry.circumstances, draw=draw)

    def _found(self, facts: ModelFacts, profile: Profile) -> ModelRules:
        policy = Policy(self._name, profile.tau, profile.format_mass_min)
        if self._tau is not None:
            if profile.is_plain and self._name is PolicyName.PREFER_LOCAL:
                self._say(TAU_IS_USELESS.format(self._tau))
            return ModelRules(policy.with_tau(self._tau))
        applied = self._calibrations.of(facts, profile)
        if applied is None:
            return ModelRules(policy)
        self._say(*applied.problems)
        if applied.calibration is None:
            if applied.problems or applied.n_others or applied.n_other_ways:
                self._say(none_applies(applied, profile))
            return ModelRules(policy)
        return ModelRules(applied.calibration.policy(self._name, profile.format_mass_min), applied.calibration)

    def _say(self, *problems: str) -> None:
        """Warn of what was not said yet."""
        for problem in problems:
            if problem not in self._said:
                self._said.add(problem)
                _log.warning("edge-agent: %s", problem)


def none_applies(applied: Applied, profile: Profile) -> str:
    """What counts where no calibration does, and why none does."""
    others = f" ({applied.n_others} for other models)" if applied.n_others else ""
    way = (
        " A calibration of this file was made with another profile, chat shape or way to answer: ask the model in that way again, or run "
        "`edge-agent calibrate` for this one."
    )
    return f"No calibration applies to this model file{others}, so {without_calibration(profile)}.{way if applied.n_other_ways else ''}"


def without_calibration(profile: Profile) -> str:
    """What counts for a model without a calibration."""
    if profile.is_plain:
        return "its answers count as unsure: it is a plain model, which prints no confidence"
    return f"the model's own tau counts: {profile.tau:g}"
