"""Where the cloud's answers of a run come from: a simulation, or answers that were recorded. `live.py` asks a real one.

Owns the sources that need no network, the grade of a cloud's answer, and the estimate of its tokens. Asks no model. Invariant: a
simulated cloud is labelled as one in everything that it makes.
"""

from __future__ import annotations

import hashlib
import json
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from edge_agent.core import routing
from edge_agent.measure.results import NO_CLOUD, RECORDED, SIMULATED, CloudSource
from edge_agent.measure.run.answered import AnsweredRow, CloudReply
from edge_agent.measure.sets import grading, recorded
from edge_agent.measure.sets.labelled import Labelled

CHARS_A_TOKEN = 4  # a rule of thumb for English, where nobody counted
DEFAULT_ACCURACY = 0.95
_FRAME_TOKENS = 64  # the instruction and the roles that are sent with a question

Answers = Mapping[int, tuple[Labelled, AnsweredRow]]
"""Questions with the device's answers, by their number in the data."""


class Cloud(Protocol):
    """A source of the cloud's answers."""

    @property
    def source(self) -> CloudSource:
        """What to call it."""

    @property
    def identity(self) -> str:
        """What makes its answers different from those of another source of the same name; secret-free."""

    def replies(self, rows: Answers) -> Iterator[tuple[int, CloudReply]]:
        """The replies to questions that the device has answered, each with the question's number, in any order."""


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

    def replies(self, rows: Answers) -> Iterator[tuple[int, CloudReply]]:
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

    def replies(self, rows: Answers) -> Iterator[tuple[int, CloudReply]]:
        """One for each question, at once."""
        for number, (labelled, row) in rows.items():
            right = self.accuracy
            if self.seed is not None:
                right = float(routing.draw(row.fingerprint, f"simulated cloud {self.seed}") < self.accuracy)
            yield number, estimated(labelled, CloudReply(right=right))


class RecordedFile:
    """Answers that a cloud gave at another time, in a file: to these questions, of one `model` if the file has several.

    A question without a recorded answer has no reply. Raises `BadData` with file and line. `notes` say what did not match.
    """

    def __init__(
        self,
        path: pathlib.Path,
        questions: Sequence[Labelled],
        model: str | None = None,
        prompt_price: float = 0.0,
        completion_price: float = 0.0,
    ) -> None:
        self._recorded = recorded.load(path, questions, model)
        self.notes = self._recorded.notes
        self.source = CloudSource(RECORDED, self._recorded.name, None, prompt_price, completion_price)
        told = json.dumps([[None if math.isnan(right) else right for right in self._recorded.correct.tolist()], self._recorded.answers])
        self.identity = f"answers {hashlib.sha256(told.encode()).hexdigest()[:16]}"

    def replies(self, rows: Answers) -> Iterator[tuple[int, CloudReply]]:
        """Those that the file has."""
        for number, (labelled, row) in rows.items():
            right, answer = float(self._recorded.correct[number]), self._recorded.answers[number]
            if math.isnan(right):
                continue
            reply = CloudReply(right=right) if answer is None else replace(graded(labelled, row, answer), right=right)
            tokens = [float(each[number]) for each in self._recorded.tokens or ()]
            if tokens and not any(map(math.isnan, tokens)):
                yield number, replace(reply, prompt_tokens=tokens[0], completion_tokens=tokens[1])
            else:
                yield number, estimated(labelled, reply)


def estimated(labelled: Labelled, reply: CloudReply) -> CloudReply:
    """The reply with an estimate of its tokens: the characters of the question / 4 and the instruction, and one for a letter."""
    question = labelled.question
    prompt = math.ceil(len(question.user_message) / CHARS_A_TOKEN) + _FRAME_TOKENS
    completion = 1 if question.options else max(1, math.ceil(len(reply.answer or "") / CHARS_A_TOKEN))
    return replace(reply, prompt_tokens=float(prompt), completion_tokens=float(completion), estimated_tokens=True)


def graded(labelled: Labelled, row: AnsweredRow, answer: str) -> CloudReply:
    """A cloud's answer with its grade, and whether it is the device's answer (for an open question, but for case and spaces)."""
    question, own = labelled.question, row.reading.answer
    is_same = answer in question.same_as(own) if question.options else _plain(answer) == _plain(own)
    return CloudReply(right=grading.correct(labelled, answer), answer=answer, agrees=float(is_same))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
