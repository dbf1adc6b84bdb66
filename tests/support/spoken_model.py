"""A model that returns what the test wants, and an agent around it."""

import pathlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from edge_agent.agent.agent import Agent
from edge_agent.agent.recording import Recorder
from edge_agent.agent.rules_in_force import NO_CALIBRATIONS, Calibrations
from edge_agent.cloud.privacy import Rules
from edge_agent.cloud.wire.client import CloudModel
from edge_agent.core.config.settings import DEFAULT_LIMITS
from edge_agent.core.question import Question
from edge_agent.core.records import LevelReading, ModelFacts, Reading, Timings
from edge_agent.core.routing import PolicyName
from edge_agent.model.catalog import ModelFiles
from edge_agent.model.profile import LEVELS
from edge_agent.store.store import Store
from tests.support.paths import DEMO

SURE = Reading(
    levels=LEVELS, level_probs=(0, 0, 0, 0, 1.0), level="1.0", format_mass=0.99,
    letters="ABC", answer_probs=(0.8, 0.1, 0.1), letter="A", timings=Timings(n_forward=2),
)  # fmt: skip


_DEMO = ModelFiles(DEMO)

UNSURE = replace(SURE, level="0.25", level_probs=(0, 1.0, 0, 0, 0))


class SpokenModel:
    """A model that returns one reading and counts how often it was opened and run; `before_letter` runs after the level."""

    def __init__(self, reading: Reading, before_letter: Callable[[], object] = lambda: None) -> None:
        self.reading, self.before_letter, self.opened, self.ran = reading, before_letter, 0, 0

    def open(self, files: ModelFiles, facts: ModelFacts) -> "SpokenModel":
        self.opened += 1
        return self

    n_waiting = 0

    def read_all(self, questions: Sequence[Question], on_level: Callable[[int, LevelReading], None]) -> list[Reading]:
        for i in range(len(questions)):
            self.ran += 1
            on_level(i, self.reading)
            self.before_letter()
        return [self.reading] * len(questions)

    def close(self) -> None:
        pass


def agent(
    home: pathlib.Path,
    model: SpokenModel,
    cloud: str | None = None,
    policy: str = "prefer_local",
    tau: float | None = 0.5,
    store: Callable[[pathlib.Path], Store] = Store,
    kind: type[Agent] = Agent,
    rules: Rules | None = None,
    recorder: type[Recorder] = Recorder,
    api: str = "chat",
    files: ModelFiles = _DEMO,
    calibrations: Calibrations = NO_CALIBRATIONS,
    **limits: Any,
) -> Agent:
    """An agent on the demo model's file; `limits` are fields of `Limits` that differ from the defaults. `api` is how its cloud is asked."""
    client = CloudModel(cloud, "big", deadline_s=30, api=api) if cloud else None
    opened, all_limits = store(home / "edge-agent.db"), DEFAULT_LIMITS._replace(**limits)
    return kind(files, opened, PolicyName(policy), tau, client, rules, all_limits, model.open, recorder, calibrations)
