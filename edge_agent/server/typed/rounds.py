"""Asks typed questions of the agent, round by round, and says whose probabilities an answer has.

Owns the order of the rounds and the rule whose probabilities count. Knows no HTTP. Invariants: the first rounds of all questions of a
request are asked together, then the next ones; only a last round may go to the cloud; no probability is made up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from edge_agent.agent.agent import Agent
from edge_agent.core.errors import BadQuestion, CloudUnavailable
from edge_agent.core.question import Question
from edge_agent.core.records import Decision
from edge_agent.core.routing import PolicyName
from edge_agent.core.typed import Rounds, TypedQuestion, tempered
from edge_agent.server.faults import Refusal
from edge_agent.server.model_names import Chosen, chosen
from edge_agent.server.own_fields import OwnOptions
from edge_agent.server.service import Service

DEVICE, CLOUD = "device", "cloud"
MOST_QUESTIONS = 400  # of one request
Chance = Callable[[Decision], float | None]
"""How likely the device's own answer is right, if a calibration says so."""


@dataclass(frozen=True)
class Answered:
    """One typed question with its answer.

    `probabilities` has one for each option, in their order, and `winner` is the index of the largest. They belong to `answered_by`:
    the device or the cloud. `decisions` are those of all rounds in the order asked; the last one decided. `cloud_choice` is the index
    of the option that the cloud's letter stands for, if there is one.
    """

    asked: TypedQuestion
    probabilities: tuple[float, ...]
    winner: int
    answered_by: str
    decisions: tuple[Decision, ...]
    cloud_choice: int | None

    @property
    def decision(self) -> Decision:
        """The decision of the last round.

        It counts as provisional where the cloud gave a letter without probabilities: the typed answer is still the device's.
        """
        last = self.decisions[-1]
        return replace(last, provisional=True) if last.route == "cloud" and self.answered_by == DEVICE else last


class Unaskable(BadQuestion):
    """One question of several cannot be asked; `index` says which."""

    def __init__(self, index: int, error: BadQuestion) -> None:
        super().__init__(str(error))
        self.index = index


class Worded(Protocol):
    """A question as an API describes it."""

    def asked(self, state: Any) -> TypedQuestion:
        """The question in words. Raises `BadQuestion`."""


class _InProgress:
    """One typed question on its way through the rounds."""

    def __init__(self, asked: TypedQuestion) -> None:
        self.rounds = Rounds(asked)
        self.decisions: list[Decision] = []
        self.answered_by = DEVICE

    def take(self, questions: Sequence[Question], decisions: Sequence[Decision], chance: Chance) -> None:
        self.decisions += decisions
        found = [_whose(question, decision, chance) for question, decision in zip(questions, decisions, strict=True)]
        self.answered_by = found[-1][0]
        self.rounds.answered([probabilities for _, probabilities in found])

    def answered(self) -> Answered:
        last, (question,) = self.decisions[-1], self.rounds.questions
        options = self.rounds.asked.options
        cloud_choice = options.index(question.options[question.letters.index(last.cloud.answer)]) if last.cloud else None
        return Answered(
            self.rounds.asked, self.rounds.probabilities, self.rounds.winner, self.answered_by, tuple(self.decisions), cloud_choice
        )


async def run(service: Service, model: str, questions: Callable[[], list[TypedQuestion]], own: OwnOptions | None = None) -> list[Answered]:
    """The answers to a request that names `model`. Its questions are worded in the thread that asks them: a long text takes a while.

    Raises what `ask` and `Service.run` raise, and `Refusal` for an unknown name.
    """
    who = chosen(model)
    answers = await service.run(lambda: ask(service.agent, questions(), who, own, service.agent.chance))
    service.decided(*(decision for answer in answers for decision in answer.decisions))
    return answers


def worded(state: object, questions: Sequence[Worded]) -> list[TypedQuestion]:
    """The questions in words. Raises `Unaskable`."""
    found = []
    for index, one in enumerate(questions):
        try:
            found.append(one.asked(state))
        except BadQuestion as error:
            raise Unaskable(index, error) from error
    return found


def ask(
    agent: Agent,
    questions: Sequence[TypedQuestion],
    who: Chosen,
    own: OwnOptions | None = None,
    chance: Chance = lambda decision: None,
) -> list[Answered]:
    """The answers, in the order of the questions. By `chance`, those of a plain model have calibrated probabilities.

    Raises what `Agent.ask_all` raises, and `Refusal` where only the cloud may answer and it gave no probabilities: there is nothing
    that a typed answer could hold. Its letter is stored all the same. `Unaskable` names the first question that cannot be asked.
    """
    own = own or OwnOptions()
    own.check(who.policy)
    started = [_InProgress(replace(asked, never_send=asked.never_send or own.never_send)) for asked in questions]
    policy = who.policy or agent.policy.name.value
    if policy == PolicyName.ONLY_CLOUD and agent.gate is None and not all(one.rounds.is_last for one in started):
        raise CloudUnavailable("No cloud is set up, and a cloud alone may answer; choose edge-auto or edge-local, or set up a cloud.")
    while unfinished := [one for one in started if not one.rounds.is_over]:
        asked = [(one, question) for one in unfinished for question in one.rounds.questions]
        policies = [policy if one.rounds.is_last else PolicyName.ONLY_LOCAL.value for one, _ in asked]
        try:
            decisions = agent.ask_all([question for _, question in asked], tau=who.tau, policy=policies, refresh=own.refresh)
        except BadQuestion as error:
            raise _named(agent, [(started.index(one), question) for one, question in asked], error) from error
        for one in unfinished:
            mine = [(question, decision) for (whose, question), decision in zip(asked, decisions, strict=True) if whose is one]
            questions_of_it, decided = zip(*mine, strict=True)
            one.take(questions_of_it, decided, chance)
    return [one.answered() for one in started]


def _named(agent: Agent, asked: Sequence[tuple[int, Question]], error: BadQuestion) -> BadQuestion:
    """The error with the number of the first question that the model cannot read."""
    for index, question in asked:
        try:
            agent.fits(question)
        except BadQuestion as found:
            return Unaskable(index, found)
    return error


def _whose(question: Question, decision: Decision, chance: Chance) -> tuple[str, list[float]]:
    """Who answered, and the probabilities in the order of the letters. Raises `Refusal` if there are none.

    Those of a plain model are spread so that its answer has the `chance` that a calibration measured for its score.
    """
    if decision.route == "cloud" and decision.cloud:
        probabilities = [(decision.cloud.probs or {}).get(letter, 0.0) for letter in question.letters]
        if (total := math.fsum(probabilities)) > 0:
            return CLOUD, [p / total for p in probabilities]
    if decision.answer_probs is None:
        raise Refusal(
            502,
            "no_probabilities",
            f"The cloud answered {decision.answer} without probabilities, and a typed answer needs them; ask the model edge-auto, "
            "which has them from this device.",
        )
    found = list(decision.answer_probs.values())
    measured = chance(decision)
    return DEVICE, found if measured is None else tempered(found, measured)
