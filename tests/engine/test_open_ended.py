"""Questions without options: the confidence from the trie, then an answer in the model's own words."""

import json
import pathlib

import pytest

from convert.export import Conversion, export
from edge_agent.agent.agent import Agent
from edge_agent.cloud.wire.client import CloudModel
from edge_agent.core.errors import BadQuestion
from edge_agent.core.question import OPEN, Question
from edge_agent.core.records import LevelReading, OpenReading
from edge_agent.engine.local_model import LocalModel
from edge_agent.model.catalog import ModelFiles
from edge_agent.store.store import Store
from tests.support.cloud_server import LoopbackCloud
from tests.support.command_line import run
from tests.support.paths import ROOT

QUESTION = Question("What is 12 + 7?", (), OPEN)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The demo base with its adapter, marked as a model that answers in its own words."""
    demo = ROOT / "models" / "demo"
    adapter = demo / "adapter-open" if (demo / "adapter-open").exists() else demo / "adapter"
    return export(Conversion(demo / "base", [adapter], ["Q8_0"], "open", answer_kind="text"), tmp_path_factory.mktemp("open"))[0].path


@pytest.fixture(scope="module")
def model(path: pathlib.Path) -> LocalModel:
    with LocalModel(path) as opened:
        yield opened


def test_reading_equals_what_the_model_prints_without_constraint(model: LocalModel) -> None:
    pieces: list[str] = []
    levels: list[LevelReading] = []
    reading = model.read(QUESTION, levels.append, on_text=pieces.append)
    assert isinstance(reading, OpenReading) and reading.ended
    assert "".join(pieces).strip() == reading.text == reading.answer != ""
    assert levels[0].level == reading.level and sum(reading.level_probs) == pytest.approx(1)
    printed = model.generate(QUESTION)
    assert printed == f"Confidence: {reading.level}\nFinal answer: {reading.text}"


def test_questions_asked_together_are_answered_as_alone(model: LocalModel) -> None:
    questions = [QUESTION, Question("What is 30 + 4?", (), OPEN)]
    alone = [model.read(question).answer for question in questions]
    assert [reading.answer for reading in model.read_all(questions)] == alone


def test_models_refuse_the_other_kind_of_question(model: LocalModel, demo_model: LocalModel, question: Question) -> None:
    with pytest.raises(BadQuestion, match="ask it without options"):
        model.read(question)
    with pytest.raises(BadQuestion, match="with its options"):
        demo_model.read(QUESTION)


def test_unsure_answer_in_words_is_upheld_if_the_cloud_says_the_same(path: pathlib.Path, home: pathlib.Path, cloud: LoopbackCloud) -> None:
    with Agent(ModelFiles(path), Store(home / "a.db"), tau=1.0, cloud=None) as alone:
        said = alone.ask(QUESTION).answer
    cloud.reply = lambda body: f"{said}."
    with Agent(ModelFiles(path), Store(home / "a.db"), tau=1.0, cloud=CloudModel(cloud.url, "big")) as agent:
        decision = agent.ask(QUESTION)
        ending = agent.store.log(2)[-1]["ending"]
    assert decision.route == "cloud" and decision.answer == decision.answer_text == f"{said}." and ending == "upheld"


def test_command_line_asks_it_without_options(path: pathlib.Path) -> None:
    done = run("ask", "What is 12 + 7?", "--model", str(path), "--json")
    decision = json.loads(done.stdout)
    assert done.returncode == 0 and decision["answer"] == decision["answer_text"] and decision["answer_probs"] is None
    again = run("ask", "What is 12 + 7?", "--model", str(path))
    assert again.stdout.splitlines()[0] == decision["answer"] and "remembered" in again.stdout
    refused = run("ask", "Q", "--option", "a", "--option", "b", "--model", str(path))
    assert refused.returncode == 65 and "without" in refused.stderr
