"""`edge-agent calibrate` as people run it: in a separate process, with the demo model."""

import json
import pathlib

import pytest

from models.recipe.bank import draw_many
from tests.support.command_line import run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("data") / "questions.jsonl"
    rows = [{"question": item.stem, "options": item.options, "answer": item.letter} for item in draw_many(16, 400, "test")]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def test_calibration_is_made_stored_shown_and_removed(data: pathlib.Path, home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    rows = tmp_path / "run.db"
    done = run("calibrate", str(data), "--max-local-error", "0.2", "--rows", str(rows), "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["qualified"] and pathlib.Path(made["stored"]) == home / "calibrations" / f"{made['sha256']}.json"
    again = json.loads(
        run("calibrate", str(rows), "--max-local-error", "0.2", "--dry-run", "--json", EDGE_AGENT_MODEL="/nowhere.gguf").stdout
    )
    assert again["stored"] is None and again["calibration"]["tau"] == made["calibration"]["tau"]
    assert [one["sha256"] for one in json.loads(run("calibrate", "--list", "--json").stdout)] == [made["sha256"]]
    assert run("calibrate", "--live").returncode == 0
    assert run("calibrate", "--remove", made["sha256"][:8]).returncode == 0
    assert run("calibrate", "--remove", made["sha256"][:8]).returncode == 65
    strict = run("calibrate", str(rows), "--max-local-error", "0.001")
    assert strict.returncode == 0 and "No tau qualifies" in strict.stdout and not list((home / "calibrations").glob("*.json"))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2), (["data"], 2), (["data", "--list"], 2), (["data", "--cloud-rate", "0.2", "--accuracy", "0.5"], 2),
        (["data", "--cloud-rate", "0.2", "--delta", "0.1"], 2), (["data", "--cloud-rate", "2"], 2), (["data", "--budget", "3"], 65),
        (["data", "--budget", "3/day"], 65), (["data", "--max-local-error", "0"], 65), (["nowhere.db", "--cloud-rate", "0.2"], 65),
        (["--remove", ""], 65), (["--live"], 65),
    ],
)  # fmt: skip
def test_wrong_use_ends_in_one_line(arguments: list[str], code: int, data: pathlib.Path) -> None:
    done = run("calibrate", *(str(data) if argument == "data" else argument for argument in arguments))
    assert done.returncode == code and "Traceback" not in done.stderr and done.stderr.strip()
