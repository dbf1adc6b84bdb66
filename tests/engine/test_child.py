"""What a process of our own may see: no stranger's modules, and no secrets."""

import pathlib
import sys

import pytest

from edge_agent.core.errors import ModelRefused
from edge_agent.core.question import Question
from edge_agent.engine import child, trial
from edge_agent.measure.bench import runs
from edge_agent.model.catalog import ModelFiles
from tests.support.paths import DEMO

QUESTIONS = [Question(f"What is {n} + {n}?", (str(2 * n), "1")) for n in range(2, 5)]


def test_child_imports_nothing_from_the_current_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies beside a model on a stick is a stranger's, and no program of ours."""
    for name in ("json", "numpy", "edge_agent", "llama_cpp"):
        (tmp_path / f"{name}.py").write_text("open('canary', 'w').close()")
    monkeypatch.chdir(tmp_path)
    assert trial.run(ModelFiles(DEMO), QUESTIONS[:1]).readings
    assert list(runs.run([ModelFiles(DEMO)], QUESTIONS, 1))
    assert not (tmp_path / "canary").exists()


def test_child_that_measures_sees_no_secret_either(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_CLOUD_KEY", "sk-canary")
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\nenv > {tmp_path / 'seen'}\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    with pytest.raises(ModelRefused):
        list(runs.run([ModelFiles(DEMO)], QUESTIONS, 1))
    assert "canary" not in (tmp_path / "seen").read_text() and "PATH=" in (tmp_path / "seen").read_text()


def test_checkout_is_found_and_what_somebody_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(pathlib.Path(child.__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert child.environment()["PYTHONPATH"] == f"{root}:/elsewhere"
    monkeypatch.delenv("PYTHONPATH")
    assert child.environment()["PYTHONPATH"] == root
