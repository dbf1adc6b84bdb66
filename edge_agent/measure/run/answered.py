"""One answered question of a run, and what a run asks for.

Owns the records and the names of their columns. Asks nothing and opens no file. Invariant: a record never changes; what is not known
is None, and nan in `Results`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_agent.core import readouts
from edge_agent.core.records import OpenReading, Reading
from edge_agent.measure.readouts import orders
from edge_agent.measure.readouts.automix import AUTOMIX
from edge_agent.measure.readouts.orders import ORDERS_2, ORDERS_ALL
from edge_agent.model.answers import parse

ALL_ORDERS = orders.ALL
EXTRAS = (ORDERS_2, ORDERS_ALL, AUTOMIX)
"""The readouts that ask the model again."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What is read of each question, beside the one reading.

    `orders` is the number of option orders to average over: 0 for none, 2, or `ALL_ORDERS` for two and all cyclic shifts. `automix` adds
    AutoMix's verification, drawn with `seed`. `greedy` records what the model prints without any constraint. `max_answer_tokens` is
    the longest answer in words; None means what the form of the data needs.
    """

    orders: int = 0
    automix: bool = False
    greedy: bool = False
    max_answer_tokens: int | None = None
    seed: int = 0

    @property
    def extras(self) -> tuple[str, ...]:
        """The readouts that ask the model again."""
        in_orders = {2: (ORDERS_2,), ALL_ORDERS: (ORDERS_2, ORDERS_ALL)}.get(self.orders, ())
        return (*in_orders, *((AUTOMIX,) if self.automix else ()))


@dataclass(frozen=True, slots=True)
class ExtraReading:
    """What a readout that asks the model again brought: its score, its answer (the reading's own for AutoMix), and its price.

    `agreed` says whether all option orders had the same answer; None where there are none.
    """

    score: float
    answer: str
    right: float
    n_passes: int
    ms: float
    agreed: bool | None = None


@dataclass(frozen=True, slots=True)
class CloudReply:
    """What the cloud said to a question: `right` is 0 or 1, or the probability of a simulated cloud.

    `answer` and `agrees` (1 where it is the device's answer) are None where only the grade is known. `error` says why there is no
    answer. `ms` is None where no call was made; with `estimated_tokens` nobody counted the tokens.
    """

    right: float | None = None
    answer: str | None = None
    agrees: float | None = None
    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    ms: float | None = None
    error: str | None = None
    estimated_tokens: bool = False


@dataclass(frozen=True, slots=True)
class AnsweredRow:
    """A question with the device's answer and, where it was asked, the cloud's.

    `gold` is the right letter, or the accepted texts of an open question, joined by " | ". `right` is 1, 0, or a share between them
    where the benchmark's rule gives one. `read_ms` is the time from question to reading. `printed` is what the model prints without
    any constraint; None if that was not tried.
    """

    id: str
    fingerprint: str
    domain: str
    difficulty: int | None
    gold: str
    reading: Reading | OpenReading
    right: float
    read_ms: float
    printed: str | None = None
    extra: Mapping[str, ExtraReading] = field(default_factory=dict)
    cloud: CloudReply | None = None

    @property
    def keeps_format(self) -> bool:
        """Whether the published parser finds a valid level and a valid answer in the printed text."""
        level, answer = parse(self.printed or "")
        if level not in {float(text) for text in self.reading.levels} or answer is None:
            return False
        return not isinstance(self.reading, Reading) or answer in self.reading.letters

    def score(self, readout: str) -> float | None:
        """The score of a readout, one of the reading's or an extra one; None where there is none."""
        if readout in EXTRAS:
            found = self.extra.get(readout)
            return found.score if found else None
        return readouts.score(self.reading, readout)

    def to_dict(self) -> dict[str, Any]:
        """The object that `edge-agent eval --rows FILE.jsonl` writes on each line."""
        reading = self.reading
        row: dict[str, Any] = {"id": self.id, "domain": self.domain, "difficulty": self.difficulty, "answer": self.gold}
        is_choice = isinstance(reading, Reading)
        row |= {"letter": reading.letter} if isinstance(reading, Reading) else {"text": reading.text, "ended": reading.ended}
        row |= {"right": bool(self.right) if is_choice else self.right, "confidence": reading.confidence}
        row |= {"expected_confidence": reading.expected_confidence, "format_mass": reading.format_mass, "level_probs": reading.level_probs}
        row |= {"answer_probs": reading.answer_probs} if isinstance(reading, Reading) else {}
        row |= {"read_ms": self.read_ms}
        row |= {} if self.printed is None else {"printed": self.printed, "keeps_format": self.keeps_format}
        for name, found in self.extra.items():
            row |= {name: found.score, f"{name}_answer": found.answer, f"{name}_right": found.right}
            row |= {f"{name}_passes": found.n_passes, f"{name}_ms": found.ms}
        if self.cloud:
            cloud = {"answer": self.cloud.answer, "right": self.cloud.right, "error": self.cloud.error, "ms": self.cloud.ms}
            row |= {f"cloud_{name}": value for name, value in cloud.items() if value is not None}
        return row
