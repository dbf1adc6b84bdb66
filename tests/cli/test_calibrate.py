"""`edge-agent calibrate` as people run it: in a separate process, with the demo model."""

import json
import pathlib

import pytest

from models.recipe.bank import draw_many
from tests.support.calibrations import stored
from tests.support.command_line import run
from tests.support.paths import DEMO


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


def test_price_of_zero_is_a_price(data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The run's own prices give way to a price that is given, 0 too: all questions fit into the budget."""
    rows = str(tmp_path / "run.db")
    assert run("eval", str(data), "--limit", "60", "--rows", rows, "--prompt-price", "30", "--completion-price", "15").returncode == 0
    prices = ("--prompt-price", "0", "--completion-price", "15", "--prompt-tokens", "100", "--completion-tokens", "2")
    made = run("calibrate", rows, "--budget", "1/day", "--questions-per-day", "10000", *prices, "--dry-run", "--json")
    assert json.loads(made.stdout)["measured"]["cost_per_day"]["value"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2), (["data"], 2), (["data", "--list"], 2), (["data", "--cloud-rate", "0.2", "--accuracy", "0.5"], 2),
        (["data", "--cloud-rate", "0.2", "--delta", "0.1"], 2), (["data", "--cloud-rate", "2"], 2), (["data", "--budget", "3"], 65),
        (["data", "--budget", "3/day"], 65), (["data", "--max-local-error", "0"], 65), (["nowhere.db", "--cloud-rate", "0.2"], 65),
        (["--remove", ""], 2), (["--remove", "abcde"], 2), (["--remove", "abcdef"], 65), (["--live"], 65),
    ],
)  # fmt: skip
def test_wrong_use_ends_in_one_line(arguments: list[str], code: int, data: pathlib.Path) -> None:
    done = run("calibrate", *(str(data) if argument == "data" else argument for argument in arguments))
    assert done.returncode == code and "Traceback" not in done.stderr and done.stderr.strip()


def test_questions_without_answers_are_enough_for_a_rate(data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    bare, rows = tmp_path / "bare.jsonl", tmp_path / "run.db"
    asked = [{key: row[key] for key in ("question", "options")} for row in map(json.loads, data.read_text().splitlines())]
    bare.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in asked))
    done = run("calibrate", str(bare), "--cloud-rate", "0.3", "--rows", str(rows), "--json")
    assert done.returncode == 0 and "400 of 400 questions have no answer" in done.stderr, done.stderr
    made = json.loads(done.stdout)
    again = json.loads(run("calibrate", str(rows), "--cloud-rate", "0.3", "--dry-run", "--json").stdout)
    assert made["stored"] and again["calibration"]["tau"] == made["calibration"]["tau"]
    for goal in ("--accuracy", "--max-local-error"):
        refused = run("calibrate", str(bare), goal, "0.3")
        assert refused.returncode == 65 and 'there is no "answer"' in refused.stderr


def test_stored_calibration_says_whether_it_applies_here(data: pathlib.Path, home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    rows, other = tmp_path / "run.db", tmp_path / "other.db"
    for path, model in ((rows, DEMO), (other, DEMO.with_name("FogGen-demo-Q4_0.gguf"))):
        assert run("eval", str(data), "--limit", "40", "--rows", str(path), "--model", str(model), "--cloud", "none").returncode == 0

    def said(path: pathlib.Path = rows, rate: str = "0.2", **environment: str) -> str:
        return run("calibrate", str(path), "--cloud-rate", rate, **environment).stdout.splitlines()[-1]

    assert "does not apply yet: it is for another model file" in said(other)
    assert "does not apply yet: a tau of 0.6 is set" in said(EDGE_AGENT_TAU="0.6")
    assert "does not apply yet: the setting calibration is none" in said(EDGE_AGENT_CALIBRATION="none")
    guarantee = stored(home, created_at="2026-01-02T03:04:05+00:00", goal="max_local_error")
    for path in (home / "calibrations").glob("*.json"):
        if path.stem != guarantee.sha256:
            path.unlink()
    words = said()
    assert "it applies from the next question on" in words
    assert f"It takes the place of {guarantee.sha256[:12]} for an error of at most 15% among the kept answers" in words
    future = stored(home, created_at="2131-01-01T00:00:00+00:00")
    assert f"does not apply yet: {future.sha256[:12]} has a later date, 2131-01-01; check the clock" in said()
