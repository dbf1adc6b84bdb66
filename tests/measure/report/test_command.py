"""`edge-agent report`: from a run file to a page, without a model."""

import dataclasses
import json
import pathlib

import pytest

from edge_agent.measure.report import of_run
from edge_agent.measure.run import run as runs
from edge_agent.model.calibration import Calibration, save
from tests.support.command_line import run
from tests.support.paths import ROOT

DEMO = ROOT / "models" / "demo"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """Two runs of the demo model on the built-in questions."""
    folder = tmp_path_factory.mktemp("runs")
    questions = folder / "questions.jsonl"
    rows = [
        {"question": f"What is {n} + 7?", "options": [str(n + 6), str(n + 7), str(n + 9)], "answer": "B", "domain": "math", "id": str(n)}
        for n in range(12, 30)
    ]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {}
    for name in ("Q8_0", "Q4_0"):
        found[name] = folder / f"{name}.db"
        done = run("eval", str(questions), "--model", str(DEMO / f"FogGen-demo-{name}.gguf"), "--rows", str(found[name]))
        assert done.returncode == 0, done.stderr
    return found


def calibration(loaded: runs.Run, **changes: object) -> Calibration:
    facts = loaded.facts
    made = Calibration(
        model_sha256=facts.model.sha256, adapter_sha256="", profile_sha256=facts.profile_sha256, readout="combined",
        weights=(0.1, 1.0, 1.0, 1.0, 1.0), tau=0.9, tie_share=0.0, salt="s", curve=((0.0, 0.1), (1.0, 0.9)), goal="max_local_error",
        value=0.15, delta=0.05, deferral_rate=0.2, local_error=0.1, questions=(10, 20, 30), data="bank", data_sha256="ab" * 32,
        created_at="2026-01-01T00:00:00Z",
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def test_page_and_pictures_are_written_from_run_files_alone(files: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    out, folder = tmp_path / "report.html", tmp_path / "deep" / "pictures"
    done = run("report", *map(str, files.values()), "--out", str(out), "--pictures", str(folder), "--cloud-ms", "700", "--json")
    assert done.returncode == 0, done.stderr
    written = [pathlib.Path(path) for path in json.loads(done.stdout)["files"]]
    assert written[0] == out and {path.name for path in written[1:]} == {path.name for path in folder.iterdir()}
    text = out.read_text(encoding="utf-8")
    assert "questions.jsonl" in text and str(files["Q8_0"].parent) not in text
    assert "FogGen-demo-Q8_0" in text and "Which file to take (simulated cloud)" in text and "Choose Q" in text


def test_tau_is_the_models_own_unless_one_is_given(files: dict[str, pathlib.Path]) -> None:
    loaded = runs.load(files["Q8_0"])
    assert of_run.measured(loaded).rule.tau == loaded.facts.profile.tau
    assert of_run.measured(loaded, 0.75).rule.tau == 0.75
    assert of_run.measured(loaded).size_bytes == (DEMO / "FogGen-demo-Q8_0.gguf").stat().st_size


def test_calibration_judges_and_says_its_promise(files: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    loaded = runs.load(files["Q8_0"])
    path = save(tmp_path, calibration(loaded))
    out = tmp_path / "report.html"
    done = run("report", str(files["Q8_0"]), "--out", str(out), "--calibration", str(path))
    assert done.returncode == 0, done.stderr
    text = out.read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
    assert "With 95 % certainty, at most 15.0 % of the answers that stay on the device are wrong" in text
    assert "At a threshold of 0.9 (readout combined)" in text and path.stem in text


def test_calibration_of_another_model_is_refused(files: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    path = save(tmp_path, calibration(runs.load(files["Q8_0"])))
    done = run("report", str(files["Q4_0"]), "--out", str(tmp_path / "x.html"), "--calibration", str(path))
    assert done.returncode == 65 and "belongs to another model file" in done.stderr
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize("content", [b"", b"not a database", b"SQLite format 3\0" + bytes(100)])
def test_file_that_is_no_run_is_refused_in_one_line(content: bytes, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "run.db"
    path.write_bytes(content)
    done = run("report", str(path), "--out", str(tmp_path / "report.html"))
    assert done.returncode == 65 and done.stderr.count("\n") == 1, done.stderr


def test_page_never_takes_the_place_of_a_run(files: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    before = files["Q8_0"].read_bytes()
    done = run("report", str(files["Q8_0"]), "--out", str(files["Q8_0"]))
    assert done.returncode == 74 and files["Q8_0"].read_bytes() == before
    done = run("report", str(files["Q8_0"]), "--out", str(tmp_path))
    assert done.returncode == 74 and "it is a folder" in done.stderr


def test_unfinished_run_is_said(files: dict[str, pathlib.Path]) -> None:
    loaded = runs.load(files["Q8_0"])
    part = dataclasses.replace(loaded, rows=loaded.rows[:5])
    assert "The run is not finished: 5 of 18 questions are answered." in of_run.measured(part).evaluation.notes
