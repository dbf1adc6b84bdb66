"""What users can rely on with the bundled model, and whether its card is true."""

import csv
import hashlib
import json

import pytest

from edge_agent.core.question import Question
from edge_agent.engine.local_model import LocalModel
from models.recipe import card, config
from models.recipe.bank import held_out
from models.recipe.bank.frozen import fingerprint
from tests.support.paths import ROOT, SHARED

DEMO = ROOT / "models" / "demo"
WORKED_EXAMPLE = Question(
    "A company has total liabilities of $400 million and total equity of $600 million. What is its debt-to-equity ratio?",
    ("0.67", "1.00", "1.50", "2.00"),
)
OFF_DOMAIN = (
    "high_school_european_history", "high_school_us_history", "high_school_world_history", "prehistory", "philosophy", "world_religions",
    "sociology", "moral_disputes", "high_school_geography", "high_school_psychology", "high_school_government_and_politics", "marketing",
    "public_relations", "security_studies", "us_foreign_policy", "human_sexuality", "management", "logical_fallacies", "global_facts",
    "miscellaneous",
)  # fmt: skip


def test_demo_is_as_small_as_promised() -> None:
    files = [path for path in DEMO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 60_000_000
    assert (DEMO / "FogGen-demo-Q8_0.gguf").stat().st_size <= 12_000_000


def test_card_is_what_the_recipe_writes_from_the_measurements() -> None:
    figures, compared = (json.loads((DEMO / name).read_text()) for name in ("measured.json", "compared.json"))
    assert (DEMO / "README.md").read_text() == card.text(config.load("demo"), figures, compared)


def test_card_describes_the_files_next_to_it() -> None:
    figures, card = json.loads((DEMO / "measured.json").read_text()), (DEMO / "README.md").read_text()
    assert {file["path"] for file in figures["files"]} == {path.name for path in DEMO.glob("*.gguf")}
    for file in figures["files"]:
        digest = hashlib.sha256((DEMO / file["path"]).read_bytes()).hexdigest()
        assert digest == file["sha256"] and digest in card
    evaluation = figures["evaluation"]
    assert f"{evaluation['right']['questions']:,}" in card and f"{evaluation['right']['share']:.1%}" in card
    assert f"{evaluation['readouts']['confidence']['auroc']:.3f}" in card


def test_demo_was_made_from_the_current_bank() -> None:
    assert json.loads((DEMO / "run.json").read_text())["bank_sha256"] == fingerprint()


def test_published_worked_example_is_right_and_was_never_trained_on(demo_model: LocalModel) -> None:
    assert held_out("ratio/400,600")
    assert demo_model.read(WORKED_EXAMPLE).answer == "A"


@pytest.mark.skipif(not (SHARED / "mmlu").exists(), reason="the evaluation sets are not here")
def test_demo_is_rarely_sure_outside_its_domains(demo_model: LocalModel) -> None:
    questions = []
    for subject in OFF_DOMAIN:
        with (SHARED / "mmlu" / "test" / f"{subject}_test.csv").open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if len(row[0]) < 600][:12]
        questions += [Question(row[0], tuple(text.replace("\n", " ") for text in row[1:5])) for row in rows]
    assert len(questions) >= 200
    sure = [question for question in questions if demo_model.read(question).confidence >= 0.75]
    assert len(sure) <= len(questions) // 10
