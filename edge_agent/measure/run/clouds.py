"""Where the cloud's answers of a run come from: a simulation, or answers that were recorded. `live.py` asks a real one.

Owns the sources that need no network, the grade of a cloud's answer, and the estimate of its tokens. Asks no model. Invariant: a
simulated cloud is labelled as one in everything that it makes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from edge_agent.core import routing
from edge_agent.measure.datasets import Labelled
from edge_agent.measure.results import NO_CLOUD, SIMULATED, CloudSource
from edge_agent.measure.run.answered import AnsweredRow, CloudReply

CHARS_A_TOKEN = 4  # a rule of thumb for English, where nobody counted
DEFAULT_ACCURACY = 0.95
_FRAME_TOKENS = 64  # the instruction and the roles that are sent with a question


class Cloud(Protocol):
    """A source of the cloud's answers."""

    @property
    def source(self) -> CloudSource:
        """What to call it."""

    @property
    def identity(self) -> str:
        """What makes its answers different from those of another source of the same name; secret-free."""

    def replies(self, rows: Sequence[tuple[Labelled, AnsweredRow]]) -> Iterator[tuple[int, CloudReply]]:
        """The replies to questions that the device has answered, each with its place in `rows`, in any order."""


@dataclass(frozen=True, slots=True)
class NoCloud:
    """No cloud at all: only the device is measured."""

    @property
    def source(self) -> CloudSource:
        """What to call it."""
        return CloudSource(NO_CLOUD)

    @property
    def identity(self) -> str:
        """Nothing: there is only one."""
        return ""

    def replies(self, rows: Sequence[tuple[Labelled, AnsweredRow]]) -> Iterator[tuple[int, CloudReply]]:
        """None."""
        return iter(())


@dataclass(frozen=True, slots=True)
class Simulated:
    """A cloud that is right with probability `accuracy` on every question.

    Without a seed its expected value counts, so its figures have no noise of their own. With one, each question is right or wrong, by
    a draw that belongs to the question.
    """

    accuracy: float = DEFAULT_ACCURACY
    seed: int | None = None
    prompt_price: float = 0.0
    completion_price: float = 0.0

    @property
    def source(self) -> CloudSource:
        """What to call it."""
        name = "expected value" if self.seed is None else f"drawn with seed {self.seed}"
        return CloudSource(SIMULATED, name, self.accuracy, self.prompt_price, self.completion_price)

    @property
    def identity(self) -> str:
        """Nothing: the source says it all."""
        return ""

    def replies(self, rows: Sequence[tuple[Labelled, AnsweredRow]]) -> Iterator[tuple[int, CloudReply]]:
        """One for each question, at once."""
        for place, (labelled, row) in enumerate(rows):
            right = self.accuracy
            if self.seed is not None:
                right = float(routing.draw(row.fingerprint, f"simulated cloud {self.seed}") < self.accuracy)
            yield place, estimated(labelled, CloudReply(right=right))


def estimated(labelled: Labelled, reply: CloudReply) -> CloudReply:
    """The reply with an estimate of its tokens: the characters of the question / 4 and the instruction, and one for a letter."""
    question = labelled.question
    prompt = math.ceil(len(question.user_message) / CHARS_A_TOKEN) + _FRAME_TOKENS
    completion = 1 if question.options else max(1, math.ceil(len(reply.answer or "") / CHARS_A_TOKEN))
    return replace(reply, prompt_tokens=float(prompt), completion_tokens=float(completion), estimated_tokens=True)


def grade(labelled: Labelled, answer: str) -> float:
    """1 where the answer is the gold one, or an option with the same text, 0 where it is not."""
    return float(answer in labelled.question.same_as(labelled.answer))


def graded(labelled: Labelled, row: AnsweredRow, answer: str) -> CloudReply:
    """A cloud's answer with its grade, and whether it is the device's answer (for an open question, but for case and spaces)."""
    question, own = labelled.question, row.reading.answer
    is_same = answer in question.same_as(own) if question.options else _plain(answer) == _plain(own)
    return CloudReply(right=grade(labelled, answer), answer=answer, agrees=float(is_same))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
