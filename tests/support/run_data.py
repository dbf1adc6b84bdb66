"""Question sets for runs, drawn from the question bank of the demo model, and models that count what they are asked."""

import io
import json
import pathlib

from edge_agent.core.question import Question
from edge_agent.core.records import OpenReading, Reading
from edge_agent.engine.local_model import LocalModel
from edge_agent.measure.sets import loading
from edge_agent.measure.sets.loading import DataSet
from edge_agent.model.catalog import ModelFiles
from models.recipe.bank.draw import draw_many
from tests.support.paths import DEMO

FILES = ModelFiles(DEMO)


def lines(n: int, seed: int = 5) -> str:
    """`n` questions of all domains, one JSON object a line."""
    rows = [
        {"question": item.stem, "options": list(item.options), "answer": item.letter, "domain": item.domain, "id": f"q{number}"}
        for number, item in enumerate(draw_many(seed, n, "test"))
    ]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def data(n: int, seed: int = 5) -> DataSet:
    """The same as a data set."""
    return loading.read(io.BytesIO(lines(n, seed).encode()), "drawn")


class CountingModel(LocalModel):
    """The demo model; `asked` keeps the questions that it read. After `fails_after` of them it is interrupted, as by Ctrl-C."""

    asked: list[Question]
    fails_after: int | None = None

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__(path)
        self.asked = []

    def read(self, question: Question, *arguments: object, **extra: object) -> Reading | OpenReading:
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            raise KeyboardInterrupt
        self.asked.append(question)
        return super().read(question, *arguments, **extra)


class Opener:
    """Opens counting models, and keeps them."""

    def __init__(self, fails_after: int | None = None) -> None:
        self.models: list[CountingModel] = []
        self.fails_after = fails_after

    def __call__(self, files: ModelFiles) -> LocalModel:
        self.models.append(CountingModel(files.path))
        self.models[-1].fails_after = self.fails_after
        return self.models[-1]
