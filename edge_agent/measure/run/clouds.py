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

import numpy as np

from edge_agent.core import routing
from edge_agent.core.errors import BadData
from edge_agent.measure.results import LIVE, NO_CLOUD, RECORDED, SIMULATED, CloudSource
from edge_agent.measure.run import run_file
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

    The file of a run counts by its cloud's answers.
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
        self._recorded = _of_run(path, questions) if _is_sqlite(path) else recorded.load(path, questions, model)
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


def _is_sqlite(path: pathlib.Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(16) == b"SQLite format 3\0"
    except (OSError, ValueError):  # `recorded` says what is wrong with the path
        return False


def _of_run(path: pathlib.Path, questions: Sequence[Labelled]) -> recorded.Recorded:
    """The answers of a run's cloud to these questions. Raises `BadData` if it asked no real cloud, or other questions."""
    facts, rows = run_file.load(path)
    if facts.cloud.kind not in (LIVE, RECORDED):
        raise BadData(
            f"The run '{path}' has no answers of a real cloud ({facts.cloud.words}); give a run that has, or, to take the answers of its "
            "model as those of a cloud, write its rows with `eval --rows FILE.jsonl`."
        )
    replies = {row.fingerprint: row.cloud for row in rows.values() if row.cloud and row.cloud.right is not None}
    found = [replies.get(labelled.question.fingerprint, CloudReply()) for labelled in questions]
    columns = [
        np.array([math.nan if value is None else value for value in column], np.float64)
        for column in zip(*((each.right, *_counted(each)) for each in found), strict=True)
    ]
    if (lacking := int(np.isnan(columns[0]).sum())) == len(questions):
        raise BadData(f"The run '{path}' has no answer of the cloud to any of these questions; check that both are of the same set.")
    notes = (f"{lacking:,} of {len(questions):,} questions have no answer of the cloud in the run",) if lacking else ()
    answers, name = tuple(each.answer for each in found), f"{facts.cloud.name} in {path.name}"
    tokens = None if np.isnan(columns[1]).all() else (columns[1], columns[2])
    return recorded.Recorded(columns[0], answers, name, notes, tokens)


def _counted(reply: CloudReply) -> tuple[float | None, float | None]:
    """The tokens of a reply; none if they are only an estimate."""
    return (None, None) if reply.estimated_tokens else (reply.prompt_tokens, reply.completion_tokens)


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
    right = grading.correct(labelled, answer)
    return CloudReply(right=None if math.isnan(right) else right, answer=answer, agrees=float(is_same))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
